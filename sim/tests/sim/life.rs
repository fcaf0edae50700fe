//! Loading, kill and revival, keep-alive, clients that leave.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use ingle_sim::{KeepAlive, Phase, SimConfig, SimServer};

use crate::raw::{CHAT, PATIENCE, Raw, chat, post};

async fn server(change: impl FnOnce(&mut SimConfig)) -> SimServer {
    let mut config = SimConfig::llama_server("gpu0").instant();
    change(&mut config);
    SimServer::start(config).await.unwrap()
}

#[tokio::test]
async fn a_loading_llama_server_answers_503_everywhere() {
    let server = server(|c| c.loading = Duration::from_secs(3600)).await;
    for path in ["/health", "/v1/models", "/metrics", "/slots", "/props"] {
        let answer = Raw::to(&server).await.get(path).await;
        assert_eq!(answer.code, 503);
        assert_eq!(answer.body, r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#);
    }
    assert_eq!(Raw::to(&server).await.post(CHAT, &chat("hi", 1, true)).await.code, 503);
    server.set_loading(false);
    assert_eq!(Raw::to(&server).await.get("/health").await.code, 200);
    server.set_loading(true);
    assert_eq!(Raw::to(&server).await.get("/health").await.code, 503);
}

#[tokio::test]
async fn a_loading_vllm_refuses_connections() {
    let config = SimConfig { loading: Duration::from_secs(3600), ..SimConfig::vllm("gpu1").instant() };
    let server = SimServer::start(config).await.unwrap();
    assert!(TcpStream::connect(server.address()).await.is_err());
    server.set_loading(false);
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(server.address()).await.is_err() {
        assert!(Instant::now() < deadline, "it listens after loading");
        tokio::task::yield_now().await;
    }
    assert_eq!(Raw::to(&server).await.get("/health").await.code, 200);
}

#[tokio::test]
async fn loading_ends_by_itself() {
    let server = server(|c| c.loading = Duration::from_millis(20)).await;
    let deadline = Instant::now() + PATIENCE;
    while Raw::to(&server).await.get("/health").await.code == 503 {
        assert!(Instant::now() < deadline, "loading ends");
    }
    assert!(!server.is_loading());
}

#[tokio::test]
async fn a_killed_backend_cuts_everything_and_comes_back_cold_on_its_port() {
    let server = server(|c| (c.time_scale, c.decode_rate) = (1.0, 0.001)).await;
    let prompt = "x".repeat(4000);
    let mut streaming = Raw::to(&server).await;
    streaming.send(&post(CHAT, &chat(&prompt, 2, true))).await;
    let first = streaming.until("\"content\":\"").await;
    assert!(!first.contains("[DONE]"));
    server.kill().await;
    assert!(!streaming.rest().await.unwrap_or_default().contains("[DONE]"));
    assert!(TcpStream::connect(server.address()).await.is_err(), "refused while dead");
    let stats = server.stats();
    assert_eq!((stats.open_connections, stats.in_flight, stats.processing), (0, 0, 0));
    assert_eq!(stats.disconnects, 0, "nobody left: the server died");

    let address = server.address();
    server.revive().await.unwrap();
    assert_eq!(server.address(), address);
    let answer = Raw::to(&server).await.post(CHAT, &chat(&prompt, 1, false)).await.json();
    assert_eq!(answer["timings"]["cache_n"], 0, "cold");
}

#[tokio::test]
async fn a_closed_listener_leaves_open_connections_and_the_cache_alone() {
    let server = server(|_| {}).await;
    let mut open = Raw::to(&server).await;
    open.post(CHAT, &chat(&"x".repeat(4000), 1, false)).await;
    server.refuse_connections().await;
    assert!(TcpStream::connect(server.address()).await.is_err());
    assert_eq!(open.get("/health").await.code, 200);
    server.accept_connections().await.unwrap();
    let warm = Raw::to(&server).await.post(CHAT, &chat(&"x".repeat(4000), 1, false)).await.json();
    assert!(warm["timings"]["cache_n"].as_u64().unwrap() > 900);
}

#[tokio::test]
async fn client_that_leaves_frees_its_slot() {
    for (phase, prefill_rate, decode_rate, seen) in [
        (Phase::BeforeFirstByte, 0.001, 40.0, ""),
        (Phase::BeforeFirstToken, 0.001, 40.0, "\r\n\r\n"),
        (Phase::Answering, 8000.0, 0.001, "\"content\":\""),
    ] {
        let server = server(|c| {
            (c.time_scale, c.prefill_rate, c.decode_rate) = (1.0, prefill_rate, decode_rate);
            c.early_head = phase != Phase::BeforeFirstByte;
        })
        .await;
        let mut client = Raw::to(&server).await;
        client.send(&post(CHAT, &chat("hi", 2, true))).await;
        client.until(seen).await;
        server.wait_for(PATIENCE, |s| s.processing == 1).await.unwrap();
        let left = Instant::now();
        drop(client);
        let stats = server.wait_for(PATIENCE, |s| s.disconnects == 1).await.unwrap();
        assert_eq!((stats.processing, stats.in_flight, stats.completed), (0, 0, 0));
        let seen = server.disconnects().remove(0);
        assert_eq!((seen.phase, seen.path.as_str(), seen.session.as_deref()), (phase, CHAT, Some("s1")));
        assert!(seen.at >= left);
    }
}

#[tokio::test]
async fn a_client_that_leaves_between_requests_is_no_disconnect() {
    let server = server(|_| {}).await;
    let mut client = Raw::to(&server).await;
    client.post(CHAT, &chat("hi", 1, true)).await;
    drop(client);
    let stats = server.wait_for(PATIENCE, |s| s.open_connections == 0).await.unwrap();
    assert_eq!((stats.disconnects, stats.completed, stats.connections), (0, 1, 1));
}

#[tokio::test]
async fn idle_connections_are_closed_after_their_time() {
    let server = server(|c| c.keep_alive.idle = Duration::from_millis(10)).await;
    let mut client = Raw::to(&server).await;
    client.get("/health").await;
    assert_eq!(client.rest().await.unwrap(), "");
}

#[tokio::test]
async fn connections_end_after_their_last_request_announced_or_not() {
    for announce in [true, false] {
        let keep_alive = KeepAlive { max_requests: 2, announce, ..KeepAlive::default() };
        let server = server(|c| c.keep_alive = keep_alive).await;
        let mut client = Raw::to(&server).await;
        assert!(!client.get("/health").await.has("Connection: close"));
        assert_eq!(client.get("/health").await.has("Connection: close"), announce);
        assert_eq!(client.rest().await.unwrap(), "");
    }
}

#[tokio::test]
async fn a_llama_server_closes_after_a_stream_that_promised_otherwise() {
    for (config, closes) in [(SimConfig::llama_server("gpu0"), true), (SimConfig::vllm("gpu1"), false)] {
        let server = SimServer::start(config.instant()).await.unwrap();
        let mut client = Raw::to(&server).await;
        assert_eq!(client.post(CHAT, &chat("hi", 1, false)).await.code, 200);
        let answer = client.post(CHAT, &chat("hi", 1, true)).await;
        assert!(!answer.has("Connection: close"), "{}", answer.head);
        if closes {
            assert_eq!(client.rest().await.unwrap(), "");
        } else {
            assert_eq!(client.get("/health").await.code, 200);
        }
    }
}

#[tokio::test]
async fn a_client_that_asks_for_close_gets_it() {
    let server = server(|_| {}).await;
    let mut client = Raw::to(&server).await;
    client.send("GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(client.rest().await.unwrap().ends_with(r#"{"status":"ok"}"#));
    let mut old = Raw::to(&server).await;
    old.send("GET /health HTTP/1.0\r\n\r\n").await;
    assert!(old.rest().await.unwrap().ends_with(r#"{"status":"ok"}"#));
}
