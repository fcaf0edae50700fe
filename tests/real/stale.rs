//! Kept connections that llama-server closes: after each stream without having said so, after 5 idle seconds, after 100
//! requests. A request that meets such a close was not seen by anybody, and must not fail.

use std::time::Duration;

use crate::client::Req;
use crate::harness::Gateway;
use crate::llama::{Real, setup};
use crate::promtool;

const CLIENTS: usize = 4;
const STREAMS: usize = 800;
/// Connections that grow old together, and how often.
const IDLE: usize = 50;
const ROUNDS: usize = 4;
/// After how long llama-server closes an idle connection.
const IDLE_LIMIT: Duration = Duration::from_secs(5);
/// Around that limit the next requests are spread, this far apart.
const STEP: Duration = Duration::from_micros(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_posts_over_connections_that_the_server_closes() {
    let Some(real) = Real::take("stale").await else { return };
    let servers = real.pair(CLIENTS).await;
    // The gateway would close idle connections before the server does.
    let setup = setup(servers.iter().map(|server| &server.address)).pool("timeouts: { keep_alive: 1h }");
    // llama-server has a few threads, and keeps one for each idle connection: a probe must have time to wait for one.
    let gateway = setup.health("interval: 2s, timeout: 30s").start().await;
    let clients = (0..CLIENTS).map(|number| streams(&gateway, number));
    futures(clients).await;
    let raced = nobody_failed(&gateway, STREAMS).await;
    println!("{STREAMS} streams, one after the other on {CLIENTS} connections: {raced} met a connection just closed");
    assert!(raced > 0.0, "the race that this is about");
    for round in 0..ROUNDS {
        futures((0..IDLE).map(|number| aged(&gateway, number, round > 0))).await;
    }
    let total = STREAMS + IDLE * ROUNDS;
    let met = nobody_failed(&gateway, total).await - raced;
    println!("{} POSTs, each when its connection has been idle for 5 s: {met} met it just closed", IDLE * ROUNDS);
    promtool::accepts(&gateway).await;
}

/// Streams over one connection to the gateway. The server closes its own after each, a moment after the last byte.
async fn streams(gateway: &Gateway, number: usize) {
    let prompt = prompt(number);
    let req = Req::chat(&prompt, 1, true).session(&format!("stale-{number}"));
    let mut client = gateway.client().await;
    for i in 0..STREAMS / CLIENTS {
        let answer = client.send(&req).await;
        assert_eq!((answer.status, answer.affinity(), answer.whole), (200, "home", true), "{i}: {answer:?}");
        assert!(answer.text().trim_end().ends_with("data: [DONE]"), "{i}: {answer:?}");
    }
}

/// A POST of the cheapest kind. All but the first use a connection that the server is about to close, or has just.
async fn aged(gateway: &Gateway, number: usize, again: bool) {
    if again {
        let spread = STEP * u32::try_from(number).unwrap();
        tokio::time::sleep(IDLE_LIMIT + spread - STEP * 10).await;
    }
    let body = serde_json::json!({"content": prompt(number)}).to_string();
    let answer = gateway.send(&Req::post("/tokenize", body.as_bytes())).await;
    assert_eq!((answer.status, answer.affinity(), answer.whole), (200, "balanced", true), "{answer:?}");
}

/// Text of 1,000 bytes.
fn prompt(number: usize) -> String {
    format!("{number:04} ").repeat(200)
}

/// Nobody is blamed for anything. Returns how often a connection was found closed.
async fn nobody_failed(gateway: &Gateway, requests: usize) -> f64 {
    gateway.until_idle().await;
    assert_eq!(gateway.metric("ingle_requests_total", &[("code", "2xx")]).await, requests as f64);
    assert_eq!(gateway.metric("ingle_requests_total", &[]).await, requests as f64);
    assert_eq!(gateway.metric("ingle_health_transitions_total", &[("to", "unhealthy")]).await, 0.0);
    for name in ["a", "b"] {
        let backend = gateway.backend(name).await;
        assert_eq!(backend["state"], "healthy");
        // On a busy machine one server can be seconds behind the other, which is noted, and is no failed connection.
        let error = backend["last_error"].as_str().unwrap_or_default();
        assert!(error.is_empty() || error.starts_with("no output for "), "{error}");
    }
    let stale = gateway.metric("ingle_retries_total", &[("reason", "stale")]).await;
    assert_eq!(gateway.metric("ingle_retries_total", &[]).await, stale, "no retry for any other reason");
    stale
}

/// All of them at the same time.
async fn futures<F: Future<Output = ()>>(all: impl Iterator<Item = F>) {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
