//! HEAD, 1xx, HTTP/1.0, `Expect`, upgrades, h2c, keep-alive.

use crate::client::{Client, Req, header_of};
use crate::h2c::H2c;
use crate::harness::{Gateway, Setup, noise, until};
use crate::scripted::{Gate, Scripted, Step, answer, chunk, stream_head};

async fn with(script: impl Fn(&crate::scripted::Seen) -> Vec<Step> + Send + Sync + 'static) -> (Gateway, Scripted) {
    let a = Scripted::start(script).await;
    (Setup::new().backend("a", &a.url()).start().await, a)
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let (gateway, a) = with(|_| vec![Step::Send(answer(200, "", b"a"))]).await;
    let mut client = gateway.client().await;
    for _ in 0..10 {
        assert_eq!(client.send(&Req::post("/", b"{}")).await.text(), "a");
    }
    let seen = a.seen();
    assert_eq!(seen.iter().filter(|seen| seen.reused == 0).count(), 1, "one connection for all");
    assert_eq!(gateway.inner.connections.get(), 1);
}

/// Pingora serves no pipelines: it answers the first request and closes, which tells the client to send the others
/// again (RFC 9112, section 9.3.2).
#[tokio::test]
async fn pipelined_requests_are_never_mixed_up() {
    let (gateway, _a) = with(|seen| vec![Step::Send(answer(200, "", seen.number.to_string().as_bytes()))]).await;
    let mut client = gateway.client().await;
    client.write(&Req::post("/", b"one").bytes().repeat(3)).await;
    assert_eq!(client.answer().await.text(), "0");
    let rest = client.rest().await;
    assert!(rest.is_empty() || rest.ends_with("\r\n\r\n1") || rest.ends_with("\r\n\r\n2"), "{rest}");
    gateway.until_idle().await;
}

#[tokio::test]
async fn a_head_request_has_a_head_and_no_body() {
    let (gateway, a) = with(|seen| match seen.head.starts_with("HEAD ") {
        true => vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".to_vec())],
        false => vec![Step::Send(answer(200, "", b"a"))],
    })
    .await;
    let mut client = gateway.client().await;
    let head = client.send(&Req::new("HEAD", "/v1/models", b"")).await;
    assert_eq!((head.status, head.header("Content-Length"), head.backend()), (200, Some("1234"), "a"));
    assert_eq!(client.send(&Req::get("/")).await.text(), "a", "the connection is in step");
    assert!(a.seen()[0].head.starts_with("HEAD /v1/models HTTP/1.1\r\n"));
}

#[tokio::test]
async fn other_methods_and_answers_without_a_body_pass() {
    let (gateway, a) = with(|_| vec![Step::Send(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())]).await;
    let mut client = gateway.client().await;
    for method in ["OPTIONS", "DELETE", "PUT", "PATCH", "PROPFIND"] {
        assert_eq!(client.send(&Req::new(method, "/x", b"")).await.status, 204, "{method}");
        assert!(a.seen().last().unwrap().head.starts_with(method));
    }
    client.write(b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 405);
    assert_eq!(a.count(), 5);
}

#[tokio::test]
async fn interim_responses_pass_before_the_real_one() {
    let (gateway, _a) = with(|_| {
        let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n".to_vec();
        vec![Step::Send(interim), Step::Send(answer(200, "", b"a"))]
    })
    .await;
    let mut client = gateway.client().await;
    client.write(&Req::post("/", b"{}").bytes()).await;
    assert!(client.head().await.starts_with("HTTP/1.1 103 "));
    assert!(client.head().await.starts_with("HTTP/1.1 102 "));
    let answer = client.answer().await;
    assert_eq!((answer.outcome().as_str(), answer.text().as_str()), ("a balanced 200", "a"));
    gateway.until_idle().await;
}

#[tokio::test]
async fn a_storm_of_interim_responses_is_one_request() {
    let (gateway, _a) = with(|_| {
        let storm = b"HTTP/1.1 102 Processing\r\n\r\n".repeat(100);
        vec![Step::Send(storm), Step::Send(answer(200, "", b"a"))]
    })
    .await;
    assert_eq!(gateway.send(&Req::post("/", b"{}")).await.text(), "a");
    assert_eq!(gateway.metric("ingle_requests_total", &[]).await, 1.0);
}

#[tokio::test]
async fn an_http_1_0_client_is_served_and_its_connection_closed() {
    let (gateway, a) = with(|_| vec![Step::Send(answer(200, "", b"a"))]).await;
    let mut client = gateway.client().await;
    client.write(b"GET / HTTP/1.0\r\n\r\n").await;
    let rest = client.rest().await;
    assert!(rest.starts_with("HTTP/1.") && rest.contains(" 200 ") && rest.ends_with("\r\n\r\na"), "{rest}");
    assert_eq!(a.count(), 1);
}

#[tokio::test]
async fn a_request_without_host_is_refused() {
    let (gateway, a) = with(|_| vec![Step::Send(answer(200, "", b"a"))]).await;
    let mut client = gateway.client().await;
    client.write(b"GET / HTTP/1.1\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "no_host"));
    assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    assert_eq!(a.count(), 0);
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_its_body_is_told_to() {
    for (size, more) in [(1000, ""), (300_000, ""), (3000, "{ max_body: 1KiB }")] {
        let a = Scripted::ok("a").await;
        let mut setup = Setup::new().backend("a", &a.url());
        if !more.is_empty() {
            setup = setup.pool(&format!("retry: {more}"));
        }
        let gateway = setup.start().await;
        let req = Req::post("/", &noise(size)).header("Expect", "100-continue");
        let mut client = gateway.client().await;
        client.write(&req.head()).await;
        assert!(client.head().await.starts_with("HTTP/1.1 100 "), "{size} bytes");
        client.write(&req.body).await;
        let answer = client.answer().await;
        assert_eq!(answer.text(), "a");
        assert!(a.seen()[0].body == req.body);
        if answer.header("Connection") != Some("close") {
            assert_eq!(client.send(&Req::get("/")).await.text(), "a", "the connection is in step");
        }
    }
}

#[tokio::test]
async fn a_client_whose_body_is_too_large_is_told_before_it_sends() {
    let a = Scripted::ok("a").await;
    let gateway = Setup::new().backend("a", &a.url()).top("limits: { max_body: 1KiB }").start().await;
    let mut client = gateway.client().await;
    client.write(&Req::post("/", &noise(2000)).header("Expect", "100-continue").head()).await;
    assert!(client.head().await.starts_with("HTTP/1.1 413 "));
}

const UPGRADE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn upgrade(session: &str) -> Req {
    let req = Req::get("/v1/realtime?model=x").session(session).header("Connection", "Upgrade");
    let req = req.header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13");
    req.header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

#[tokio::test]
async fn a_websocket_passes_both_ways_until_one_side_ends_it() {
    let (gateway, a) = with(|_| vec![Step::Send(UPGRADE.to_vec()), Step::Echo]).await;
    let mut client = gateway.client().await;
    let answer = client.send(&upgrade("s")).await;
    assert_eq!((answer.status, answer.backend(), answer.affinity()), (101, "a", "home"));
    assert_eq!(answer.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for text in ["one", "two", "three"] {
        client.write(text.as_bytes()).await;
        client.until(text).await;
        client.buffer.clear();
    }
    let Client { stream, .. } = client;
    let (mut read, mut write) = stream.into_split();
    let sending = tokio::spawn(async move {
        tokio::io::AsyncWriteExt::write_all(&mut write, &noise(500_000)).await.unwrap();
        write
    });
    let mut back = vec![0; 500_000];
    tokio::io::AsyncReadExt::read_exact(&mut read, &mut back).await.unwrap();
    assert!(back == noise(500_000));
    assert_eq!(gateway.metric("ingle_in_flight_requests", &[("backend", "a")]).await, 1.0);
    drop((read, sending.await.unwrap()));
    gateway.until_idle().await;
    assert_eq!(a.seen()[0].header("Upgrade"), Some("websocket"));
    assert_eq!(gateway.metric("ingle_requests_total", &[("backend", "a")]).await, 1.0);
    assert_eq!(gateway.state("a"), "healthy");
}

#[tokio::test]
async fn a_websocket_on_which_only_the_client_talks_is_not_idle() {
    let a =
        Scripted::start(|_| vec![Step::Send(UPGRADE.to_vec()), Step::Read(120), Step::Send(b"heard".to_vec())]).await;
    let gateway = Setup::new().backend("a", &a.url()).pool("timeouts: { idle: 600ms }").start().await;
    let mut client = gateway.client().await;
    assert_eq!(client.send(&upgrade("s")).await.status, 101);
    for _ in 0..30 {
        client.write(b"ping").await;
        let next = gateway.inner.clock.now() + 60;
        until("three idle times in thirty steps", || gateway.inner.clock.now() >= next).await;
    }
    client.until("heard").await;
}

#[tokio::test]
async fn an_upgrade_is_tried_elsewhere_like_any_request() {
    let a = Scripted::start(|_| vec![Step::Close]).await;
    let b = Scripted::start(|_| vec![Step::Send(UPGRADE.to_vec()), Step::Echo]).await;
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let mut client = gateway.client().await;
    assert_eq!(client.send(&upgrade(&gateway.session_of("a"))).await.outcome(), "b failover 101");
    client.write(b"hello").await;
    client.until("hello").await;
}

#[tokio::test]
async fn a_refused_upgrade_is_an_answer() {
    let (gateway, _a) = with(|_| vec![Step::Send(answer(426, "", b"no"))]).await;
    let answer = gateway.send(&upgrade("s")).await;
    assert_eq!((answer.status, answer.text().as_str()), (426, "no"));
}

#[tokio::test]
async fn http2_without_tls_on_the_same_port() {
    let (gateway, a) = with(|seen| vec![Step::Send(answer(200, "", seen.number.to_string().as_bytes()))]).await;
    let client = H2c::connect(gateway.address).await;
    let answer = client.send(&Req::get("/v1/models?x=1").session("s"), false).await;
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"0"[..]));
    assert_eq!(answer.headers()["x-ingle-backend"], "a");
    assert_eq!(answer.headers()["x-ingle-affinity"], "home");
    let seen = &a.seen()[0];
    assert!(seen.head.starts_with("GET /v1/models?x=1 HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!((seen.header("Host"), seen.header("X-Session-Id")), (Some("llm.test"), Some("s")));
    assert_eq!(
        (seen.header("X-Forwarded-Host"), seen.header("X-Forwarded-For")),
        (Some("llm.test"), Some("127.0.0.1"))
    );
    assert_eq!(gateway.send(&Req::get("/")).await.text(), "1", "HTTP/1.1 still works");
}

#[tokio::test]
async fn http2_streams_do_not_wait_for_each_other() {
    let gate = Gate::new();
    let held = gate.clone();
    let (gateway, a) = with(move |seen| match seen.number {
        0 => vec![Step::Wait(held.clone()), Step::Send(answer(200, "", b"slow"))],
        _ => vec![Step::Send(answer(200, "", b"quick"))],
    })
    .await;
    let client = H2c::connect(gateway.address).await;
    let slow_req = Req::get("/");
    let slow = client.send(&slow_req, false);
    let quick = async {
        until("the slow one is there", || a.count() == 1).await;
        for _ in 0..20 {
            assert_eq!(client.send(&Req::get("/"), false).await.body(), b"quick");
        }
        gate.open();
    };
    assert_eq!(tokio::join!(slow, quick).0.body(), b"slow");
    gateway.until_idle().await;
}

/// An HTTP/1.0 client cannot read chunks (RFC 9112, section 6.1).
#[tokio::test]
async fn a_stream_to_an_http_1_0_client_ends_with_the_connection() {
    let (gateway, _a) =
        with(|_| vec![Step::Send(stream_head()), Step::Send(chunk(b"data: 1\n\n")), Step::Send(chunk(b""))]).await;
    let mut client = gateway.client().await;
    client.write(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(header_of(&head, "Transfer-Encoding"), None, "{head}");
    assert_eq!(client.rest().await, "data: 1\n\n");
}
