//! Pages of other origins: preflights, and errors that pages can read.

use std::path::Path;

use crate::access::keys;
use crate::client::{Answer, CHAT, Client, Req};
use crate::h2c::H2c;
use crate::harness::{Setup, nobody, until};
use crate::scripted::{Gate, Scripted, Step, answer};

const PAGE: &str = "https://page.test";

fn preflight() -> Req {
    Req::new("OPTIONS", CHAT, b"")
        .header("Origin", PAGE)
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "authorization,content-type")
}

fn access(keys: &Path) -> String {
    format!("access: {{ keys_file: {keys:?} }}")
}

fn is_readable(answer: &Answer) -> bool {
    answer.header("Access-Control-Allow-Origin") == Some(PAGE) && answer.header("Vary").is_some()
}

fn is_allowed(answer: &Answer) -> bool {
    answer.status == 204
        && is_readable(answer)
        && answer.header("Access-Control-Allow-Methods") == Some("POST")
        && answer.header("Access-Control-Allow-Headers") == Some("authorization,content-type")
}

#[tokio::test]
async fn preflight_passes_to_the_backend_without_a_key() {
    let a = Scripted::start(|_| {
        vec![Step::Send(answer(204, "Access-Control-Allow-Origin: https://page.test\r\nX-Of-Backend: 1\r\n", b""))]
    });
    let a = a.await;
    let keys = keys(&["alice alice-key"]);
    let gateway = Setup::new().backend("a", &a.url()).top(&access(&keys)).start().await;
    let passed = gateway.send(&preflight().header("X-Api-Key", "some-key")).await;
    assert_eq!((passed.status, passed.header("X-Of-Backend")), (204, Some("1")));
    assert_eq!(a.seen()[0].header("X-Api-Key"), None, "keys are for the gateway");
    // What is no preflight needs a key.
    for req in [
        Req::new("OPTIONS", CHAT, b"").header("Origin", PAGE),
        Req::new("OPTIONS", CHAT, b"").header("Access-Control-Request-Method", "POST"),
        Req::post(CHAT, b"{}").header("Origin", PAGE).header("Access-Control-Request-Method", "POST"),
        preflight().header("Content-Length", "2"),
        preflight().header("Origin", "https://other.test"),
    ] {
        assert_eq!(gateway.send(&req).await.status, 401, "{req:?}");
    }
    assert_eq!(a.count(), 1);
    let h2 = H2c::connect(gateway.address).await;
    let passed = h2.send(&preflight(), true).await;
    assert_eq!((passed.status().as_u16(), &passed.headers()["x-of-backend"]), (204, &"1".parse().unwrap()));
    let mut with_body = preflight();
    with_body.body = b"{}".to_vec();
    assert_eq!(h2.send(&with_body, false).await.status(), 401);
    assert_eq!(a.count(), 2);
}

#[tokio::test]
async fn preflight_that_no_backend_can_answer_is_answered() {
    let keys = keys(&["alice alice-key"]);
    let gone = Setup::new().backend("a", &nobody()).top(&access(&keys)).start_cold().await;
    let allowed = gone.send(&preflight()).await;
    assert!(is_allowed(&allowed), "{allowed:?}");
    for status in [401, 404, 405, 500, 501, 503] {
        let a = Scripted::start(move |_| vec![Step::Send(answer(status, "", b"no"))]).await;
        let gateway = Setup::new().backend("a", &a.url()).top(&access(&keys)).start().await;
        let allowed = gateway.send(&preflight()).await;
        assert!(is_allowed(&allowed), "{status}: {allowed:?}");
        assert_eq!(gateway.state("a"), "healthy");
    }
    // Without keys of the gateway's, a backend's word is final.
    let a = Scripted::start(|_| vec![Step::Send(answer(405, "", b"no"))]).await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    assert_eq!(gateway.send(&preflight()).await.status, 405);
}

#[tokio::test]
async fn errors_of_the_gateway_can_be_read_by_pages() {
    let gate = Gate::new();
    let wait = gate.clone();
    let a = Scripted::start(move |_| vec![Step::Wait(wait.clone()), Step::Send(answer(200, "", b"{}"))]).await;
    let keys = keys(&["alice alice-key"]);
    let setup = Setup::new().backend("a", &a.url()).top(&access(&keys)).top("limits: { max_body: 10B }");
    let gateway = setup.pool("overload: { max_in_flight: 1 }").start().await;
    let with_key = |req: Req| req.header("Authorization", "Bearer alice-key").header("Origin", PAGE);
    let mut running = gateway.client().await;
    running.write(&with_key(Req::post(CHAT, b"{}")).bytes()).await;
    until("the pool is full", || a.count() == 1).await;
    for (req, status) in [
        (Req::post(CHAT, b"{}").header("Origin", PAGE), 401),
        (with_key(Req::post(CHAT, b"{}")), 503),
        (with_key(Req::post(CHAT, b"01234567890")), 413),
        (with_key(Req::post("/sleep", b"")), 403),
        (with_key(Req::get("/").header("Connection", "Host")), 400),
        (with_key(Req::get("/").header("X-Big", &"x".repeat(70_000))), 431),
    ] {
        let refused = gateway.send(&req).await;
        assert_eq!((refused.status, is_readable(&refused)), (status, true), "{refused:?}");
    }
    assert!(gateway.send(&with_key(Req::post(CHAT, b"{}"))).await.header("Access-Control-Expose-Headers").is_some());
    let without = gateway.send(&Req::post(CHAT, b"{}")).await;
    assert_eq!((without.status, without.header("Access-Control-Allow-Origin")), (401, None), "no page sent it");
    let h2 = H2c::connect(gateway.address).await;
    let refused = h2.send(&Req::post(CHAT, b"{}").header("Origin", PAGE), true).await;
    assert_eq!(refused.headers()["access-control-allow-origin"], PAGE);
    gate.open();
    assert_eq!(running.answer().await.header("Access-Control-Allow-Origin"), None, "a backend's own is as it came");
}

#[tokio::test]
async fn page_that_is_turned_away_can_read_why() {
    let a = Scripted::ok("{}").await;
    let gateway = Setup::new().backend("a", &a.url()).top("limits: { max_connections: 1 }").start().await;
    let mut first = gateway.client().await;
    assert_eq!(first.send(&Req::get("/")).await.status, 200);
    let refused = Client::connect(gateway.address).await.send(&Req::get("/").header("Origin", PAGE)).await;
    assert_eq!((refused.status, is_readable(&refused)), (503, true), "{refused:?}");
}

#[tokio::test]
async fn cors_can_be_off() {
    let a = Scripted::ok("{}").await;
    let keys = keys(&["alice alice-key"]);
    let gateway = Setup::new().backend("a", &a.url()).top(&access(&keys)).listener("cors: off").start().await;
    let refused = gateway.send(&preflight()).await;
    assert_eq!((refused.status, refused.header("Access-Control-Allow-Origin")), (401, None));
    assert_eq!(a.count(), 0);
}
