//! Each fault on the wire.

use std::time::Duration;

use ingle_sim::{Api, BeforeToken, Ending, Fault, Scope, SimConfig, SimServer};
use serde_json::json;
use tokio::net::TcpStream;

use crate::raw::{CHAT, PATIENCE, Raw, chat, post};

async fn server() -> SimServer {
    SimServer::start(SimConfig::llama_server("gpu0").instant()).await.unwrap()
}

/// What a streaming chat request gets until its connection ends.
async fn stream_until_end(server: &SimServer) -> std::io::Result<String> {
    let mut client = Raw::to(server).await;
    client.send(&post(CHAT, &chat("hi", 9, true))).await;
    client.rest().await
}

/// Events that carry a token.
fn tokens(text: &str) -> usize {
    text.matches("\"delta\":{\"content\":\"").count()
}

#[tokio::test]
async fn accept_then_close() {
    let server = server().await;
    server.inject(Fault::AcceptThenClose.times(1));
    assert_eq!(Raw::to(&server).await.rest().await.unwrap(), "");
    assert_eq!(Raw::to(&server).await.get("/health").await.code, 200, "once only");
    assert_eq!(server.stats().connections, 2);
}

#[tokio::test]
async fn a_frozen_backend_accepts_and_answers_nothing_until_it_thaws() {
    let server = server().await;
    server.inject(Fault::Freeze);
    assert!(TcpStream::connect(server.address()).await.is_ok());
    let (mut health, mut chats) = (Raw::to(&server).await, Raw::to(&server).await);
    health.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
    chats.send(&post(CHAT, &chat("hi", 1, true))).await;
    assert!(health.is_silent().await && chats.is_silent().await);
    server.clear_faults();
    assert_eq!(health.answer().await.code, 200);
    assert_eq!(chats.answer().await.code, 200);
}

#[tokio::test]
async fn a_request_on_a_used_connection_is_not_answered() {
    let server = server().await;
    server.inject(Fault::CloseReused.times(1));
    let mut client = Raw::to(&server).await;
    assert_eq!(client.get("/health").await.code, 200, "the first one is");
    client.send(&post(CHAT, &chat("hi", 1, false))).await;
    // FIN or RST, depending on how much had arrived: as with a real race.
    assert_eq!(client.rest().await.unwrap_or_default(), "");
    assert_eq!(server.stats().completions, 0);
}

#[tokio::test]
async fn reset_and_close_after_the_request() {
    let server = server().await;
    server.inject(Fault::ResetAfterRequest.times(1));
    server.inject(Fault::CloseAfterRequest.times(1));
    let error = stream_until_end(&server).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(stream_until_end(&server).await.unwrap(), "");
    assert_eq!(server.stats().completions, 2, "both were read");
}

#[tokio::test]
async fn close_after_headers() {
    let server = server().await;
    server.inject(Fault::CloseAfterHeaders);
    let got = stream_until_end(&server).await.unwrap();
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("\r\n\r\n") && !got.contains("data:"), "{got}");
}

/// What a streaming request of an API gets until its connection ends.
async fn stream_of(server: &SimServer, api: Api) -> std::io::Result<String> {
    let mut client = Raw::to(server).await;
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "input": "hi", "prompt": "hi", "stream": true});
    client.send(&post(api.path(), &body)).await;
    client.rest().await
}

#[tokio::test]
async fn stream_fails_between_head_and_token() {
    for config in [SimConfig::llama_server("gpu0"), SimConfig::vllm("gpu0")] {
        let server = SimServer::start(config.instant()).await.unwrap();
        for (api, word) in [
            (Api::Chat, "\"role\":\"assistant\""),
            (Api::Completions, ""),
            (Api::Messages, "event: message_start"),
            (Api::Responses, "event: response.output_item.added"),
        ] {
            for skeleton in [false, true] {
                let failure = BeforeToken { skeleton, ..BeforeToken::new(Ending::Close) };
                server.inject(Fault::BeforeToken(failure).times(1));
                let got = stream_of(&server, api).await.unwrap();
                assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && !got.ends_with("\r\n0\r\n\r\n"), "{got}");
                assert_eq!(got.contains(word), skeleton || word.is_empty(), "{api:?}: {got}");
                assert!(!got.contains("delta\":\"") && !got.contains("text\":\"a"), "no output: {got}");
            }
            server.inject(Fault::BeforeToken(BeforeToken::new(Ending::Reset)).times(1));
            let error = stream_of(&server, api).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        assert_eq!((server.stats().processing, server.stats().prompt_tokens), (0, 0));
    }
}

#[tokio::test]
async fn stream_ends_without_a_token() {
    let server = server().await;
    server.inject(Fault::BeforeToken(BeforeToken::new(Ending::End)).times(1));
    let got = stream_until_end(&server).await.unwrap();
    assert!(got.ends_with("\r\n\r\n0\r\n\r\n") && !got.contains("data:"), "{got}");
}

#[tokio::test]
async fn stalled_prefill_holds_its_slot() {
    let server = server().await;
    server.inject(Fault::BeforeToken(BeforeToken::new(Ending::Stall)).times(1));
    let mut client = Raw::to(&server).await;
    client.send(&post(CHAT, &chat("hi", 9, true))).await;
    client.until("\r\n\r\n").await;
    assert!(client.is_silent().await);
    assert_eq!((server.stats().processing, server.stats().prefilling), (1, 1));
    drop(client);
    server.wait_for(PATIENCE, |s| s.processing == 0 && s.prefilling == 0).await.unwrap();
}

#[tokio::test]
async fn error_event_has_the_shape_of_its_api() {
    let anthropic = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"";
    let failed = "event: response.failed\ndata: {\"response\":{";
    let llama = "data: {\"error\":{\"code\":503,\"message\":\"simulated 503\",\"type\":\"unavailable_error\"}}\n\n";
    let vllm = "data: {\"error\":{\"message\":\"simulated 503\",\"type\":\"ServiceUnavailableError\"";
    for (config, api, expected) in [
        (SimConfig::llama_server("gpu0"), Api::Chat, llama),
        (SimConfig::llama_server("gpu0"), Api::Responses, llama),
        (SimConfig::llama_server("gpu0"), Api::Messages, "event: error\ndata: {\"code\":503,"),
        (SimConfig::vllm("gpu0"), Api::Completions, vllm),
        (SimConfig::vllm("gpu0"), Api::Messages, anthropic),
        (SimConfig::vllm("gpu0"), Api::Responses, failed),
    ] {
        let server = SimServer::start(config.instant()).await.unwrap();
        server.inject(Fault::BeforeToken(BeforeToken::new(Ending::Error(503))));
        let mut client = Raw::to(&server).await;
        let body = json!({"messages": [], "input": "hi", "prompt": "hi", "stream": true});
        client.send(&post(api.path(), &body)).await;
        let got = client.until("\r\n0\r\n\r\n").await;
        assert!(got.contains(expected), "{api:?}: {got}");
        let plain = Raw::to(&server).await.post(api.path(), &json!({"messages": [], "input": "hi"})).await;
        assert_eq!(plain.code, 503, "no stream: {}", plain.body);
    }
}

#[tokio::test]
async fn premature_end_reset_and_bad_chunk_come_after_their_events() {
    let server = server().await;
    server.inject(Fault::PrematureEof { after_events: 3 }.times(1));
    let got = stream_until_end(&server).await.unwrap();
    assert_eq!((tokens(&got), got.contains("[DONE]"), got.ends_with("0\r\n\r\n")), (3, false, false));

    server.inject(Fault::BadChunk { after_events: 2 }.times(1));
    let got = stream_until_end(&server).await.unwrap();
    assert_eq!((tokens(&got), got.ends_with("zz\r\nno chunk size\r\n")), (2, true));

    server.inject(Fault::ResetMidStream { after_events: 2 }.times(1));
    let mut client = Raw::to(&server).await;
    client.send(&post(CHAT, &chat("hi", 9, true))).await;
    assert_eq!(client.rest().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(server.stats().completed, 0);
}

#[tokio::test]
async fn plain_answers_break_in_their_middle() {
    let server = server().await;
    server.inject(Fault::PrematureEof { after_events: 0 }.times(1));
    server.inject(Fault::BadChunk { after_events: 0 }.times(1));
    for end in ["", "zz\r\nno chunk size\r\n"] {
        let mut client = Raw::to(&server).await;
        client.send(&post(CHAT, &chat("hi", 9, false))).await;
        let got = client.rest().await.unwrap();
        assert!(got.contains("\"choices\"") && !got.contains("\"timings\"") && got.ends_with(end), "{got}");
    }
}

#[tokio::test]
async fn a_stalled_stream_stays_open_and_silent() {
    let server = server().await;
    server.inject(Fault::Stall { after_events: 2 });
    let mut client = Raw::to(&server).await;
    client.send(&post(CHAT, &chat("hi", 9, true))).await;
    client.until_tokens(2).await;
    assert!(client.is_silent().await);
    assert_eq!(server.stats().in_flight, 1);
    drop(client);
    server.wait_for(PATIENCE, |s| s.in_flight == 0 && s.disconnects == 1).await.unwrap();
}

#[tokio::test]
async fn a_dripping_answer_is_correct() {
    let server = server().await;
    server.inject(Fault::Drip { pause: Duration::ZERO }.times(1));
    let mut client = Raw::to(&server).await;
    client.get("/health").await;
    let dripped = client.post(CHAT, &chat("hi", 3, true)).await;
    assert_eq!(tokens(&dripped.body), 3);
    assert!(dripped.body.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn junk_is_not_http() {
    let server = server().await;
    server.inject(Fault::Junk);
    assert!(!stream_until_end(&server).await.unwrap().starts_with("HTTP"));
}

#[tokio::test]
async fn a_status_comes_with_its_headers_and_body_and_leaves_health_alone() {
    let server = server().await;
    server.inject(Fault::status_retry_after(429, 7));
    let mut client = Raw::to(&server).await;
    let answer = client.post(CHAT, &chat("hi", 1, true)).await;
    assert_eq!((answer.code, answer.json()["error"]["code"].as_u64()), (429, Some(429)));
    assert!(answer.has("Retry-After: 7"), "{}", answer.head);
    assert_eq!(Raw::to(&server).await.get("/health").await.code, 200);
    server.clear_faults();
    let headers = vec![("Content-Type".to_owned(), "text/plain".to_owned())];
    server.inject(Fault::Status { code: 502, headers, body: "bad".into() });
    let answer = Raw::to(&server).await.post(CHAT, &chat("hi", 1, true)).await;
    assert_eq!((answer.code, answer.body.as_str()), (502, "bad"));
    assert_eq!(answer.head.to_ascii_lowercase().matches("content-type").count(), 1);
}

#[tokio::test]
async fn health_fails_or_hangs_while_serving() {
    let server = server().await;
    server.inject(Fault::status(500).on(Scope::Health).times(1));
    server.inject(Fault::Delay(Duration::from_secs(3600)).on(Scope::Health));
    assert_eq!(Raw::to(&server).await.get("/health").await.code, 500);
    let mut slow = Raw::to(&server).await;
    slow.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(slow.is_silent().await);
    assert_eq!(Raw::to(&server).await.post(CHAT, &chat("hi", 1, true)).await.code, 200);
}

#[tokio::test]
async fn a_storm_of_interim_answers_ends_in_the_right_one() {
    let server = server().await;
    server.inject(Fault::InformationalStorm { count: 50 });
    let mut client = Raw::to(&server).await;
    client.send(&post(CHAT, &chat("hi", 1, true))).await;
    let got = client.until("[DONE]").await;
    assert_eq!(got.matches("HTTP/1.1 102 Processing\r\n\r\n").count(), 50);
    assert_eq!(got.matches("HTTP/1.1 200 OK\r\n").count(), 1);
}
