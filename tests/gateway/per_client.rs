//! What one client may use: its connections, and how often it asks. Others notice nothing.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

use crate::certs::{Authority, Caller, Files};
use crate::client::{Answer, Client, Req};
use crate::h2c::H2c;
use crate::harness::{Gateway, Setup, noise, until};
use crate::scripted::Scripted;

async fn limited(per_client: &str) -> (Gateway, Scripted) {
    let a = Scripted::ok("a").await;
    let setup = Setup::new().backend("a", &a.url());
    (setup.top(&format!("limits: {{ per_client: {{ {per_client} }} }}")).start().await, a)
}

/// A client at another address of this machine.
async fn stranger(gateway: &Gateway, last: u8) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
    Client::over(socket.connect(gateway.address).await.unwrap())
}

async fn refused(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("ingle_refused_total", &[("reason", reason)]).await
}

fn too_often(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limit_exceeded"));
    assert!(answer.whole);
}

#[tokio::test]
async fn a_connection_too_many_of_one_client_is_told_so_and_others_are_served() {
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
    let mut other = stranger(&gateway, 2).await;
    assert_eq!(other.send(&Req::get("/")).await.status, 200);
    assert_eq!((gateway.inner.clients.len(), gateway.inner.connections.get()), (2, 3), "the third is not in");
    drop(first);
    until("a place is free", || gateway.inner.connections.get() == 2).await;
    assert_eq!(gateway.send(&Req::get("/")).await.status, 200);
    assert_eq!((refused(&gateway, "client_connections").await, refused(&gateway, "connections").await), (1.0, 0.0));
    drop((second, other));
    until("nobody is known any more", || gateway.inner.clients.is_empty()).await;
}

#[tokio::test]
async fn over_tls_a_connection_too_many_is_closed_before_the_handshake() {
    let (authority, files) = (Authority::new(), Files::new());
    let a = Scripted::ok("a").await;
    let setup = Setup::new().tls(&files.pair("own", &authority.issue(&["llm.test"]))).backend("a", &a.url());
    let gateway = setup.top("limits: { per_client: { max_connections: 1 } }").start().await;
    let caller = Caller::new(&authority, "llm.test");
    let mut first = caller.client(gateway.address).await;
    assert_eq!(first.send(&Req::get("/")).await.status, 200);
    assert!(caller.connect(gateway.address).await.is_err());
    assert_eq!(refused(&gateway, "client_connections").await, 1.0);
    assert_eq!(first.send(&Req::get("/")).await.status, 200, "who is in stays in");
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again_and_keeps_the_connection() {
    let (gateway, a) = limited("requests: 5/min").await;
    let mut client = gateway.client().await;
    for _ in 0..5 {
        assert_eq!(client.send(&Req::get("/")).await.status, 200);
    }
    for req in [Req::get("/"), Req::post("/", &noise(2000)), Req::get("/")] {
        let answer = client.send(&req).await;
        too_often(&answer);
        // One in 12 s, of which some have passed.
        let wait: u64 = answer.header("Retry-After").unwrap().parse().unwrap();
        assert!((1..=12).contains(&wait) && answer.header("Connection") != Some("close"), "{}", answer.head);
    }
    let mut other = gateway.client().await;
    too_often(&other.send(&Req::get("/")).await);
    assert_eq!(stranger(&gateway, 2).await.send(&Req::get("/")).await.status, 200);
    assert_eq!((a.count(), refused(&gateway, "client_requests").await), (6, 4.0));
    gateway.until_idle().await;
    assert_eq!(gateway.inner.refused.get(), 0);
}

#[tokio::test]
async fn who_has_much_to_send_or_waits_for_a_word_is_told_at_once_and_closed() {
    let (gateway, a) = limited("requests: 1/h").await;
    assert_eq!(gateway.send(&Req::get("/")).await.status, 200);
    let large = Req::post("/", &noise(300_000));
    for req in [large, Req::post("/", b"x").chunked(1), Req::post("/", b"x").header("Expect", "100-continue")] {
        let mut client = gateway.client().await;
        client.write(&req.head()).await;
        let answer = client.answer().await;
        too_often(&answer);
        assert_eq!(answer.header("Connection"), Some("close"));
    }
    assert_eq!(a.count(), 1);
    gateway.until_idle().await;
}

#[tokio::test]
async fn over_http2_each_stream_is_told_and_the_connection_goes_on() {
    let (gateway, a) = limited("requests: 2/h").await;
    let client = H2c::connect(gateway.address).await;
    for expected in [200, 200, 429, 429] {
        let answer = client.send(&Req::post("/", b"{}"), true).await;
        assert_eq!(answer.status(), expected);
        assert_eq!(answer.headers().contains_key("retry-after"), expected == 429);
    }
    assert_eq!((a.count(), gateway.inner.connections.get()), (2, 1));
}

#[tokio::test]
async fn a_reload_changes_what_a_client_may_use_at_once() {
    let (gateway, _a) = limited("requests: 1/h").await;
    let mut client = gateway.client().await;
    assert_eq!(client.send(&Req::get("/")).await.status, 200);
    too_often(&client.send(&Req::get("/")).await);
    let reload = async |per_client: &str| {
        let yaml = std::fs::read_to_string(&gateway.file).unwrap();
        let lines = yaml.lines().map(|line| match line.starts_with("limits:") {
            true => format!("limits: {{ per_client: {{ {per_client} }} }}\n"),
            false => format!("{line}\n"),
        });
        std::fs::write(&gateway.file, lines.collect::<String>()).unwrap();
        assert_eq!(Client::connect(gateway.admin).await.send(&Req::post("/reload", b"")).await.status, 200);
    };
    reload("max_connections: 1").await;
    assert_eq!(client.send(&Req::get("/")).await.status, 200, "no rate any more");
    let mut second = gateway.client().await;
    assert_eq!(second.send(&Req::get("/")).await.status, 200, "the first one came when there was no bound");
    assert_eq!(gateway.client().await.answer().await.status, 503);
    reload("max_connections: 0").await;
    assert_eq!(gateway.send(&Req::get("/")).await.status, 200);
}
