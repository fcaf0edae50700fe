//! A body is byte-identical on the second backend, whatever its size and framing.
//!
//! These also guard the way in which bodies beyond 64 KiB are replayed, which leans on undocumented behaviour of Pingora.

use crate::client::Req;
use crate::h2c::H2c;
use crate::harness::{Gateway, Setup, nobody, noise};
use crate::scripted::{Scripted, Step, answer};

/// Around every size at which something changes: Pingora's buffer, an HTTP/2 frame and window, our read-ahead.
const SIZES: [usize; 9] = [1, 1000, 16_384, 49_151, 65_535, 65_536, 65_537, 300_000, 3_000_000];

/// `a` takes the whole request and turns it away; `b` takes it.
async fn gateway(a: Step, more: &str) -> (Gateway, Scripted, Scripted, Req) {
    let (a, b) = (Scripted::start(move |_| vec![a.clone(), Step::Close]).await, Scripted::ok("b").await);
    let setup = Setup::new().health("interval: 1h, unhealthy_threshold: 1000");
    let setup = setup.top("affinity: { return_home: immediately }").pool(more);
    let gateway = setup.backend("a", &a.url()).backend("b", &b.url()).start().await;
    let req = Req::post("/v1/completions", b"").session(&gateway.session_of("a"));
    (gateway, a, b, req)
}

fn ways_to_fail() -> [Step; 2] {
    [Step::Close, Step::Send(answer(503, "", b"loading"))]
}

const BUDGET: &str = "retry: { budget: 100% }";

#[tokio::test]
async fn with_a_declared_length() {
    for fail in ways_to_fail() {
        let (gateway, a, b, req) = gateway(fail, BUDGET).await;
        for size in SIZES {
            let req = Req { body: noise(size), ..req.clone() };
            assert_eq!(gateway.send(&req).await.outcome(), "b failover 200", "{size} bytes");
            assert!(a.seen().last().unwrap().body == req.body, "{size} bytes, the first time");
            assert!(b.seen().last().unwrap().body == req.body, "{size} bytes, the second time");
            assert_eq!(b.seen().last().unwrap().header("Content-Length"), Some(size.to_string().as_str()));
        }
        gateway.until_idle().await;
    }
}

#[tokio::test]
async fn with_a_declared_length_over_one_connection() {
    let (gateway, _a, b, req) = gateway(Step::Close, BUDGET).await;
    let mut client = gateway.client().await;
    for size in SIZES.into_iter().rev() {
        let req = Req { body: noise(size), ..req.clone() };
        assert_eq!(client.send(&req).await.outcome(), "b failover 200", "{size} bytes");
        assert!(b.seen().last().unwrap().body == req.body, "{size} bytes");
    }
}

#[tokio::test]
async fn in_chunks() {
    for fail in ways_to_fail() {
        let (gateway, a, b, req) = gateway(fail, BUDGET).await;
        for (size, chunk) in [(1, 1), (1000, 7), (30_000, 1000), (45_000, 45_000)] {
            let req = Req { body: noise(size), ..req.clone() }.chunked(chunk);
            assert_eq!(gateway.send(&req).await.outcome(), "b failover 200", "{size} bytes");
            assert!(a.seen().last().unwrap().body == req.body, "{size} bytes, the first time");
            assert!(b.seen().last().unwrap().body == req.body, "{size} bytes, the second time");
        }
    }
}

#[tokio::test]
async fn over_http2_with_and_without_a_declared_length() {
    for fail in ways_to_fail() {
        let (gateway, _a, b, req) = gateway(fail, BUDGET).await;
        let client = H2c::connect(gateway.address).await;
        for (size, declared) in SIZES.map(|size| (size, true)).into_iter().chain([(1000, false), (30_000, false)]) {
            let req = Req { body: noise(size), ..req.clone() };
            let answer = client.send(&req, declared).await;
            assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"b"[..]), "{size} bytes, {declared}");
            assert!(b.seen().last().unwrap().body == req.body, "{size} bytes, {declared}");
        }
    }
}

/// Its length is known only when all of it is there, and Pingora cannot begin to replay then: it streams through, over
/// a fresh connection.
#[tokio::test]
async fn a_long_body_of_unknown_length_passes_whole_and_is_never_sent_in_part() {
    let (gateway, a, b, req) = gateway(Step::Close, BUDGET).await;
    let client = H2c::connect(gateway.address).await;
    for (size, chunk) in [(49_152, 16_384), (65_536, 65_536), (65_537, 1000), (300_000, 4096), (3_000_000, 100_000)] {
        let here = Req { body: noise(size), ..req.clone() }.chunked(chunk);
        let there = Req { headers: here.headers[..1].to_vec(), ..here.clone() }.session(&gateway.session_of("b"));
        assert_eq!(gateway.send(&there).await.outcome(), "b home 200", "{size} bytes");
        assert!(b.seen().last().unwrap().body == there.body, "{size} bytes");
        assert_eq!(client.send(&there, false).await.status(), 200, "{size} bytes over HTTP/2");
        assert!(b.seen().last().unwrap().body == there.body, "{size} bytes over HTTP/2");

        let (before, at_a) = (b.count(), a.count());
        let answer = gateway.send(&here).await;
        match answer.status {
            // It fitted into the read-ahead after all.
            200 => assert!(b.seen().last().unwrap().body == here.body, "{size} bytes"),
            status => assert_eq!((status, b.count()), (502, before), "{size} bytes"),
        }
        assert_eq!(a.count(), at_a + 1);
    }
}

#[tokio::test]
async fn a_refused_connection_has_taken_nothing_of_any_body() {
    let b = Scripted::ok("b").await;
    let setup = Setup::new().one_probe().pool("retry: { max_body: 1KiB }").pool("fail_open: true");
    // Nobody is healthy at first: `a` is refused, `b` is not asked how it is.
    let setup = setup.health("interval: 1h, type: tcp").backend("a", &nobody()).backend("b", &b.url());
    let gateway = setup.start_cold().await;
    gateway.until_state("b", "healthy").await;
    b.set_health(500);
    let snapshot = gateway.inner.snapshot.load_full();
    // As if its one probe had been good.
    let a = &snapshot.pool.members()[0].backend;
    a.observe(ingle::core::Observation::ProbeOk, snapshot.pool.settings().thresholds);
    let session = gateway.session_of("a");
    for (size, chunked) in [(2000, false), (300_000, false), (3_000_000, false), (40_000, true), (300_000, true)] {
        let req = Req { body: noise(size), ..Req::post("/v1/completions", b"").session(&session) };
        let req = if chunked { req.chunked(5000) } else { req };
        a.observe(ingle::core::Observation::TrafficOk, snapshot.pool.settings().thresholds);
        assert_eq!(gateway.send(&req).await.status, 200, "{size} bytes, {chunked}");
        assert!(b.seen().last().unwrap().body == req.body, "{size} bytes, {chunked}");
    }
}

#[tokio::test]
async fn a_body_over_the_bound_is_not_replayed() {
    let (gateway, a, b, req) = gateway(Step::Close, "retry: { max_body: 1KiB }").await;
    let fits = Req { body: noise(1024), ..req.clone() };
    assert_eq!(gateway.send(&fits).await.outcome(), "b failover 200");
    let does_not = Req { body: noise(1025), ..req };
    let answer = gateway.send(&does_not).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "backend_failed"));
    assert_eq!((a.count(), b.count()), (2, 1));
}
