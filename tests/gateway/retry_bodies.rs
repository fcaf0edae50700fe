//! A body is byte-identical on the second backend, whatever its size and framing.
//!
//! These also guard the way in which bodies beyond 64 KiB are replayed, which leans on undocumented behaviour of Pingora.

use tokio::io::AsyncWriteExt;

use crate::client::{Client, Req};
use crate::h2c::H2c;
use crate::harness::{Gateway, Setup, nobody, noise, until};
use crate::process::Process;
use crate::scripted::{Scripted, Seen, Step, answer};

/// Around every size at which something changes: Pingora's buffer, an HTTP/2 frame and window, our read-ahead.
const SIZES: [usize; 9] = [1, 1000, 16_384, 49_151, 65_535, 65_536, 65_537, 300_000, 3_000_000];

/// `a` takes the whole request and turns it away; `b` takes it.
async fn gateway(a: Step, pool: &str) -> (Gateway, Scripted, Scripted, Req) {
    gateway_with(a, pool, "access_log: off").await
}

async fn gateway_with(a: Step, pool: &str, top: &str) -> (Gateway, Scripted, Scripted, Req) {
    let (a, b) = (Scripted::start(move |_| vec![a.clone(), Step::Close]).await, Scripted::ok("b").await);
    let setup = Setup::new().health("interval: 1h, unhealthy_threshold: 1000");
    let setup = setup.top("affinity: { return_home: immediately }").top(top).pool(pool);
    let gateway = setup.backend("a", &a.url()).backend("b", &b.url()).start().await;
    let req = Req::post("/v1/completions", b"").session(&gateway.session_of("a"));
    (gateway, a, b, req)
}

fn ways_to_fail() -> [Step; 2] {
    [Step::Close, Step::Send(answer(503, "", b"loading"))]
}

/// Sizes of bodies and of their chunks.
const CHUNKED: [(usize, usize); 10] = [
    (1, 1),
    (1000, 7),
    (30_000, 1000),
    (49_152, 16_384),
    (65_536, 1000),
    (65_536, 65_536),
    (65_537, 1000),
    (65_537, 65_537),
    (300_000, 4096),
    (3_000_000, 100_000),
];

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
        for (size, chunk) in CHUNKED {
            let req = Req { body: noise(size), ..req.clone() }.chunked(chunk);
            assert_eq!(gateway.send(&req).await.outcome(), "b failover 200", "{size} bytes");
            assert!(a.seen().last().unwrap().body == req.body, "{size} bytes, the first time");
            let seen = b.seen().pop().unwrap();
            assert!(seen.body == req.body, "{size} bytes, the second time");
            assert_eq!(seen.count("Content-Length") + seen.count("Transfer-Encoding"), 1, "{}", seen.head);
        }
        gateway.until_idle().await;
    }
}

/// What is put in the place of a head while its body is made to have a length is seen by nobody.
#[tokio::test]
async fn in_chunks_with_the_clients_own_head() {
    let (gateway, a, b, req) = gateway(Step::Close, BUDGET).await;
    let req = req.header("X-Odd-cAse", "kept").header("Expect", "100-continue").header("Trailer", "X-Late");
    let req = Req { path: "/v1/completions?q=%20".to_owned(), body: noise(300_000), ..req }.chunked(5000);
    let mut client = gateway.client().await;
    client.write(&req.head()).await;
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.write(&req.bytes()[req.head().len()..]).await;
    assert_eq!(client.answer().await.outcome(), "b failover 200");
    for seen in [a.seen().pop().unwrap(), b.seen().pop().unwrap()] {
        assert!(seen.head.starts_with("POST /v1/completions?q=%20 HTTP/1.1\r\n"), "{}", seen.head);
        assert!(seen.head.contains("\r\nX-Odd-cAse: kept\r\n"), "{}", seen.head);
        assert_eq!((seen.header("Host"), seen.header("Content-Length")), (Some("llm.test"), Some("300000")));
        assert_eq!(["Host", "Transfer-Encoding", "Expect", "Trailer"].map(|name| seen.count(name)), [1, 0, 0, 0]);
        assert!(seen.body == req.body);
    }
}

#[tokio::test]
async fn in_chunks_is_logged_with_as_many_bytes_as_came() {
    let a = Scripted::ok("a").await;
    let process = Process::start(&Setup::new().backend("a", &a.url()).top("access_log: json").yaml()).await;
    process.until_line(|line| line["to"] == "healthy").await;
    for size in [30_000, 300_000] {
        let req = Req::post(&format!("/{size}"), &noise(size)).chunked(5000);
        assert_eq!(Client::connect(process.address).await.send(&req).await.status, 200);
        assert_eq!(process.until_line(|line| line["path"] == req.path).await["bytes_in"], size);
    }
}

#[tokio::test]
async fn in_chunks_over_one_connection() {
    let (gateway, _a, b, req) = gateway(Step::Close, BUDGET).await;
    let mut client = gateway.client().await;
    for (size, chunk) in CHUNKED.into_iter().rev() {
        let req = Req { body: noise(size), ..req.clone() }.chunked(chunk);
        for req in [&req, &Req { chunk: None, ..req.clone() }] {
            let answer = client.send(req).await;
            let told = (answer.outcome(), answer.header("Connection").map(str::to_owned));
            assert_eq!(told, ("b failover 200".to_owned(), Some("keep-alive".to_owned())), "{size} bytes");
            assert!(b.seen().last().unwrap().body == req.body, "{size} bytes");
        }
    }
    let last = Req { body: noise(300_000), ..req }.chunked(5000).header("Connection", "close");
    assert_eq!(client.send(&last).await.header("Connection"), Some("close"));
    assert_eq!(client.rest().await, "");
}

/// The rest of a request whose beginning had come with the body would be a request that nobody has made.
#[tokio::test]
async fn in_chunks_with_a_pipelined_request_behind_ends_the_connection() {
    for size in [30_000, 300_000] {
        let (gateway, _a, b, req) = gateway(Step::Close, BUDGET).await;
        let req = Req { body: noise(size), ..req }.chunked(5000);
        let mut client = gateway.client().await;
        let (bytes, end) = (req.bytes(), b"0\r\n\r\n".len());
        client.write(&bytes[..bytes.len() - end]).await;
        until("all but the end is there", || gateway.inner.bodies.get() >= size).await;
        client.write(b"0\r\n\r\nPOST /first HTTP/1.1\r\nHost: llm.test\r\nX-Rest: ").await;
        assert_eq!(client.answer().await.outcome(), "b failover 200", "{size} bytes");
        assert!(b.seen().last().unwrap().body == req.body, "{size} bytes");
        // The gateway may have closed it already.
        let _ = client.stream.write_all(b"GET /second HTTP/1.1\r\nHost: llm.test\r\n\r\n").await;
        assert_eq!((client.rest().await.as_str(), b.count()), ("", 1), "{size} bytes");
    }
}

#[tokio::test]
async fn in_chunks_over_a_reused_connection_that_had_died() {
    let a = Scripted::start(|seen: &Seen| match seen.reused {
        0 => vec![Step::Send(answer(200, "", b"a"))],
        _ => vec![Step::Reset],
    });
    let a = a.await;
    let gateway = Setup::new().backend("a", &a.url()).pool("retry: { max_attempts: 1, budget: 0% }").start().await;
    for (size, chunk) in CHUNKED {
        let req = Req { body: noise(size), ..Req::post("/v1/completions", b"") }.chunked(chunk);
        for _ in 0..2 {
            assert_eq!(gateway.send(&req).await.status, 200, "{size} bytes");
            assert!(a.seen().last().unwrap().body == req.body, "{size} bytes");
        }
    }
    assert!(gateway.metric("ingle_retries_total", &[("reason", "stale")]).await >= 1.0, "some had died");
}

#[tokio::test]
async fn in_chunks_from_a_client_that_leaves() {
    let (gateway, a, b, req) = gateway(Step::Hang, BUDGET).await;
    for (size, chunk) in CHUNKED {
        let (before, left) = (a.count(), a.left().len());
        let mut client = gateway.client().await;
        client.write(&Req { body: noise(size), ..req.clone() }.chunked(chunk).bytes()).await;
        until("the request is there", || a.count() == before + 1).await;
        drop(client);
        until("the backend is rid of it", || a.left().len() == left + 1).await;
        gateway.until_idle().await;
    }
    assert_eq!(b.count(), 0, "nobody else works for it");
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

/// It streams through, over a fresh connection: over HTTP/2, where Pingora cannot begin to replay it, beyond 64 KiB, and
/// in chunks beyond what is held.
#[tokio::test]
async fn a_long_body_of_unknown_length_passes_whole_and_is_never_sent_in_part() {
    let bounds = ["retry: { max_body: 100KiB, budget: 100% }", BUDGET];
    let little_memory = "limits: { memory_for_retry_bodies: 100KiB }";
    for (pool, top) in [(bounds[0], "access_log: off"), (bounds[1], little_memory)] {
        let (gateway, a, b, req) = gateway_with(Step::Close, pool, top).await;
        let client = H2c::connect(gateway.address).await;
        for (size, chunk) in [(65_536, 65_536), (102_400, 1000), (102_401, 1000), (300_000, 4096), (3_000_000, 100_000)]
        {
            let here = Req { body: noise(size), ..req.clone() }.chunked(chunk);
            let there = Req { headers: here.headers[..1].to_vec(), ..here.clone() }.session(&gateway.session_of("b"));
            assert_eq!(gateway.send(&there).await.outcome(), "b home 200", "{size} bytes");
            assert!(b.seen().last().unwrap().body == there.body, "{size} bytes");
            assert_eq!(client.send(&there, false).await.status(), 200, "{size} bytes over HTTP/2");
            assert!(b.seen().last().unwrap().body == there.body, "{size} bytes over HTTP/2");

            let before = b.count();
            let answer = gateway.send(&here).await;
            match size <= 102_400 {
                true => assert!(answer.status == 200 && b.seen().last().unwrap().body == here.body, "{size} bytes"),
                false => assert_eq!((answer.status, b.count()), (502, before), "{size} bytes"),
            }
            let (before, at_a) = (b.count(), a.count());
            match client.send(&here, false).await.status().as_u16() {
                // It fitted into the read-ahead after all.
                200 => assert!(b.seen().last().unwrap().body == here.body, "{size} bytes over HTTP/2"),
                status => assert_eq!((status, b.count()), (502, before), "{size} bytes over HTTP/2"),
            }
            assert_eq!(a.count(), at_a + 1);
        }
        gateway.until_idle().await;
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
    a.observe(ingle::core::Observation::ProbeOk, snapshot.pool.settings().thresholds, 0);
    let session = gateway.session_of("a");
    for (size, chunked) in [(2000, false), (300_000, false), (3_000_000, false), (40_000, true), (300_000, true)] {
        let req = Req { body: noise(size), ..Req::post("/v1/completions", b"").session(&session) };
        let req = if chunked { req.chunked(5000) } else { req };
        a.observe(ingle::core::Observation::TrafficOk, snapshot.pool.settings().thresholds, 0);
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
