//! What a proxy adds to the latency, at a rate that is no test of throughput.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

use super::super::figures::{Column, Compare, percentile};
use super::super::http1::{Connection, KB, PATH, Pool, Request, post};
use super::super::run::{Bench, Subject};

pub(super) fn about(bench: &Bench<'_>) -> String {
    format!(
        "POSTs of 1 KB, {} per second over all connections, for {} s: the latency beyond that of the same round without a \
         proxy (in brackets: that latency).",
        bench.options.rate, bench.options.seconds
    )
}

pub(super) fn columns() -> Vec<Column> {
    let columns = CONNECTIONS.iter().flat_map(|connections| {
        let plural = if *connections == 1 { "" } else { "s" };
        ["p50", "p99"].map(|share| {
            let head = format!("{share}, {connections} connection{plural}");
            Column::new(format!("{share}_{connections}"), head, "us", Compare::Added)
        })
    });
    columns.collect()
}

pub(super) async fn measure(subject: &Subject<'_>, bench: &Bench<'_>) -> Result<Vec<f64>, String> {
    let mut figures = Vec::new();
    for connections in CONNECTIONS {
        let mut pool = Pool::open(subject.port, None, connections, |session| post(PATH, session, KB)).await?;
        pool.run(500, connections.min(8)).await?;
        let micros = paced(pool, bench.options.rate, bench.options.seconds).await?;
        figures.push(percentile(micros.clone(), 0.5));
        figures.push(percentile(micros, 0.99));
    }
    Ok(figures)
}

/// Sends `rate` requests per second, by turns over all connections. A connection whose answer is late sends its next
/// request as soon as it can. Returns the microseconds from each request's first byte to its answer's last.
async fn paced(pool: Pool, rate: u32, seconds: f64) -> Result<Vec<f64>, String> {
    let (mut turns, mut tasks) = (Vec::new(), JoinSet::new());
    let local = LocalSet::new();
    for (connection, request) in pool.into_members() {
        let (turn, due) = mpsc::unbounded_channel();
        turns.push(turn);
        tasks.spawn_local_on(answer_times(connection, request, due), &local);
    }
    let pacer = std::thread::spawn(move || pace(&turns, rate, seconds));
    let micros = local.run_until(async {
        let mut micros = Vec::new();
        while let Some(done) = tasks.join_next().await {
            micros.extend(done.map_err(|error| error.to_string())??);
        }
        Ok::<_, String>(micros)
    });
    let micros = micros.await;
    // It has ended: the tasks end when it drops their channels.
    let _ = pacer.join();
    micros
}

/// The pacer is a thread, because the runtime's timers have a resolution of a millisecond.
fn pace(turns: &[mpsc::UnboundedSender<()>], rate: u32, seconds: f64) {
    let start = Instant::now();
    let end = Duration::from_secs_f64(seconds);
    for turn in 0u32.. {
        let due = Duration::from_secs(1) * turn / rate;
        if due >= end {
            return;
        }
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        if turns[turn as usize % turns.len()].send(()).is_err() {
            return;
        }
    }
}

async fn answer_times(
    mut connection: Connection,
    request: Request,
    mut due: mpsc::UnboundedReceiver<()>,
) -> Result<Vec<f64>, String> {
    let mut micros = Vec::new();
    while due.recv().await.is_some() {
        let sent = Instant::now();
        connection.exchange(&request).await?;
        micros.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    Ok(micros)
}

const CONNECTIONS: [usize; 3] = [1, 64, 500];
