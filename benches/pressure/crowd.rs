//! Ten thousand open connections, of which two thousand stream.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::harness::asks::Book;
use super::harness::backends::{Backend, Pace};
use super::harness::gateway::Gateway;
use super::harness::http1::{self, Connection};
use super::harness::process::{Holds, connections, holds};

/// What it took.
pub(crate) struct Crowd {
    /// So many connections were to be open; fewer than asked for where the system has too few descriptors.
    pub(crate) wanted: usize,
    pub(crate) asked: usize,
    pub(crate) before: Holds,
    /// With all of them open.
    pub(crate) full: Holds,
    /// As the kernel and the gateway count them, at the same moment.
    pub(crate) connections: (usize, u64),
    pub(crate) streaming: u64,
    /// Streams that were whole, byte for byte.
    pub(crate) whole: usize,
    pub(crate) failures: Vec<String>,
}

pub(crate) async fn run(asked: usize, streams: usize) -> Result<Crowd, String> {
    let open = asked.min(room());
    let backends: Vec<_> = ["a", "b", "c", "d"]
        .into_iter()
        .map(|name| Backend::start(name, "llama_server", PACE))
        .collect::<Result<_, _>>()?;
    let gateway = Gateway::start(&config(&backends)).await?;
    let before = holds(gateway.pid()).ok_or("the gateway is gone")?;
    let book = Arc::new(Book::new(&mut Rng::with_seed(1)));
    let mut streaming = JoinSet::new();
    for client in 0..streams {
        streaming.spawn(stream(gateway.address, Arc::clone(&book), client));
        // The queue of the listening socket has a bound of its own.
        if client % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let idle = idle(gateway.address, &book, open - streams).await?;
    gateway.until("all of them stream", async || Ok(gateway.status().await?["requests_in_flight"] == streams)).await?;
    let status = gateway.status().await?;
    let full = holds(gateway.pid()).ok_or("the gateway is gone")?;
    let count = |name: &str| status[name].as_u64().unwrap_or_default();
    let connections = (connections(gateway.address.port()), count("connections"));
    let in_flight = count("requests_in_flight");
    let (mut whole, mut failures) = (0, Vec::new());
    while let Some(stream) = streaming.join_next().await {
        match stream.map_err(|error| error.to_string()).and_then(|came| came) {
            Ok(()) => whole += 1,
            Err(why) => failures.push(why),
        }
    }
    drop(idle);
    Ok(Crowd { wanted: open, asked, before, full, connections, streaming: in_flight, whole, failures })
}

/// Of the descriptors that it may have, the gateway keeps a sixteenth and some for itself; connections may have three fifths
/// of the others (`gateway/bounds.rs`).
fn room() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from((limit - limit / 16).saturating_sub(100) / 5 * 3).unwrap_or(usize::MAX)
}

/// One stream, verified.
async fn stream(to: SocketAddr, book: Arc<Book>, client: usize) -> Result<(), String> {
    let ask = book.ask(&mut Rng::with_seed(client as u64), true, TOKENS);
    let request = http1::post(Some(&format!("session-{client}")), None, &ask.body, false);
    let come = async {
        let mut connection = Connection::open(to, from(client)).await?;
        connection.send(&request).await?;
        let head = connection.head().await?;
        Ok((head.status, connection.body(&head).await?))
    };
    let (status, body) = come.await.map_err(|broken: http1::Broken| format!("stream {client}: {broken:?}"))?;
    if status != 200 {
        return Err(format!("stream {client}: {status}"));
    }
    ask.verify(&body).map_err(|what| format!("stream {client}: {what}"))
}

/// Connections that had a request, and are kept.
async fn idle(to: SocketAddr, book: &Arc<Book>, count: usize) -> Result<Vec<Connection>, String> {
    let (at_once, mut opening) = (Arc::new(Semaphore::new(64)), JoinSet::new());
    for client in 0..count {
        let (at_once, book) = (Arc::clone(&at_once), Arc::clone(book));
        opening.spawn(async move {
            let _permit = at_once.acquire().await.map_err(|error| error.to_string())?;
            let ask = book.ask(&mut Rng::with_seed(client as u64), false, 1);
            let come = async {
                let mut connection = Connection::open(to, from(client)).await?;
                let answer = connection.exchange(&http1::post(None, None, &ask.body, false)).await?;
                Ok((connection, answer))
            };
            let (connection, answer) = come.await.map_err(|broken: http1::Broken| broken.what)?;
            if answer.status != 200 {
                return Err(format!("an idle connection got {}", answer.status));
            }
            ask.verify(&answer.body).map(|()| connection)
        });
    }
    let mut connections = Vec::new();
    while let Some(opened) = opening.join_next().await {
        connections.push(opened.map_err(|error| error.to_string())??);
    }
    Ok(connections)
}

/// Clients come from eight addresses of this machine, each with ports of its own.
fn from(client: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 2 + (client % 8) as u8)
}

/// Idle connections shall still be there when the last one comes.
fn config(backends: &[Backend]) -> String {
    let mut yaml = "listeners: [{ address: '127.0.0.1:0' }]\nadmin: { address: '127.0.0.1:0' }\n\
                    limits: { header_timeout: 10m, max_connections: 11000 }\npools:\n- name: main\n  backends:\n"
        .to_owned();
    for Backend { name, address, .. } in backends {
        yaml += &format!("  - {{ name: {name}, url: 'http://{address}' }}\n");
    }
    yaml
}

/// Tokens per second of a stream, and its length: a stream takes a hundred seconds, so that the first one still goes on
/// when all are open.
const PACE: Pace = Pace { prefill: "2000000", decode: "4", pings: "0s" };
const TOKENS: usize = 400;
