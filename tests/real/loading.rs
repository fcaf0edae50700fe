//! A llama-server that loads its model: it listens, and answers everything with 503.

use std::net::SocketAddr;

use crate::client::{Answer, Req};
use crate::harness::Gateway;
use crate::llama::{Llama, Real, free_port, health_at, setup};
use crate::{promtool, wait};

/// The model is small, and loaded in less than a second: a busy machine may look away at the wrong moment.
const TRIES: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_warming_gets_no_traffic_and_fails_nobody() {
    let Some(real) = Real::take("loading").await else { return };
    let a = real.server(2).await;
    for _ in 0..TRIES {
        if look(&real, &a).await {
            return;
        }
        println!("the model was loaded before a request came: once more");
    }
    panic!("no request came while the model was loaded, {TRIES} times");
}

/// Starts `b` and sends its sessions while it loads. `false` if none came in time.
async fn look(real: &Real, a: &Llama) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let _b = real.launcher.start(address.port(), 2);
    if wait::for_some("b listens", async || health_at(address).await).await != 503 {
        return false;
    }
    let gateway = setup([&a.address, &address]).health("interval: 10ms, timeout: 10s").start_cold().await;
    wait::until("both have been probed", async || gateway.inner.ready()).await;
    let sessions = gateway.sessions_of("b", 10_000);
    let mut answers = Vec::new();
    for session in &sessions {
        if gateway.state("b") != "warming" {
            break;
        }
        answers.push(gateway.send(&Req::chat("hello", 1, false).session(session)).await);
    }
    // While the last one was under way, b may have begun to serve.
    let Some(_last) = answers.pop() else { return false };
    if answers.is_empty() {
        return false;
    }
    println!("{} requests while b was loading its model: all answered by a", answers.len());
    assert!(answers.iter().all(|answer| answer.outcome() == "a failover 200"), "{answers:#?}");
    gateway.until_state("b", "healthy").await;
    judge(&gateway, &sessions).await;
    true
}

async fn judge(gateway: &Gateway, sessions: &[String]) {
    assert_eq!(gateway.backend("b").await["last_error"], serde_json::Value::Null, "loading is no error");
    assert_eq!(gateway.metric("ingle_health_transitions_total", &[("to", "unhealthy")]).await, 0.0);
    let loaded = [("backend", "b"), ("to", "healthy"), ("cause", "probe")];
    assert_eq!(gateway.metric("ingle_health_transitions_total", &loaded).await, 1.0);
    assert_eq!(gateway.metric("ingle_retries_total", &[]).await, 0.0, "nobody had to be told to wait");
    let chat = async |session: &str| -> Answer { gateway.send(&Req::chat("hello", 1, false).session(session)).await };
    assert_eq!(chat(&sessions[0]).await.outcome(), "a stayed 200", "its cache is there");
    assert_eq!(chat(sessions.last().unwrap()).await.outcome(), "b home 200");
    promtool::accepts(gateway).await;
}
