//! A client that leaves ends the backend's work, is counted as 499, and costs nobody anything.

use std::time::{Duration, Instant};

use ingle_sim::{Phase, SimConfig, SimServer};

use crate::client::Req;
use crate::h2c::H2c;
use crate::harness::{Gateway, PATIENCE, Setup, until};
use crate::scripted::{Scripted, Step, chunk, stream_head};

async fn aborts(gateway: &Gateway, phase: &str) -> f64 {
    gateway.metric("ingle_client_aborts_total", &[("phase", phase)]).await
}

/// Never answers, or begins to and then is silent.
async fn silent(after: Vec<Step>) -> Scripted {
    Scripted::start(move |_| after.iter().cloned().chain([Step::Hang]).collect()).await
}

fn begun() -> Vec<Step> {
    vec![Step::Send(stream_head()), Step::Send(chunk(b"data: 1\n\n"))]
}

/// The contract says 50 ms; a test on a busy machine asks for less and prints what it saw.
async fn closes_soon(a: &Scripted, left: Instant, what: &str) {
    until("the backend sees it", || !a.left().is_empty()).await;
    let after = a.left()[0].saturating_duration_since(left);
    println!("{what}: the backend's connection is closed {after:?} after the client's");
    assert!(after < Duration::from_millis(500), "{after:?}");
}

#[tokio::test]
async fn while_it_waits_for_the_first_byte() {
    let (a, b) = (silent(Vec::new()).await, Scripted::ok("b").await);
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let mut client = gateway.client().await;
    client.write(&Req::post("/", b"{}").session(&gateway.session_of("a")).bytes()).await;
    until("the request is there", || a.count() == 1).await;
    let left = Instant::now();
    drop(client);
    closes_soon(&a, left, "waiting").await;
    gateway.until_idle().await;
    assert_eq!(aborts(&gateway, "waiting").await, 1.0);
    assert_eq!(gateway.metric("ingle_client_aborts_total", &[]).await, 1.0);
    let labels = [("backend", "a"), ("affinity", "home"), ("code", "499")];
    assert_eq!(gateway.metric("ingle_requests_total", &labels).await, 1.0);
    assert_eq!(gateway.metric("ingle_requests_total", &[]).await, 1.0);
    assert_eq!((b.count(), gateway.metric("ingle_retries_total", &[]).await), (0, 0.0), "nobody else works for it");
}

#[tokio::test]
async fn in_a_quiet_gap_of_a_stream() {
    let a = silent(begun()).await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let mut client = gateway.client().await;
    client.write(&Req::post("/", b"{}").bytes()).await;
    client.until("data: 1").await;
    let left = Instant::now();
    drop(client);
    closes_soon(&a, left, "streaming").await;
    gateway.until_idle().await;
    assert_eq!(aborts(&gateway, "streaming").await, 1.0);
    assert_eq!(gateway.metric("ingle_requests_total", &[("backend", "a"), ("code", "499")]).await, 1.0);
    assert_eq!(gateway.metric("ingle_requests_total", &[("code", "2xx")]).await, 0.0);
}

#[tokio::test]
async fn with_half_of_its_body_unsent() {
    let a = silent(Vec::new()).await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let mut client = gateway.client().await;
    client.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhalf").await;
    until("it is being read", || gateway.inner.bodies.get() == 100_000).await;
    drop(client);
    gateway.until_idle().await;
    assert_eq!(aborts(&gateway, "request").await, 1.0);
    assert_eq!(gateway.metric("ingle_requests_total", &[("backend", "none"), ("code", "499")]).await, 1.0);
    assert_eq!(a.count(), 0);
}

#[tokio::test]
async fn over_http2_by_a_reset_of_the_stream_alone() {
    for after in [Vec::new(), begun()] {
        let streaming = !after.is_empty();
        let a = silent(after).await;
        let gateway = Setup::new().backend("a", &a.url()).start().await;
        let client = H2c::connect(gateway.address).await;
        let req = Req::post("/", b"{}");
        let left = if streaming {
            let response = client.begin(&req).await;
            let left = Instant::now();
            drop(response);
            left
        } else {
            let waiting = client.begin(&req);
            let there = until("the request is there", || a.count() == 1);
            tokio::select! { _ = waiting => panic!("no head comes"), () = there => Instant::now() }
        };
        closes_soon(&a, left, "HTTP/2").await;
        gateway.until_idle().await;
        assert_eq!(aborts(&gateway, if streaming { "streaming" } else { "waiting" }).await, 1.0);
    }
}

#[tokio::test]
async fn a_real_servers_slot_is_free_again() {
    let config = SimConfig { slots: 1, prefill_rate: 1.0, ..SimConfig::llama_server("a") };
    let sim = SimServer::start(config).await.unwrap();
    let gateway = Setup::new().sims([&sim]).start().await;
    let mut client = gateway.client().await;
    client.write(&Req::chat(&"long ".repeat(1000), 5, true).session("s").bytes()).await;
    sim.wait_for(PATIENCE, |stats| stats.processing == 1).await.unwrap();
    drop(client);
    sim.wait_for(PATIENCE, |stats| stats.processing == 0 && stats.disconnects == 1).await.unwrap();
    assert_eq!(sim.disconnects()[0].phase, Phase::BeforeFirstToken);
    gateway.until_idle().await;
}

#[tokio::test]
async fn a_hundred_clients_that_leave_at_every_stage_leave_nothing_behind() {
    let a = silent(begun()).await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let bytes = Req::post("/v1/completions", &[b'x'; 3000]).session("s").bytes();
    for i in 0..100 {
        let mut client = gateway.client().await;
        client.write(&bytes[..(i * 33).min(bytes.len())]).await;
        if i % 5 == 0 && i * 33 > bytes.len() {
            client.until("data: 1").await;
        }
    }
    until("all connections are closed", || gateway.inner.connections.get() == 0).await;
    gateway.until_idle().await;
    assert_eq!(gateway.state("a"), "healthy");
    assert_eq!(gateway.backend("a").await["last_error"], serde_json::Value::Null);
}
