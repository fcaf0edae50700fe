//! Reloads and upgrades under load: nothing is lost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ingle::config::Config;
use ingle::core::SessionKey;
use ingle::metrics::Metrics;
use ingle::snapshot::Snapshot;
use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::client::{Client, Req, find, header_of};
use crate::harness::{Setup, until};
use crate::process::Process;
use crate::scripted::{Gate, Scripted, Seen, Step, answer, chunk, stream_head};

/// A backend whose streams are told apart by the request's body, and go on one piece for each time the gate opens.
async fn backend(gate: &Gate) -> Scripted {
    let gate = gate.clone();
    Scripted::start(move |seen: &Seen| {
        if seen.head.starts_with("GET ") {
            return vec![Step::Send(answer(200, "", b"short"))];
        }
        let mut steps = vec![Step::Send(stream_head())];
        for piece in pieces(&seen.body) {
            steps.extend([Step::Send(chunk(&piece)), Step::Wait(gate.clone())]);
        }
        steps.push(Step::Send(chunk(b"")));
        steps
    })
    .await
}

/// What is streamed to whoever sends this body.
fn pieces(body: &[u8]) -> Vec<Vec<u8>> {
    (0..PIECES).map(|i| format!("data: {} {i}\n\n", String::from_utf8_lossy(body)).into_bytes()).collect()
}

/// Opens the gate about as often as all streams together need.
fn pace(gate: Gate, per_tick: usize) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        loop {
            tick.tick().await;
            (0..per_tick).for_each(|_| gate.open());
        }
    })
}

/// What clients have seen.
#[derive(Default)]
struct Observed {
    over: AtomicBool,
    streams: AtomicUsize,
    requests: AtomicUsize,
    failures: Mutex<Vec<String>>,
    /// Whose home is the same in all configs, and where.
    unaffected: BTreeMap<String, String>,
}

impl Observed {
    fn fail(&self, what: String) {
        self.failures.lock().push(what);
    }

    fn placed(&self, session: &str, head: &str) {
        let (at, affinity) = (header_of(head, "X-Ingle-Backend"), header_of(head, "X-Ingle-Affinity"));
        match self.unaffected.get(session) {
            Some(home) if (at, affinity) != (Some(home), Some("home")) => {
                self.fail(format!("{session} of {home} went to {at:?} as {affinity:?}"));
            }
            _ => {}
        }
    }
}

/// One stream after another.
async fn streams(address: SocketAddr, session: String, seen: Arc<Observed>) {
    for number in 0.. {
        if seen.over.load(Ordering::Relaxed) {
            return;
        }
        let body = format!("{session} {number}");
        let mut client = Client::connect(address).await;
        client.write(&Req::post("/v1/chat/completions", body.as_bytes()).session(&session).bytes()).await;
        let answer = client.answer().await;
        if answer.status != 200 || !answer.whole || answer.body != pieces(body.as_bytes()).concat() {
            seen.fail(format!("stream {body}: {answer:?}"));
        }
        seen.placed(&session, &answer.head);
        seen.streams.fetch_add(1, Ordering::Relaxed);
    }
}

/// One short request after another, over a connection that is kept for as long as the gateway keeps it. Nothing is tried
/// again.
async fn shorts(address: SocketAddr, session: String, keeps: bool, seen: Arc<Observed>) {
    let mut connection: Option<TcpStream> = None;
    while !seen.over.load(Ordering::Relaxed) {
        let exchange = async {
            let mut stream = match connection.take() {
                Some(stream) => stream,
                None => TcpStream::connect(address).await?,
            };
            stream.write_all(&Req::get("/short").session(&session).bytes()).await?;
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"short") {
                if stream.read_buf(&mut bytes).await? == 0 {
                    return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
                }
            }
            Ok((stream, bytes))
        };
        match exchange.await {
            Ok((stream, bytes)) => {
                let head = String::from_utf8_lossy(&bytes[..find(&bytes, b"\r\n\r\n").unwrap()]).into_owned();
                if !head.starts_with("HTTP/1.1 200 ") {
                    seen.fail(format!("short request of {session}: {head}"));
                }
                seen.placed(&session, &head);
                if keeps && header_of(&head, "Connection") != Some("close") {
                    connection = Some(stream);
                }
            }
            Err(error) => seen.fail(format!("short request of {session}: {error}")),
        }
        seen.requests.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// The home of each session.
fn homes(yaml: &str, sessions: &[String]) -> Vec<String> {
    let config = Config::parse(yaml, "test").unwrap();
    let snapshot = Snapshot::new(config, &Metrics::new().unwrap());
    let seed = snapshot.pool.settings().seed;
    let home = |id: &String| {
        let home = snapshot.pool.home(SessionKey::parse(id.as_bytes(), 256, seed).unwrap().unwrap()).unwrap();
        snapshot.pool.members()[home].backend.name().to_owned()
    };
    sessions.iter().map(home).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_reloads_and_five_upgrades_lose_nothing_and_move_nobody_who_is_not_meant() {
    let gate = Gate::new();
    let mut backends = Vec::new();
    for _ in 0..4 {
        backends.push(backend(&gate).await);
    }
    let base = |weight: u32| {
        let more = format!("server: generic, weight: {weight}");
        // A session that is sent elsewhere because its home is busy has moved for another reason.
        let setup = Setup::new().pool("overload: { balance_factor: 0 }").backend_with("a", &backends[0].url(), &more);
        setup.backend("b", &backends[1].url()).backend("c", &backends[2].url())
    };
    let configs =
        [base(1), base(1).backend("d", &backends[3].url()), base(2).backend("d", &backends[3].url()), base(2)];
    let configs = configs.map(|setup| setup.yaml());
    let sessions: Vec<String> = (0..STREAMS + SHORTS).map(|i| format!("session-{i}")).collect();
    let all: Vec<Vec<String>> = configs.iter().map(|yaml| homes(yaml, &sessions)).collect();
    let same = sessions.iter().enumerate().filter(|(i, _)| all.iter().all(|homes| homes[*i] == all[0][*i]));
    let unaffected: BTreeMap<_, _> = same.map(|(i, id)| (id.clone(), all[0][i].clone())).collect();
    assert!((20..STREAMS + SHORTS).contains(&unaffected.len()), "some move, some stay: {}", unaffected.len());

    let mut process = Process::start(&configs[0]).await;
    process.until_line(|line| line["backend"] == "c" && line["to"] == "healthy").await;
    for name in ["a", "b"] {
        process.until_line(|line| line["backend"] == name && line["to"] == "healthy").await;
    }
    let seen = Arc::new(Observed { unaffected, ..Observed::default() });
    let pacer = pace(gate.clone(), STREAMS / 5);
    let (streaming, asking) = sessions.split_at(STREAMS);
    let mut clients: Vec<JoinHandle<()>> = Vec::new();
    for session in streaming {
        clients.push(tokio::spawn(streams(process.address, session.clone(), Arc::clone(&seen))));
    }
    for (i, session) in asking.iter().enumerate() {
        clients.push(tokio::spawn(shorts(process.address, session.clone(), i % 2 == 0, Arc::clone(&seen))));
    }
    let begun = Instant::now();
    let progress = || (seen.streams.load(Ordering::Relaxed), seen.requests.load(Ordering::Relaxed));
    let mut reloads = 0;
    for round in 0..10 {
        let before = progress();
        until("there is load", || progress().1 > before.1 + 100).await;
        std::fs::write(&process.config, &configs[(round + 1) % configs.len()]).unwrap();
        process.signal(Signal::HUP);
        reloads += 1;
        process.until_count("config reloaded: ", reloads).await;
        if round % 2 == 1 {
            process.upgrade().await;
        }
    }
    let before = progress();
    until("the last one serves", || progress().0 > before.0 + STREAMS && progress().1 > before.1 + 100).await;
    seen.over.store(true, Ordering::Relaxed);
    let seconds = begun.elapsed().as_secs_f64();
    for client in clients {
        client.await.unwrap();
    }
    let (streams, requests) = progress();
    println!(
        "{streams} streams, {requests} short requests ({:.0} per second), 10 reloads, 5 upgrades",
        requests as f64 / seconds
    );
    assert_eq!(*seen.failures.lock(), [""; 0]);
    process.until_former_ended().await;
    assert_eq!(process.count("drained, ingle ends"), 5, "nobody was cut");
    process.signal(Signal::TERM);
    process.until_last_ended().await;
    pacer.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_streams_of_five_seconds_outlive_sigterm() {
    let gate = Gate::new();
    let a = backend(&gate).await;
    let mut process = Process::start(&Setup::new().backend("a", &a.url()).yaml()).await;
    let seen = Arc::new(Observed::default());
    let address = process.address;
    let clients: Vec<_> =
        (0..50).map(|i| tokio::spawn(streams(address, format!("session-{i}"), Arc::clone(&seen)))).collect();
    until("all of them stream", || a.count() == 50).await;
    // Each takes its one, and no further one.
    seen.over.store(true, Ordering::Relaxed);
    // 50 streams of 40 pieces in 5 s.
    let pacer = pace(gate, 4);
    process.signal(Signal::TERM);
    for client in clients {
        client.await.unwrap();
    }
    let last = Instant::now();
    assert_eq!(process.until_ended().await.code(), Some(0));
    println!("it ended {:?} after the last of 50 streams", last.elapsed());
    assert_eq!(*seen.failures.lock(), [""; 0]);
    assert_eq!(seen.streams.load(Ordering::Relaxed), 50);
    process.until_line(|line| line["message"] == "drained, ingle ends").await;
    pacer.abort();
}

const STREAMS: usize = 100;
/// Clients that ask for something short about fifty times a second each.
const SHORTS: usize = 12;
/// Of a stream.
const PIECES: usize = 40;
