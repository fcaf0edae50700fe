//! Small requests over kept connections, as fast as they are answered; the same over TLS.

use super::super::certificate::Certificate;
use super::super::figures::{Column, Compare};
use super::super::http1::{KB, PATH, Pool, post};
use super::super::run::{Bench, Subject};

pub(super) fn about(bench: &Bench<'_>, how: &str) -> String {
    let requests = bench.options.requests;
    format!("{requests} POSTs of 1 KB over {CONNECTIONS} keep-alive connections{how}, closed loop.")
}

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::new("cpu", "CPU per request", "us", Compare::Ratio),
        Column::new("rate", "requests per second", "", Compare::Nothing),
        Column::new("connections", "new backend connections", "", Compare::Nothing),
    ]
}

pub(super) async fn measure(
    subject: &Subject<'_>,
    bench: &Bench<'_>,
    trusted: Option<&Certificate>,
) -> Result<Vec<f64>, String> {
    let requests = bench.options.requests;
    let mut pool = Pool::open(subject.port, trusted, CONNECTIONS, |session| post(PATH, session, KB)).await?;
    pool.run(requests / 8, CONNECTIONS).await?;
    let connections = bench.backend_connections().await?;
    let before = subject.cpu_micros();
    let elapsed = pool.run(requests, CONNECTIONS).await?;
    let cpu = subject.cpu_micros() - before;
    let connections = bench.backend_connections().await? - connections;
    Ok(vec![cpu / requests as f64, requests as f64 / elapsed.as_secs_f64(), connections])
}

const CONNECTIONS: usize = 64;
