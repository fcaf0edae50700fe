//! Many connections, few of which are active.

use std::time::Duration;

use super::super::figures::{Column, Compare};
use super::super::http1::{KB, PATH, Pool, post};
use super::super::run::{Bench, Subject};

pub(super) fn about(bench: &Bench<'_>) -> String {
    format!(
        "{} keep-alive connections, one in {ONE_IN} active at a time: each sends a POST of 1 KB in its turn. Memory is PSS \
         beyond that of the same process after a warm-up.",
        bench.connections
    )
}

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::new("memory", "memory per connection", "KiB", Compare::Ratio),
        Column::new("cpu", "CPU per request", "us", Compare::Ratio),
        Column::new("connections", "new backend connections", "", Compare::Nothing),
    ]
}

pub(super) async fn measure(subject: &Subject<'_>, bench: &Bench<'_>) -> Result<Vec<f64>, String> {
    warm_up(subject).await?;
    let memory = subject.memory_kib();
    let connections = bench.connections;
    let requests = bench.options.requests.max(connections);
    let mut pool = Pool::open(subject.port, None, connections, |session| post(PATH, session, KB)).await?;
    let active = connections.div_ceil(ONE_IN);
    pool.run(requests / 8, active).await?;
    let opened = bench.backend_connections().await?;
    let before = subject.cpu_micros();
    pool.run(requests, active).await?;
    let cpu = subject.cpu_micros() - before;
    let opened = bench.backend_connections().await? - opened;
    tokio::time::sleep(SETTLE).await;
    let memory = subject.memory_kib() - memory;
    Ok(vec![memory / connections as f64, cpu / requests as f64, opened])
}

/// Touches what every request needs, over a few connections only: memory that is free again is not counted later.
pub(super) async fn warm_up(subject: &Subject<'_>) -> Result<(), String> {
    let mut pool = Pool::open(subject.port, None, WARM_CONNECTIONS, |session| post(PATH, session, KB)).await?;
    pool.run(WARM_REQUESTS, WARM_CONNECTIONS).await?;
    drop(pool);
    tokio::time::sleep(SETTLE).await;
    Ok(())
}

const ONE_IN: usize = 100;
const WARM_CONNECTIONS: usize = 8;
const WARM_REQUESTS: usize = 800;
const SETTLE: Duration = Duration::from_millis(300);
