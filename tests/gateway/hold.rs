//! Requests that wait while no backend can serve them and one is loading.

use std::time::Duration;

use ingle_sim::{SimConfig, SimServer};

use crate::client::Req;
use crate::harness::{Setup, sims, until};
use crate::scripted::{Scripted, Step, answer};

async fn loading(name: &str) -> SimServer {
    let config = SimConfig { loading: Duration::from_secs(3600), ..SimConfig::llama_server(name).instant() };
    SimServer::start(config).await.unwrap()
}

#[tokio::test]
async fn request_that_comes_while_the_model_loads_is_served() {
    let sims = [loading("a").await];
    let gateway = Setup::new().sims(&sims).pool("hold: { timeout: 1m }").start_cold().await;
    until("it was probed", || gateway.inner.probed()).await;
    let (mut client, mut other) = (gateway.client().await, gateway.client().await);
    client.write(&Req::chat("hello", 3, true).session("s").bytes()).await;
    other.write(&Req::chat("hello", 3, false).bytes()).await;
    let held = || gateway.inner.snapshot.load().held.get();
    until("both are held", || held() == 2).await;
    assert_eq!(gateway.metric("ingle_held_requests", &[("pool", "main")]).await, 2.0);
    assert_eq!(gateway.metric("ingle_demand_requests", &[("pool", "main")]).await, 2.0);
    assert_eq!(gateway.metric("ingle_in_flight_requests", &[]).await, 0.0, "none was sent to a backend that loads");
    sims[0].set_loading(false);
    assert_eq!(client.answer().await.outcome(), "a home 200");
    assert_eq!(other.answer().await.outcome(), "a balanced 200");
    gateway.until_idle().await;
    assert_eq!((held(), gateway.metric("ingle_demand_requests", &[]).await), (0, 0.0));
}

#[tokio::test]
async fn hold_has_an_end_a_bound_and_watches_its_clients() {
    let sims = [loading("a").await];
    let setup = Setup::new().sims(&sims).pool("hold: { timeout: 1s, max_requests: 1 }").pool("fail_open: false");
    let gateway = setup.start_cold().await;
    until("it was probed", || gateway.inner.probed()).await;
    let held = || gateway.inner.snapshot.load().held.get();
    let mut client = gateway.client().await;
    client.write(&Req::chat("hello", 3, true).bytes()).await;
    until("it is held", || held() == 1).await;
    let answer = gateway.send(&Req::chat("hello", 3, true)).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_backend_available"), "one too many");
    drop(client);
    until("its place is free", || held() == 0).await;
    let answer = gateway.send(&Req::chat("hello", 3, true)).await;
    assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("2")), "before any head");
}

/// A server that is started on demand: nothing listens there until then.
#[tokio::test]
async fn request_waits_for_a_backend_that_nothing_listens_for() {
    let sims = sims(1).await;
    let gateway = Setup::new().sims(&sims).pool("hold: { timeout: 1m }").start().await;
    sims[0].kill().await;
    gateway.until_state("a", "unhealthy").await;
    let mut client = gateway.client().await;
    client.write(&Req::chat("hello", 3, true).session("s").bytes()).await;
    until("it is held", || gateway.inner.snapshot.load().held.get() == 1).await;
    sims[0].revive().await.unwrap();
    assert_eq!(client.answer().await.outcome(), "a home 200");
}

#[tokio::test]
async fn query_does_not_wait_for_a_model_that_loads() {
    let a = Scripted::start(|_| vec![Step::Send(answer(200, "", b"models"))]).await;
    a.set_health(503);
    let setup = Setup::new().backend("a", &a.url()).pool("hold: { timeout: 1m }");
    let gateway = setup.start_cold().await;
    let mut held = gateway.client().await;
    held.write(&Req::chat("hello", 3, true).bytes()).await;
    until("a chat is held", || gateway.inner.snapshot.load().held.get() == 1).await;
    for req in [Req::get("/v1/models"), Req::get("/health"), Req::post("/tokenize", b"{}")] {
        assert_ne!(gateway.send(&req).await.status, 504);
        assert_eq!(gateway.inner.snapshot.load().held.get(), 1, "only the chat");
    }
    a.set_health(200);
    assert_eq!(held.answer().await.status, 200);
}

/// A wrong `health_check.path` must not make every request wait.
#[tokio::test]
async fn request_does_not_wait_for_a_backend_that_answers_probes_with_errors() {
    let a = Scripted::ok("a").await;
    a.set_health(404);
    let setup = Setup::new().backend("a", &a.url()).pool("hold: { timeout: 1m }");
    let gateway = setup.start_cold().await;
    gateway.until_state("a", "unhealthy").await;
    assert_eq!(gateway.send(&Req::get("/")).await.outcome(), "a fail_open 200");
}
