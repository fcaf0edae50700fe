//! Small requests over HTTP/2 without TLS.

use super::super::http2::Connections;
use super::super::run::{Bench, Subject};

pub(super) fn about(bench: &Bench<'_>) -> String {
    format!(
        "{} POSTs of 1 KB over h2c with prior knowledge, {CONNECTIONS} connections with {STREAMS} streams each, closed loop. \
         Backends get HTTP/1.1.",
        bench.options.requests
    )
}

pub(super) async fn measure(subject: &Subject<'_>, bench: &Bench<'_>) -> Result<Vec<f64>, String> {
    let requests = bench.options.requests;
    let connections = Connections::open(subject.port, CONNECTIONS).await?;
    connections.run(requests / 8, STREAMS).await?;
    let opened = bench.backend_connections().await?;
    let before = subject.cpu_micros();
    let elapsed = connections.run(requests, STREAMS).await?;
    let cpu = subject.cpu_micros() - before;
    let opened = bench.backend_connections().await? - opened;
    Ok(vec![cpu / requests as f64, requests as f64 / elapsed.as_secs_f64(), opened])
}

const CONNECTIONS: usize = 8;
const STREAMS: usize = 8;
