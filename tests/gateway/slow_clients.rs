//! Clients that stop reading, stop sending, or are only slow: what they hold is given back, and no backend is blamed.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::certs::{Authority, Caller, Files};
use crate::client::Req;
use crate::frames;
use crate::h2c::H2c;
use crate::harness::{Gateway, Setup, noise, until};
use crate::scripted::{Scripted, Step, stream_head};

async fn endless() -> Scripted {
    Scripted::start(|_| vec![Step::Send(stream_head()), Step::Flood]).await
}

/// Everything is given back, and the backend has nothing to answer for.
async fn no_harm_done(gateway: &Gateway) {
    gateway.until_idle().await;
    let a = gateway.backend("a").await;
    assert_eq!((&a["state"], &a["last_error"], &a["in_flight"]), (&"healthy".into(), &().into(), &0.into()));
    assert_eq!(gateway.metric("ingle_retries_total", &[]).await, 0.0);
}

#[tokio::test]
async fn who_stops_reading_is_cut_after_the_idle_time() {
    let a = endless().await;
    let gateway = Setup::new().backend("a", &a.url()).pool("timeouts: { idle: 300ms }").start().await;
    let mut client = gateway.client().await;
    client.write(&Req::get("/").bytes()).await;
    client.head().await;
    until("a is rid of it", || a.left().len() == 1).await;
    no_harm_done(&gateway).await;
    drop(client);
}

#[tokio::test]
async fn who_opens_no_window_is_cut_after_the_idle_time() {
    let a = endless().await;
    let gateway = Setup::new().backend("a", &a.url()).pool("timeouts: { idle: 300ms }").start().await;
    let client = H2c::with_window(gateway.address, 0).await;
    let response = client.begin(&Req::post("/", b"{}")).await;
    assert_eq!(response.status(), 200);
    until("a is rid of it", || a.left().len() == 1).await;
    no_harm_done(&gateway).await;
    drop(response);
}

/// A gateway that streams every upload of more than 1 KiB.
async fn streams_uploads(limits: &str, timeouts: &str) -> (Gateway, Scripted) {
    let a = Scripted::ok("a").await;
    let setup = Setup::new().backend("a", &a.url()).pool("retry: { max_body: 1KiB }");
    (setup.top(&format!("limits: {{ {limits} }}")).pool(&format!("timeouts: {{ {timeouts} }}")).start().await, a)
}

fn in_flight(gateway: &Gateway) -> usize {
    gateway.inner.snapshot.load().pool.members()[0].backend.in_flight()
}

#[tokio::test]
async fn a_streamed_upload_that_stalls_is_408_and_gives_the_backend_back() {
    let (gateway, a) = streams_uploads("header_timeout: 500ms", "").await;
    for coding in ["Content-Length: 100000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nffff\r\n"] {
        let mut client = gateway.client().await;
        client.write(format!("POST / HTTP/1.1\r\nHost: x\r\n{coding}").as_bytes()).await;
        client.write(&noise(60_000)).await;
        until("the backend has it", || in_flight(&gateway) == 1).await;
        until("the backend is given back", || in_flight(&gateway) == 0).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (408, "slow_client"), "{coding:?}");
        no_harm_done(&gateway).await;
    }
    assert_eq!(a.count(), 0, "no whole request");
}

#[tokio::test]
async fn a_streamed_upload_that_stalls_on_http2_is_408_and_gives_the_backend_back() {
    let (gateway, a) = streams_uploads("header_timeout: 500ms", "").await;
    let client = H2c::connect(gateway.address).await;
    let req = Req::post("/", &noise(100_000));
    let (status, ()) = tokio::join!(client.stall(&req, 2000), async {
        until("the backend has it", || in_flight(&gateway) == 1).await;
        until("the backend is given back", || in_flight(&gateway) == 0).await;
    });
    assert_eq!(status, Some(408));
    no_harm_done(&gateway).await;
    assert_eq!(a.count(), 0, "no whole request");
}

#[tokio::test]
async fn a_slow_upload_is_not_the_backends_slow_first_byte() {
    let (gateway, a) = streams_uploads("header_timeout: 10s", "first_byte: 300ms").await;
    let req = Req::post("/", &noise(5000)).session("s");
    let mut client = gateway.client().await;
    client.write(&req.head()).await;
    for piece in req.body.chunks(500) {
        client.write(piece).await;
        let next = gateway.inner.clock.now() + 100;
        until("a piece a tenth of a second", || gateway.inner.clock.now() >= next).await;
    }
    assert_eq!(client.answer().await.outcome(), "a home 200");
    assert!(a.seen()[0].body == req.body);
    no_harm_done(&gateway).await;
}

/// A gateway behind TLS whose backend never stops, and who calls it.
async fn endless_over_tls() -> (Gateway, Scripted, Caller, Files) {
    let (authority, files, a) = (Authority::new(), Files::new(), endless().await);
    let setup = Setup::new().tls(&files.pair("own", &authority.issue(&["llm.test"])));
    let setup = setup.backend("a", &a.url()).pool("timeouts: { idle: 300ms }");
    (setup.top("limits: { header_timeout: 500ms }").start().await, a, Caller::new(&authority, "llm.test"), files)
}

#[tokio::test]
async fn over_tls_who_stops_reading_is_cut_too() {
    let (gateway, a, caller, _files) = endless_over_tls().await;
    let mut client = caller.client(gateway.address).await;
    client.write(&Req::get("/").bytes()).await;
    client.head().await;
    until("a is rid of it", || a.left().len() == 1).await;
    no_harm_done(&gateway).await;
    until("the connection is over", || gateway.inner.connections.get() == 0).await;
    drop(client);
}

#[tokio::test]
async fn over_tls_and_http2_who_stops_reading_is_cut_too() {
    let (gateway, a, caller, _files) = endless_over_tls().await;
    let client = H2c::over(caller.alpn(&["h2"]).connect(gateway.address).await.unwrap(), 0).await;
    let response = client.begin(&Req::post("/", b"{}")).await;
    assert_eq!(response.status(), 200);
    until("a is rid of it", || a.left().len() == 1).await;
    no_harm_done(&gateway).await;
    drop(response);
}

#[tokio::test]
async fn over_tls_who_sends_a_body_too_slowly_is_told_so() {
    let (gateway, a, caller, _files) = endless_over_tls().await;
    let mut client = caller.client(gateway.address).await;
    client.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nslow").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "slow_client"));
    let client = H2c::over(caller.alpn(&["h2"]).connect(gateway.address).await.unwrap(), 65_535).await;
    assert_eq!(client.stall(&Req::post("/", &noise(1000)), 10).await, Some(408));
    assert_eq!(a.count(), 0, "no backend waited");
    no_harm_done(&gateway).await;
}

/// The windows of HTTP/2 may be as large as the client likes: what waits for it here is bounded all the same.
#[tokio::test]
async fn a_large_window_that_nobody_reads_from_is_cut_after_the_idle_time() {
    let a = endless().await;
    let gateway = Setup::new().backend("a", &a.url()).pool("timeouts: { idle: 300ms }").start().await;
    let mut silent = TcpStream::connect(gateway.address).await.unwrap();
    silent.write_all(&frames::requests(3)).await.unwrap();
    until("a is asked", || a.count() == 3).await;
    until("a is rid of them", || a.left().len() == 3).await;
    no_harm_done(&gateway).await;
    drop(silent);
}
