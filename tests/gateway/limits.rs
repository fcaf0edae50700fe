//! Bodies, heads, connections, slow clients, memory.

use std::time::Duration;

use crate::client::Req;
use crate::h2c::H2c;
use crate::harness::{Gateway, Setup, noise, until};
use crate::scripted::{Gate, Scripted, Step, answer};

async fn limited(limits: &str) -> (Gateway, Scripted) {
    let a = Scripted::ok("a").await;
    (Setup::new().backend("a", &a.url()).top(&format!("limits: {{ {limits} }}")).start().await, a)
}

#[tokio::test]
async fn a_body_over_max_body_is_413() {
    let (gateway, a) = limited("max_body: 100KiB").await;
    let mut client = gateway.client().await;
    assert_eq!(client.send(&Req::post("/", &noise(102_400))).await.status, 200, "exactly as large");
    let answer = gateway.send(&Req::post("/", &noise(102_401))).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    assert_eq!(a.count(), 1);
    assert_eq!(H2c::connect(gateway.address).await.send(&Req::post("/", &noise(102_401)), true).await.status(), 413);
    gateway.until_idle().await;
    assert_eq!(gateway.metric("ingle_requests_total", &[("backend", "none"), ("code", "4xx")]).await, 2.0);
}

#[tokio::test]
async fn a_body_of_unknown_length_over_max_body_is_413() {
    for limit in [1000, 100_000] {
        let (gateway, a) = limited(&format!("max_body: {limit}B")).await;
        let fits = Req::post("/", &noise(limit)).chunked(700);
        assert_eq!(gateway.send(&fits).await.status, 200);
        let does_not = Req::post("/", &noise(limit + 1)).chunked(700);
        let answer = gateway.send(&does_not).await;
        assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"), "{limit}");
        assert_eq!(H2c::connect(gateway.address).await.send(&does_not, false).await.status(), 413, "{limit}");
        assert_eq!(a.count(), 1, "no whole request reaches the backend");
        assert_eq!((gateway.state("a"), gateway.backend("a").await["last_error"].is_null()), ("healthy", true));
        gateway.until_idle().await;
    }
}

#[tokio::test]
async fn a_head_over_max_header_bytes_is_431() {
    let (gateway, a) = limited("max_header_bytes: 2KiB").await;
    assert_eq!(gateway.send(&Req::get("/").header("X-Big", &"x".repeat(1500))).await.status, 200);
    for req in [Req::get("/").header("X-Big", &"x".repeat(2100)), Req::get(&format!("/{}", "x".repeat(2100)))] {
        let answer = gateway.send(&req).await;
        assert_eq!((answer.status, answer.code().as_str()), (431, "headers_too_large"));
    }
    let many = (0..200).fold(Req::get("/"), |req, i| req.header(&format!("X-{i}"), "some value"));
    assert_eq!(gateway.send(&many).await.status, 431);
    let big = Req::get("/").header("X-Big", &"x".repeat(5000));
    assert_eq!(H2c::connect(gateway.address).await.send(&big, false).await.status(), 431);
    assert_eq!(a.count(), 1);
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_and_the_next_one_after_a_close_is_served() {
    let (gateway, _a) = limited("max_connections: 2").await;
    let mut first = gateway.client().await;
    let mut second = gateway.client().await;
    assert_eq!(first.send(&Req::get("/")).await.status, 200);
    assert_eq!(second.send(&Req::get("/")).await.status, 200);
    let mut third = gateway.client().await;
    let answer = third.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "too_many_connections"));
    assert!(answer.whole && answer.header("Retry-After").is_some());
    assert_eq!(third.rest().await, "");
    drop(first);
    until("a place is free", || gateway.inner.connections.get() == 1).await;
    assert_eq!(gateway.send(&Req::get("/")).await.status, 200);
    assert_eq!(gateway.admin_get("/livez").await.status, 200, "admins do not count");
    assert_eq!(gateway.metric("ingle_refused_total", &[("reason", "connections")]).await, 1.0);
}

#[tokio::test]
async fn silent_slow_and_idle_connections_are_closed() {
    let (gateway, a) = limited("header_timeout: 300ms").await;
    assert!(gateway.client().await.closed_after().await >= Duration::from_millis(200), "a silent one");

    let mut half = gateway.client().await;
    half.write(b"GET / HTTP/1.1\r\nHos").await;
    half.rest().await;

    let mut dripping = gateway.client().await;
    let slowly = async {
        for byte in b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ".iter().chain(&[b'x'; 2000]) {
            if tokio::io::AsyncWriteExt::write_all(&mut dripping.stream, &[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("two thousand bytes, one by one, were read");
    };
    slowly.await;

    let mut idle = gateway.client().await;
    assert_eq!(idle.send(&Req::get("/")).await.status, 200);
    idle.closed_after().await;
    assert_eq!(a.count(), 1);
    until("all are closed", || gateway.inner.connections.get() == 0).await;
}

#[tokio::test]
async fn the_time_for_a_head_is_none_for_its_answer() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |_| vec![Step::Wait(held.clone()), Step::Send(answer(200, "", b"late"))]).await;
    let gateway = Setup::new().backend("a", &a.url()).top("limits: { header_timeout: 200ms }").start().await;
    let mut client = gateway.client().await;
    let end = gateway.inner.clock.now() + 1000;
    let patience = async {
        until("five times over", || gateway.inner.clock.now() > end).await;
        gate.open();
    };
    let req = Req::get("/");
    let (answer, ()) = tokio::join!(client.send(&req), patience);
    assert_eq!(answer.text(), "late");
    gate.open();
    assert_eq!(client.send(&Req::get("/")).await.text(), "late", "and the connection is kept");
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_408() {
    let (gateway, a) = limited("header_timeout: 300ms").await;
    for head in ["Content-Length: 1000\r\n\r\nslow", "Transfer-Encoding: chunked\r\n\r\n5\r\nslow"] {
        let mut client = gateway.client().await;
        client.write(format!("POST / HTTP/1.1\r\nHost: x\r\n{head}").as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (408, "slow_client"));
    }
    let mut dripping = gateway.client().await;
    dripping.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n").await;
    while tokio::io::AsyncWriteExt::write_all(&mut dripping.stream, b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if gateway.inner.requests.get() == 0 {
            break;
        }
    }
    assert!(dripping.rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(a.count(), 0, "no backend waited");
    gateway.until_idle().await;
}

#[tokio::test]
async fn bodies_that_the_memory_cannot_hold_pass_but_are_not_sent_again() {
    let a = Scripted::start(|_| vec![Step::Hang]).await;
    let b = Scripted::start(|seen| match seen.header("X-Fail") {
        Some(_) => vec![Step::Close],
        None => vec![Step::Send(answer(200, "", b"b"))],
    })
    .await;
    let setup = Setup::new().health("interval: 1h, unhealthy_threshold: 1000");
    let setup = setup.backend("a", &a.url()).backend("b", &b.url());
    let setup = setup.pool("retry: { max_attempts: 2 }");
    let gateway = setup.top("limits: { memory_for_retry_bodies: 390KiB }").start().await;
    let req = Req::post("/", &noise(300_000)).session(&gateway.session_of("b"));
    let retried = || gateway.metric("ingle_retries_total", &[("reason", "closed")]);
    let failing = tokio::spawn({
        let (mut client, req) = (gateway.client().await, req.clone().header("X-Fail", "1"));
        async move { client.send(&req).await }
    });
    until("there is memory to ask a as well", || a.count() == 1).await;
    assert_eq!((b.count(), retried().await), (1, 1.0));
    failing.abort();
    gateway.until_idle().await;

    let mut holder = gateway.client().await;
    holder.write(&Req::post("/", &noise(200_000)).session(&gateway.session_of("a")).bytes()).await;
    until("it is held", || a.count() == 2).await;
    assert_eq!(gateway.inner.bodies.get(), 200_000);
    assert_eq!(gateway.send(&req).await.outcome(), "b home 200");
    assert!(b.seen()[1].body == req.body);
    assert_eq!(gateway.send(&req.clone().header("X-Fail", "1")).await.status, 502);
    assert_eq!((b.count(), a.count(), retried().await), (3, 2, 1.0), "b alone was asked");
    drop(holder);
    gateway.until_idle().await;
}

#[tokio::test]
async fn memory_is_free_again_as_soon_as_the_response_begins() {
    let a = Scripted::start(|_| vec![Step::Send(crate::scripted::stream_head()), Step::Hang]).await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let mut client = gateway.client().await;
    client.write(&Req::post("/", &noise(1_000_000)).bytes()).await;
    client.head().await;
    until("the memory is free", || gateway.inner.bodies.get() == 0).await;
    assert_eq!(gateway.inner.requests.get(), 1);
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused() {
    let (gateway, a) = limited("max_body: 1MiB").await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let heads = [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: a\r\n b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n\r\n",
    ];
    for head in heads {
        let mut client = gateway.client().await;
        client.write(format!("{head}{smuggled}").as_bytes()).await;
        let rest = client.rest().await;
        let answers = rest.matches("HTTP/1.1 ").count();
        assert!(answers <= 1, "one request, at most one answer: {head:?} {rest}");
    }
    assert!(a.seen().iter().all(|seen| !seen.head.contains("smuggled") && !seen.body.starts_with(b"GET")));
    assert_eq!(gateway.send(&Req::get("/")).await.status, 200);
    assert_eq!(gateway.state("a"), "healthy");
    gateway.until_idle().await;
}

#[tokio::test]
async fn a_length_beside_a_coding_is_refused() {
    let (gateway, a) = limited("max_body: 1MiB").await;
    for framing in
        ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\ncontent-length: 5"]
    {
        let mut client = gateway.client().await;
        client.write(format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n0\r\n\r\n").as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_framing"), "{framing}");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        assert_eq!(client.rest().await, "", "nothing more comes over this connection");
    }
    assert_eq!(a.count(), 0);
    gateway.until_idle().await;
}
