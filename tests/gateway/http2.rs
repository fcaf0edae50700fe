//! What one HTTP/2 connection may do, and that others do not feel it.

use bytes::Bytes;
use http::Request;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::Req;
use crate::h2c::H2c;
use crate::harness::{PATIENCE, Setup, until};
use crate::scripted::{Gate, Scripted, Step};

/// CVE-2023-44487, slowly: each stream reaches a backend before it is given up, so the library sees nothing odd.
#[tokio::test]
async fn who_gives_up_nearly_every_stream_loses_the_connection() {
    let a = Scripted::start(|seen| match seen.head.starts_with("GET /quick ") {
        true => vec![Step::Send(crate::scripted::answer(200, "", b"a"))],
        false => vec![Step::Hang],
    })
    .await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let mut other = gateway.client().await;
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    let mut connection = tokio::spawn(async move { drop(connection.await) });
    let head = || Request::get("http://llm.test/slow").body(()).unwrap();
    let mut opened = 0;
    loop {
        let ready = tokio::select! {
            ready = requests.clone().ready() => ready,
            _ = &mut connection => break,
        };
        let Ok(mut ready) = ready else { break };
        let Ok((response, body)) = ready.send_request(head(), true) else { break };
        requests = ready;
        opened += 1;
        assert!(opened < 1000, "still open");
        let seen = async {
            while a.count() < opened && !connection.is_finished() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, seen).await.unwrap();
        drop((response, body));
        if opened % 20 == 0 {
            assert_eq!(other.send(&Req::get("/quick")).await.status, 200);
        }
        // What the other one asked for is not counted.
        until("it is given up", || gateway.inner.requests.get() == 0 || connection.is_finished()).await;
        opened = a.count();
    }
    println!("closed after {opened} streams");
    assert!((200..300).contains(&opened), "{opened}");
    assert_eq!(other.send(&Req::get("/quick")).await.status, 200);
    gateway.until_idle().await;
}

#[tokio::test]
async fn a_connection_has_as_many_requests_at_once_as_the_config_says() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |seen| match seen.head.starts_with("GET /slow ") {
        true => vec![Step::Wait(held.clone()), Step::Send(crate::scripted::answer(200, "", b"slow"))],
        false => vec![Step::Send(crate::scripted::answer(200, "", b"quick"))],
    })
    .await;
    let gateway = Setup::new().top("limits: { http2_streams: 2 }").backend("a", &a.url()).start().await;
    let http2 = std::sync::Arc::new(H2c::connect(gateway.address).await);
    // By now the client has the gateway's settings.
    assert_eq!(http2.send(&Req::get("/quick"), true).await.status(), 200);
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let http2 = std::sync::Arc::clone(&http2);
        requests.spawn(async move { http2.send(&Req::get("/slow"), true).await.status() });
    }
    until("two are there", || a.count() == 3).await;
    assert_eq!(gateway.send(&Req::get("/quick")).await.status, 200, "another connection has room of its own");
    until("the others wait for their turn", || gateway.inner.requests.get() == 2).await;
    (0..5).for_each(|_| gate.open());
    while let Some(status) = requests.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    gateway.until_idle().await;
}

/// A client that opens and closes one after another, and reads each answer, may go on for ever.
#[tokio::test]
async fn many_streams_one_after_another_are_no_abuse() {
    let a = Scripted::ok("a").await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let h2 = H2c::connect(gateway.address).await;
    for _ in 0..500 {
        assert_eq!(h2.send(&Req::get("/"), false).await.status(), 200);
    }
}

/// A head up to `limits.max_header_bytes` passes, also if it has many fields; one that is larger is 431.
#[tokio::test]
async fn the_bound_of_a_head_is_the_one_of_http1() {
    let a = Scripted::ok("a").await;
    let gateway = Setup::new().top("limits: { max_header_bytes: 128KiB }").backend("a", &a.url()).start().await;
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let builder = h2::client::Builder::new().clone();
    let (requests, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    for (fields, size, expected) in [(200, 600, 200), (200, 700, 431)] {
        let mut head = Request::get("http://llm.test/");
        for field in 0..fields {
            head = head.header(format!("x-{field}"), "x".repeat(size));
        }
        let mut ready = requests.clone().ready().await.unwrap();
        let (response, _) = ready.send_request(head.body(()).unwrap(), true).unwrap();
        let response = timeout(PATIENCE, response).await.unwrap().unwrap();
        assert_eq!(response.status(), expected, "{fields} fields of {size} bytes");
    }
}
