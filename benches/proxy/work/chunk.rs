//! Many event streams at once, each slow, as tokens are.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use memchr::memmem;
use tokio::io::AsyncReadExt;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout};

use super::super::backend::{TIME_DIGITS, TIME_MARK, monotonic_nanos};
use super::super::figures::{Column, Compare, percentile};
use super::super::http1::{Connection, KB, Wire, post};
use super::super::run::{Bench, Subject};
use super::idle;

pub(super) fn about(bench: &Bench<'_>) -> String {
    let (streams, seconds) = (bench.options.streams, bench.options.seconds);
    format!(
        "{streams} event streams at once, an event of 175 bytes each {EVERY_MS} ms in each, for {seconds} s. Latency is \
         from the backend's write to the client's read. Memory is PSS beyond that of the same process after a warm-up."
    )
}

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::new("cpu", "CPU per chunk", "us", Compare::Ratio),
        Column::new("memory", "memory per stream", "KiB", Compare::Ratio),
        Column::new("p50", "chunk latency p50", "us", Compare::Nothing),
        Column::new("p99", "chunk latency p99", "us", Compare::Nothing),
    ]
}

/// What the readers of all streams share.
#[derive(Default)]
struct Seen {
    /// Streams that had an event.
    streams: Cell<usize>,
    /// Microseconds of each event.
    latencies: RefCell<Vec<f64>>,
}

pub(super) async fn measure(subject: &Subject<'_>, bench: &Bench<'_>) -> Result<Vec<f64>, String> {
    idle::warm_up(subject).await?;
    let memory = subject.memory_kib();
    let local = LocalSet::new();
    local.run_until(measure_streams(subject, bench, memory)).await
}

async fn measure_streams(subject: &Subject<'_>, bench: &Bench<'_>, memory: f64) -> Result<Vec<f64>, String> {
    let streams = bench.options.streams;
    let seen = Rc::new(Seen::default());
    let mut readers = JoinSet::new();
    for stream in 0..streams {
        let mut connection = Connection::open(subject.port, None).await?;
        let phase = stream as u64 * EVERY_MS / streams as u64;
        connection.send(&post(&format!("/sse/{EVERY_MS}/{phase}"), stream, KB).bytes).await?;
        readers.spawn_local(read(connection.wire, Rc::clone(&seen)));
    }
    let opened = async {
        while seen.streams.get() < streams {
            sleep(Duration::from_millis(10)).await;
        }
        sleep(SETTLE).await;
    };
    tokio::select! {
        error = first_end(&mut readers) => return Err(error),
        opened = timeout(PATIENCE, opened) => opened.map_err(|_| "not every stream has an event".to_owned())?,
    }

    let (start, before) = (Instant::now(), subject.cpu_micros());
    seen.latencies.borrow_mut().clear();
    tokio::select! {
        error = first_end(&mut readers) => return Err(error),
        () = sleep(Duration::from_secs_f64(bench.options.seconds)) => {}
    }
    let cpu = subject.cpu_micros() - before;
    let latencies = seen.latencies.take();
    let expected = streams as f64 * start.elapsed().as_secs_f64() * 1e3 / EVERY_MS as f64;
    if (latencies.len() as f64) < 0.9 * expected {
        return Err(format!("{} chunks came of {expected:.0}: the machine is too busy", latencies.len()));
    }
    let memory = (subject.memory_kib() - memory) / streams as f64;
    let chunks = latencies.len() as f64;
    let (p50, p99) = (percentile(latencies.clone(), 0.5), percentile(latencies, 0.99));
    Ok(vec![cpu / chunks, memory, p50, p99])
}

/// Waits for a reader to end, which it does with an error only.
async fn first_end(readers: &mut JoinSet<String>) -> String {
    match readers.join_next().await {
        Some(Ok(error)) => error,
        Some(Err(error)) => error.to_string(),
        None => "no streams".to_owned(),
    }
}

/// Reads events until the stream ends, which is an error. Returns it.
async fn read(mut wire: Box<dyn Wire>, seen: Rc<Seen>) -> String {
    let mut buffer: Vec<u8> = Vec::with_capacity(4096);
    let mut first = true;
    loop {
        match wire.read_buf(&mut buffer).await {
            Ok(0) => return "the proxy closed a stream".to_owned(),
            Ok(_) => {}
            Err(error) => return format!("reading a stream: {error}"),
        }
        let now = monotonic_nanos();
        let mut read = 0;
        while let Some(at) = memmem::find(&buffer[read..], TIME_MARK) {
            let digits = read + at + TIME_MARK.len();
            let Some(time) = buffer.get(digits..digits + TIME_DIGITS) else { break };
            let Some(time) = std::str::from_utf8(time).ok().and_then(|time| time.parse::<u64>().ok()) else {
                return "a damaged event".to_owned();
            };
            seen.latencies.borrow_mut().push(now.saturating_sub(time) as f64 / 1e3);
            read = digits + TIME_DIGITS;
            if std::mem::take(&mut first) {
                seen.streams.set(seen.streams.get() + 1);
            }
        }
        // A mark or a time that is not complete stays.
        let keep = (TIME_MARK.len() + TIME_DIGITS).min(buffer.len() - read);
        buffer.drain(..buffer.len() - keep);
    }
}

const EVERY_MS: u64 = 50;
/// From the last stream's first event to the measurement.
const SETTLE: Duration = Duration::from_millis(500);
/// For all streams to have an event.
const PATIENCE: Duration = Duration::from_secs(20);
