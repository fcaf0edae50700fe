//! SIGTERM with streams under way.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;
use tokio::task::JoinSet;

use super::harness::asks::Book;
use super::harness::backends::{Backend, Pace};
use super::harness::gateway::Gateway;
use super::harness::http1::{self, Broken, Connection};
use super::harness::process::alive;

/// What came of it.
pub(crate) struct Drained {
    pub(crate) streams: usize,
    pub(crate) whole: usize,
    pub(crate) failures: Vec<String>,
    /// From the end of the last stream to that of the process.
    pub(crate) after: Duration,
}

/// Streams of five seconds; the signal comes when all have begun.
pub(crate) async fn run(streams: usize) -> Result<Drained, String> {
    let backend = Backend::start("a", "vllm", Pace { prefill: "2000000", decode: "50", pings: "0s" })?;
    let yaml = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\npools:\n- name: main\n  \
         backends: [{{ name: a, url: 'http://{}', server: vllm }}]\n",
        backend.address
    );
    let gateway = Gateway::start(&yaml).await?;
    let book = Book::new(&mut Rng::with_seed(3));
    let mut streaming = JoinSet::new();
    for client in 0..streams {
        let (to, ask) = (gateway.address, book.ask(&mut Rng::with_seed(client as u64), true, 250));
        streaming.spawn(async move {
            let mut connection = Connection::open(to, Ipv4Addr::LOCALHOST).await?;
            let answer = connection.exchange(&http1::post(None, None, &ask.body, false)).await?;
            ask.verify(&answer.body).map_err(Broken::early)
        });
    }
    gateway.until("all stream", async || Ok(gateway.status().await?["requests_in_flight"] == streams)).await?;
    gateway.signal(Signal::TERM)?;
    let (mut whole, mut failures) = (0, Vec::new());
    while let Some(stream) = streaming.join_next().await {
        match stream.map_err(|error| error.to_string())? {
            Ok(()) => whole += 1,
            Err(broken) => failures.push(broken.what),
        }
    }
    let last = Instant::now();
    gateway
        .until("it has ended", async || {
            gateway.reap();
            Ok(!alive(gateway.pid()))
        })
        .await?;
    Ok(Drained { streams, whole, failures, after: last.elapsed() })
}
