//! The process: signals, drain, exit codes.

use std::net::TcpListener;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::client::{Client, Req};
use crate::frames;
use crate::h2c::H2c;
use crate::harness::{PATIENCE, Setup, sum, until};
use crate::process::{Process, file, run};
use crate::scripted::{Gate, Scripted, Step, answer, chunk, stream_head};

/// Streams of three pieces, each of which waits for the gate.
async fn gated(gate: &Gate) -> Scripted {
    let gate = gate.clone();
    Scripted::start(move |_| {
        let mut steps = vec![Step::Send(stream_head())];
        for piece in ["one", "two", "three", ""] {
            steps.extend([Step::Send(chunk(piece.as_bytes())), Step::Wait(gate.clone())]);
        }
        steps.pop();
        steps
    })
    .await
}

async fn streaming(process: &Process, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(process.address).await;
        client.write(&Req::post("/v1/chat/completions", b"{}").session("s").bytes()).await;
        client.head().await;
        assert_eq!(client.chunk().await.unwrap(), b"one");
        clients.push(client);
    }
    clients
}

/// Waits until nobody can connect any more.
async fn until_refused(process: &Process) {
    while TcpStream::connect(process.address).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn on_sigterm_nothing_new_begins_and_no_stream_is_cut() {
    for signal in [Signal::TERM, Signal::INT] {
        let gate = Gate::new();
        let a = gated(&gate).await;
        let mut process = Process::start(&Setup::new().backend("a", &a.url()).yaml()).await;
        let mut clients = streaming(&process, 20).await;
        // An idle kept connection holds nothing up.
        let _idle = Client::connect(process.address).await;
        process.signal(signal);
        until_refused(&process).await;
        let ready = Client::connect(process.admin).await.send(&Req::get("/readyz")).await;
        assert_eq!((ready.status, ready.text().as_str()), (503, "stopping\n"));
        (0..60).for_each(|_| gate.open());
        for client in &mut clients {
            let mut rest = Vec::new();
            loop {
                let piece = client.chunk().await.expect("whole, to the last chunk");
                if piece.is_empty() {
                    break;
                }
                rest.extend(piece);
            }
            assert_eq!(rest, b"twothree");
        }
        assert_eq!(process.until_ended().await.code(), Some(0));
        process.until_line(|line| line["message"] == "drained, ingle ends").await;
    }
}

#[tokio::test]
async fn it_goes_on_as_long_as_a_stream_does() {
    let gate = Gate::new();
    let a = gated(&gate).await;
    let mut process = Process::start(&Setup::new().backend("a", &a.url()).yaml()).await;
    let mut clients = streaming(&process, 2).await;
    process.signal(Signal::TERM);
    until_refused(&process).await;
    drop(clients.remove(0));
    until("one stream is left", || a.left().len() == 1).await;
    for piece in ["two", "three", ""] {
        assert!(!process.ended());
        gate.open();
        assert_eq!(clients[0].chunk().await.unwrap(), piece.as_bytes());
    }
    assert_eq!(process.until_ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let gate = Gate::new();
    let a = gated(&gate).await;
    let mut process = Process::start(&Setup::new().backend("a", &a.url()).yaml()).await;
    let mut clients = streaming(&process, 1).await;
    process.signal(Signal::TERM);
    until_refused(&process).await;
    assert!(!process.ended());
    process.signal(Signal::TERM);
    assert_eq!(process.until_ended().await.code(), Some(0));
    let line = process.until_line(|line| line["message"] == "ingle ends with requests under way").await;
    assert_eq!(line["requests"], 1);
    assert_eq!(clients[0].chunk().await, None, "cut");
}

#[tokio::test]
async fn the_drain_has_an_end() {
    let gate = Gate::new();
    let a = gated(&gate).await;
    let yaml = Setup::new().backend("a", &a.url()).top("shutdown: { drain_timeout: 300ms }").yaml();
    let mut process = Process::start(&yaml).await;
    let _clients = streaming(&process, 1).await;
    process.signal(Signal::TERM);
    assert_eq!(process.until_ended().await.code(), Some(0));
    process.until_line(|line| line["message"] == "ingle ends with requests under way").await;
}

#[tokio::test]
async fn before_listeners_close_it_is_not_ready_for_a_while() {
    let a = Scripted::ok("a").await;
    let with = |delay: &str| Setup::new().backend("a", &a.url()).top(&format!("shutdown: {{ delay: {delay} }}")).yaml();
    let mut process = Process::start(&with("1h")).await;
    process.until_line(|line| line["backend"] == "a" && line["to"] == "healthy").await;
    let mut kept = Client::connect(process.address).await;
    assert_eq!(kept.send(&Req::get("/")).await.header("Connection"), Some("keep-alive"));
    process.signal(Signal::TERM);
    while Client::connect(process.admin).await.send(&Req::get("/readyz")).await.status == 200 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    for mut client in [kept, Client::connect(process.address).await] {
        let answer = client.send(&Req::get("/")).await;
        assert_eq!((answer.outcome().as_str(), answer.header("Connection")), ("a balanced 200", Some("close")));
    }
    assert!(!process.ended());
    process.signal(Signal::TERM);
    assert_eq!(process.until_ended().await.code(), Some(0));

    let mut process = Process::start(&with("50ms")).await;
    process.signal(Signal::TERM);
    assert_eq!(process.until_ended().await.code(), Some(0));
}

#[tokio::test]
async fn an_answer_that_begins_while_it_stops_says_that_the_connection_closes() {
    let gate = Gate::new();
    let wait = gate.clone();
    let a = Scripted::start(move |_| vec![Step::Wait(wait.clone()), Step::Send(answer(200, "", b"a"))]).await;
    let mut process = Process::start(&Setup::new().backend("a", &a.url()).yaml()).await;
    let mut client = Client::connect(process.address).await;
    client.write(&Req::get("/").bytes()).await;
    until("it is there", || a.count() == 1).await;
    process.signal(Signal::TERM);
    until_refused(&process).await;
    gate.open();
    let answer = client.answer().await;
    assert_eq!((answer.text().as_str(), answer.header("Connection")), ("a", Some("close")));
    assert_eq!(client.rest().await, "");
    assert_eq!(process.until_ended().await.code(), Some(0));
}

#[tokio::test]
async fn http2_clients_are_told_to_go_and_their_streams_finish() {
    let gate = Gate::new();
    let wait = gate.clone();
    let a = Scripted::start(move |seen| match seen.head.starts_with("GET /quick ") {
        true => vec![Step::Send(answer(200, "", b"quick"))],
        false => vec![
            Step::Send([stream_head(), chunk(b"one")].concat()),
            Step::Wait(wait.clone()),
            Step::Send([chunk(b"two"), chunk(b"")].concat()),
        ],
    })
    .await;
    let mut process = Process::start(&Setup::new().backend("a", &a.url()).yaml()).await;
    let client = H2c::connect(process.address).await;
    let mut running = client.begin(&Req::get("/")).await.into_body();
    assert_eq!(running.data().await.unwrap().unwrap(), "one");
    process.signal(Signal::TERM);
    // Whatever was sent before it was told is served.
    while let Ok(answer) = client.exchange(&Req::get("/quick"), true).await {
        assert_eq!(answer.body(), b"quick");
    }
    gate.open();
    let mut rest = Vec::new();
    while let Some(piece) = running.data().await {
        rest.extend(piece.expect("not cut"));
    }
    assert_eq!(rest, b"two");
    assert_eq!(process.until_ended().await.code(), Some(0));
    process.until_line(|line| line["message"] == "drained, ingle ends").await;
}

#[tokio::test]
async fn without_requests_it_ends_at_once() {
    let a = Scripted::ok("a").await;
    let mut process = Process::start(&Setup::new().backend("a", &a.url()).yaml()).await;
    let mut kept = Client::connect(process.address).await;
    assert_eq!(kept.send(&Req::get("/")).await.status, 200);
    process.signal(Signal::TERM);
    assert_eq!(process.until_ended().await.code(), Some(0));
    assert_eq!(kept.rest().await, "");
}

#[test]
fn an_invalid_or_missing_config_is_exit_2() {
    let invalid = file("listeners: [{ address: nowhere }]\npools: []\n");
    for path in [invalid.to_str().unwrap(), "/no/such/file.yaml"] {
        let output = run(&["run", "--config", path]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains(path), "it says which file");
    }
    assert_eq!(run(&["run"]).status.code(), Some(2), "wrong usage");
    assert_eq!(run(&["walk"]).status.code(), Some(2));
}

#[test]
fn a_port_in_use_is_exit_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let yaml = Setup::new().backend("a", "http://127.0.0.1:1").yaml();
    for key in ["listeners: [{ address: 127.0.0.1:0 }]", "admin: { address: 127.0.0.1:0 }"] {
        let path = file(&yaml.replace(key, &key.replace("127.0.0.1:0", &address)));
        let output = run(&["run", "--config", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains(&format!("can't listen on {address}")), "{log}");
    }
}

/// The gateway has handed over all answers, but HTTP/2 holds what its client has not read yet.
#[tokio::test]
async fn a_drain_waits_until_slow_http2_clients_have_all_bytes() {
    const STREAMS: usize = 100;
    const SIZE: usize = 60_000;
    let a = Scripted::start(|_| vec![Step::Send(answer(200, "", &[b'x'; SIZE]))]).await;
    let mut process = Process::start(&Setup::new().backend("a", &a.url()).yaml()).await;
    process.until_line(|line| line["backend"] == "a" && line["to"] == "healthy").await;
    let mut client = slow_reader(&process).await;
    client.write_all(&frames::requests(STREAMS)).await.unwrap();
    until_served(&process, STREAMS).await;
    process.signal(Signal::TERM);
    until_refused(&process).await;
    let (data, ended) = tokio::time::timeout(PATIENCE, frames::read_all(&mut client)).await.unwrap();
    assert_eq!((data, ended), (STREAMS * SIZE, STREAMS), "bytes and ends of streams");
    assert_eq!(process.until_ended().await.code(), Some(0));
    process.until_line(|line| line["message"] == "drained, ingle ends").await;
}

/// Its last wait is five seconds, and so is this test's.
#[tokio::test]
async fn an_http2_client_that_never_closes_does_not_hold_the_end_up() {
    let a = Scripted::ok("a").await;
    let mut process = Process::start(&Setup::new().backend("a", &a.url()).yaml()).await;
    process.until_line(|line| line["backend"] == "a" && line["to"] == "healthy").await;
    let mut silent = slow_reader(&process).await;
    silent.write_all(&frames::requests(1)).await.unwrap();
    until_served(&process, 1).await;
    process.signal(Signal::TERM);
    assert_eq!(process.until_ended().await.code(), Some(0));
    drop(silent);
}

/// The kernel takes next to nothing for it, so that what it does not read stays in the gateway.
async fn slow_reader(process: &Process) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(process.address).await.unwrap()
}

async fn until_served(process: &Process, count: usize) {
    loop {
        let metrics = Client::connect(process.admin).await.send(&Req::get("/metrics")).await.text();
        if sum(&metrics, "ingle_requests_total", &[("code", "2xx")]) == count as f64 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
