//! When the head of a stream comes, and what keeps a silent stream alive.

use std::time::Duration;

use ingle_sim::{Api, SimConfig, SimServer};
use serde_json::json;

use crate::raw::{CHAT, PATIENCE, Raw, chat, post};

/// One slot, and a prefill that does not end.
async fn slow(config: SimConfig) -> SimServer {
    SimServer::start(SimConfig { slots: 1, prefill_rate: 0.001, ..config }).await.unwrap()
}

async fn ask(server: &SimServer) -> Raw {
    let mut client = Raw::to(server).await;
    client.send(&post(CHAT, &chat("hi", 1, true))).await;
    client
}

#[tokio::test]
async fn llama_server_sends_the_head_with_the_slot() {
    let server = slow(SimConfig::llama_server("gpu0")).await;
    let mut first = ask(&server).await;
    let head = first.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let mut second = ask(&server).await;
    server.wait_for(PATIENCE, |stats| stats.deferred == 1).await.unwrap();
    assert!(second.is_silent().await, "it has no slot");
    assert!(first.is_silent().await, "its prompt is not computed");
    assert_eq!(server.stats().prefilling, 1);
    drop(first);
    second.until("\r\n\r\n").await;
}

#[tokio::test]
async fn vllm_sends_the_head_of_a_queued_stream() {
    let server = slow(SimConfig::vllm("gpu0")).await;
    let (mut first, mut second) = (ask(&server).await, ask(&server).await);
    first.until("\r\n\r\n").await;
    second.until("\r\n\r\n").await;
    assert_eq!((server.stats().prefilling, server.stats().deferred), (1, 1));
}

#[tokio::test]
async fn late_head_comes_with_the_first_token() {
    for config in [SimConfig::llama_server("gpu0"), SimConfig::vllm("gpu0")] {
        let config = SimConfig { early_head: false, ..config };
        let server = slow(config.clone()).await;
        let mut client = ask(&server).await;
        server.wait_for(PATIENCE, |stats| stats.prefilling == 1).await.unwrap();
        assert!(client.is_silent().await);
        let server = SimServer::start(config.instant()).await.unwrap();
        assert!(ask(&server).await.until("[DONE]").await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
}

#[tokio::test]
async fn silent_stream_gets_pings() {
    for early_head in [true, false] {
        for api in [Api::Chat, Api::Messages, Api::Responses] {
            let ping_interval = Some(Duration::from_millis(5));
            let server = slow(SimConfig { ping_interval, early_head, ..SimConfig::llama_server("gpu0") }).await;
            let mut client = Raw::to(&server).await;
            client.send(&post(api.path(), &json!({"messages": [], "input": "hi", "stream": true}))).await;
            let got = client.until("3\r\n:\n\n\r\n3\r\n:\n\n\r\n").await;
            assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && !got.contains("data:"), "{got}");
        }
    }
}

#[tokio::test]
async fn queued_stream_of_llama_server_gets_no_pings() {
    let ping_interval = Some(Duration::from_millis(1));
    let server = slow(SimConfig { ping_interval, ..SimConfig::llama_server("gpu0") }).await;
    let (mut first, mut second) = (ask(&server).await, ask(&server).await);
    first.until(":\n\n").await;
    assert!(second.is_silent().await);
}

#[test]
fn pings_are_as_the_real_servers_send_them() {
    assert_eq!(SimConfig::llama_server("gpu0").ping_interval, Some(Duration::from_secs(30)));
    assert_eq!(SimConfig::vllm("gpu1").ping_interval, None);
}
