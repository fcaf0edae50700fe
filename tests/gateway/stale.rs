//! Reused connections that had died: real servers close idle ones whenever they like.

use ingle_sim::{Fault, KeepAlive, Scope, SimConfig, SimServer};

use crate::client::Req;
use crate::harness::{Gateway, Setup, noise, until};
use crate::scripted::{Gate, Scripted, Step, answer};

/// Sends POSTs, one after the other, over one kept connection. All must work, and nobody be blamed.
async fn all_work(gateway: &Gateway, count: usize, size: usize) {
    let mut client = gateway.client().await;
    let body = noise(size).iter().map(|byte| b'a' + byte % 26).collect::<Vec<u8>>();
    let prompt = String::from_utf8(body).unwrap();
    let req = Req::chat(&prompt, 1, false).session("s");
    for i in 0..count {
        let answer = client.send(&req).await;
        assert_eq!((answer.status, answer.affinity(), answer.whole), (200, "home", true), "{i}: {answer:?}");
    }
    nobody_is_blamed(gateway).await;
}

async fn nobody_is_blamed(gateway: &Gateway) {
    assert_eq!(gateway.metric("ingle_health_transitions_total", &[("to", "unhealthy")]).await, 0.0);
    for backend in gateway.admin_get("/backends").await.json()["backends"].as_array().unwrap() {
        assert_eq!((&backend["state"], &backend["last_error"]), (&"healthy".into(), &serde_json::Value::Null));
    }
    for reason in ["connect", "closed", "status", "first_byte", "unhealthy"] {
        assert_eq!(gateway.metric("ingle_retries_total", &[("reason", reason)]).await, 0.0, "{reason}");
    }
    gateway.until_idle().await;
}

/// A server that promises to keep connections and closes each after its answer: often just when the next request comes.
async fn closing_after_each_answer() -> SimServer {
    let mut config = SimConfig::llama_server("a").instant();
    config.keep_alive = KeepAlive { max_requests: 1, announce: false, ..KeepAlive::default() };
    SimServer::start(config).await.unwrap()
}

/// A server that closes a reused connection at the first bytes of its next request: the race, lost every time.
async fn closing_at_the_next_request() -> SimServer {
    let sim = SimServer::start(SimConfig::llama_server("a").instant()).await.unwrap();
    sim.inject(Fault::CloseReused.on(Scope::All));
    sim
}

#[tokio::test]
async fn a_thousand_small_posts_to_a_server_that_closes_after_each_answer() {
    let sim = closing_after_each_answer().await;
    all_work(&Setup::new().sims([&sim]).start().await, 1000, 1000).await;
    assert_eq!(sim.stats().completed, 1000);
}

#[tokio::test]
async fn a_hundred_large_posts_to_a_server_that_closes_after_each_answer() {
    let sim = closing_after_each_answer().await;
    all_work(&Setup::new().sims([&sim]).start().await, 100, 300_000).await;
    assert_eq!(sim.stats().completed, 100);
}

#[tokio::test]
async fn a_thousand_small_posts_to_a_server_that_closes_at_the_next_request() {
    let sim = closing_at_the_next_request().await;
    let gateway = Setup::new().sims([&sim]).start().await;
    all_work(&gateway, 1000, 1000).await;
    assert_eq!(sim.stats().completed, 1000);
    assert!(gateway.metric("ingle_retries_total", &[("reason", "stale")]).await >= 400.0, "every other one met it");
}

#[tokio::test]
async fn a_hundred_large_posts_to_a_server_that_closes_at_the_next_request() {
    let sim = closing_at_the_next_request().await;
    let gateway = Setup::new().sims([&sim]).start().await;
    all_work(&gateway, 100, 300_000).await;
    assert_eq!(sim.stats().completed, 100);
    assert!(gateway.metric("ingle_retries_total", &[("reason", "stale")]).await >= 40.0);
}

#[tokio::test]
async fn it_is_tried_on_the_same_backend_over_a_fresh_connection_even_as_the_only_attempt() {
    let script = |seen: &crate::scripted::Seen| match seen.reused {
        0 => vec![Step::Send(answer(200, "", b"a"))],
        _ => vec![Step::Reset],
    };
    let (a, b) = (Scripted::start(script).await, Scripted::ok("b").await);
    let setup =
        Setup::new().backend("a", &a.url()).backend("b", &b.url()).pool("retry: { max_attempts: 1, budget: 0% }");
    let gateway = setup.start().await;
    let req = Req::post("/v1/completions", b"{}").session(&gateway.session_of("a"));
    for _ in 0..40 {
        assert_eq!(gateway.send(&req).await.outcome(), "a home 200");
    }
    assert_eq!(b.count(), 0);
    let seen = a.seen();
    assert!(seen.iter().any(|seen| seen.reused > 0), "connections are reused at all");
    nobody_is_blamed(&gateway).await;
}

#[tokio::test]
async fn a_fresh_connection_that_dies_after_a_stale_one_is_the_backends_fault() {
    let script = |seen: &crate::scripted::Seen| match seen.number {
        0 => vec![Step::Send(answer(200, "", b"a"))],
        _ => vec![Step::Close],
    };
    let (a, b) = (Scripted::start(script).await, Scripted::ok("b").await);
    let gateway = Setup::new().one_probe().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let req = Req::post("/v1/completions", b"{}").session(&gateway.session_of("a"));
    assert_eq!(gateway.send(&req).await.outcome(), "a home 200");
    assert_eq!(gateway.send(&req).await.outcome(), "b failover 200");
    assert_eq!(a.count(), 3, "first, stale, fresh");
    for reason in ["stale", "closed"] {
        assert_eq!(gateway.metric("ingle_retries_total", &[("reason", reason)]).await, 1.0, "{reason}");
    }
}

/// A server that works for a while and then closes is no lost race: the request may have done what it was to do.
#[tokio::test]
async fn a_reused_connection_that_dies_late_is_the_backends_fault() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |seen| match seen.number {
        0 => vec![Step::Send(answer(200, "", b"a"))],
        _ => vec![Step::Wait(held.clone()), Step::Close],
    })
    .await;
    let setup = Setup::new().one_probe().backend("a", &a.url()).pool("retry: { max_attempts: 1 }");
    let gateway = setup.start().await;
    let req = Req::post("/v1/completions", b"{}").session("s");
    assert_eq!(gateway.send(&req).await.outcome(), "a home 200");
    let work = async {
        until("it is there", || a.count() == 2).await;
        let done = gateway.inner.clock.now() + 1100;
        until("it has worked for longer than a lost race takes", || gateway.inner.clock.now() > done).await;
        gate.open();
        gate.open();
    };
    let (answer, ()) = tokio::join!(gateway.send(&req), work);
    assert_eq!((answer.status, answer.code().as_str()), (502, "backend_failed"));
    assert_eq!((a.count(), a.seen()[1].reused), (2, 1), "it was not sent twice");
    assert!(gateway.backend("a").await["last_error"].as_str().unwrap().starts_with("before the first byte: "));
    assert_eq!(gateway.metric("ingle_retries_total", &[]).await, 0.0);
}

/// A second answer, which nobody asked for, is nobody's: not the next client's, either.
#[tokio::test]
async fn a_connection_on_which_something_came_unasked_is_not_used_again() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |seen| match seen.number {
        0 => vec![
            Step::Send(answer(200, "", b"first")),
            Step::Wait(held.clone()),
            Step::Send(answer(200, "", b"unasked")),
            Step::Hang,
        ],
        _ => vec![Step::Send(answer(200, "", b"second"))],
    });
    let a = a.await;
    let gateway = Setup::new().backend("a", &a.url()).pool("timeouts: { keep_alive: 1h }").start().await;
    assert_eq!(gateway.send(&Req::get("/")).await.text(), "first");
    gate.open();
    until("the connection is closed", || a.left().len() == 1).await;
    assert_eq!(gateway.send(&Req::get("/")).await.text(), "second");
    nobody_is_blamed(&gateway).await;
}
