//! Endpoints and JSON of both servers. The expected llama-server texts are those of a real one (llama.cpp 2026-10)
//! with its figures replaced by ours.

use serde_json::{Value, json};

use ingle_sim::{Api, SimConfig, SimServer, generated_text};

use crate::raw::{CHAT, Raw, chat};

/// A prompt of `user: hello there my friend\nassistant: ` is 40 bytes: 10 tokens. Blocks of one token.
async fn server(config: SimConfig) -> SimServer {
    let mut config = SimConfig { block_tokens: 1, model: "tiny".into(), ..config.instant() };
    config.keep_alive.close_after_stream = false;
    SimServer::start(config).await.unwrap()
}

const HELLO: &str = "hello there my friend";

/// Id, creation time and generated text differ from run to run or do not matter.
fn normal(event: &str) -> String {
    if event == "[DONE]" {
        return event.into();
    }
    let value: Value = serde_json::from_str(event).unwrap();
    let mut text = event.to_owned();
    for field in ["id", "created"] {
        text = text.replace(&value[field].to_string(), &format!("<{field}>"));
    }
    for path in ["/choices/0/delta/content", "/choices/0/message/content", "/choices/0/text"] {
        if let Some(Value::String(generated)) = value.pointer(path)
            && !generated.is_empty()
        {
            text = text.replace(&format!("{generated:?}"), "<text>");
        }
    }
    text
}

const TIMINGS: &str = r#""timings":{"cache_n":9,"prompt_n":1,"prompt_ms":0.0,"prompt_per_token_ms":0.0,"prompt_per_second":0.0,"predicted_n":2,"predicted_ms":0.0,"predicted_per_token_ms":0.0,"predicted_per_second":0.0}"#;

#[tokio::test]
async fn llama_server_plain_chat() {
    let server = server(SimConfig::llama_server("gpu0")).await;
    let mut client = Raw::to(&server).await;
    client.post(CHAT, &chat(HELLO, 2, false)).await;
    let answer = client.post(CHAT, &chat(HELLO, 2, false)).await;
    assert_eq!(answer.code, 200);
    assert!(answer.has("Content-Type: application/json; charset=utf-8"), "{}", answer.head);
    assert!(answer.has("Keep-Alive: timeout=5, max=100") && answer.has("Server: llama.cpp"), "{}", answer.head);
    assert!(answer.has("X-Sim-Backend: gpu0"));
    let expected = r#"{"choices":[{"finish_reason":"length","index":0,"message":{"role":"assistant","content":<text>}}],"created":<created>,"model":"tiny","system_fingerprint":"gpu0","object":"chat.completion","usage":{"completion_tokens":2,"prompt_tokens":10,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":9}},"id":<id>,"#;
    assert_eq!(normal(&answer.body), format!("{expected}{TIMINGS}}}"));
}

#[tokio::test]
async fn llama_server_chat_stream() {
    let server = server(SimConfig::llama_server("gpu0")).await;
    let mut client = Raw::to(&server).await;
    client.post(CHAT, &chat(HELLO, 2, true)).await;
    let tail =
        r#""created":<created>,"id":<id>,"model":"tiny","system_fingerprint":"gpu0","object":"chat.completion.chunk""#;
    let token = format!(r#"{{"choices":[{{"finish_reason":null,"index":0,"delta":{{"content":<text>}}}}],{tail}}}"#);
    let mut expected = vec![
        format!(
            r#"{{"choices":[{{"finish_reason":null,"index":0,"delta":{{"role":"assistant","content":null}}}}],{tail}}}"#
        ),
        token.clone(),
        token,
        format!(r#"{{"choices":[{{"finish_reason":"length","index":0,"delta":{{}}}}],{tail},{TIMINGS}}}"#),
        "[DONE]".to_owned(),
    ];
    let answer = client.post(CHAT, &chat(HELLO, 2, true)).await;
    assert!(answer.has("Content-Type: text/event-stream") && answer.has("X-Accel-Buffering: no"), "{}", answer.head);
    let events: Vec<_> = answer.events().into_iter().map(normal).collect();
    assert_eq!(events, expected);

    let mut request = chat(HELLO, 2, true);
    request["stream_options"] = json!({"include_usage": true});
    let usage = r#""usage":{"completion_tokens":2,"prompt_tokens":10,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":9}}"#;
    expected[3] = format!(r#"{{"choices":[{{"finish_reason":"length","index":0,"delta":{{}}}}],{tail}}}"#);
    expected.insert(4, format!(r#"{{"choices":[],{tail},{usage},{TIMINGS}}}"#));
    let answer = client.post(CHAT, &request).await;
    let events: Vec<_> = answer.events().into_iter().map(normal).collect();
    assert_eq!(events, expected);
}

#[tokio::test]
async fn generated_text_is_known_in_advance() {
    for config in [SimConfig::llama_server("gpu0"), SimConfig::vllm("gpu1")] {
        let server = server(config).await;
        let mut client = Raw::to(&server).await;
        for (text, tokens) in [(HELLO, 1), (HELLO, 9), ("another prompt", 9)] {
            let request = chat(text, tokens, false);
            let answer = client.post(CHAT, &request).await.json();
            let expected = generated_text(server.config(), Api::Chat, request.to_string().as_bytes()).unwrap();
            assert_eq!(answer["choices"][0]["message"]["content"], expected);
            assert_eq!(expected.len(), tokens * 4);
        }
    }
    assert!(generated_text(&SimConfig::default(), Api::Chat, b"{bad").is_err());
}

#[tokio::test]
async fn llama_server_text_completions() {
    let server = server(SimConfig::llama_server("gpu0")).await;
    let mut client = Raw::to(&server).await;
    let mut request = json!({"prompt": "x".repeat(40), "max_tokens": 2});
    client.post("/v1/completions", &request).await;
    let tail = r#""created":<created>,"model":"tiny","system_fingerprint":"gpu0","object":"text_completion""#;
    let usage = r#""usage":{"completion_tokens":2,"prompt_tokens":10,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":9}}"#;
    let answer = client.post("/v1/completions", &request).await;
    let choice = r#"{"text":<text>,"index":0,"logprobs":null,"finish_reason":"length"}"#;
    assert_eq!(normal(&answer.body), format!(r#"{{"choices":[{choice}],{tail},{usage},"id":<id>,{TIMINGS}}}"#));

    request["stream"] = true.into();
    let answer = client.post("/v1/completions", &request).await;
    let events: Vec<_> = answer.events().into_iter().map(normal).collect();
    let token = r#"{"text":<text>,"index":0,"logprobs":null,"finish_reason":null}"#;
    let token = format!(r#"{{"choices":[{token}],{tail},"id":<id>}}"#);
    let last = r#"{"text":"","index":0,"logprobs":null,"finish_reason":"length"}"#;
    let last = format!(r#"{{"choices":[{last}],{tail},{usage},"id":<id>,{TIMINGS}}}"#);
    assert_eq!(events, [token.clone(), token, last, "[DONE]".into()]);
}

#[tokio::test]
async fn vllm_tells_cached_tokens_only_with_its_flag() {
    for tells in [false, true] {
        let config = SimConfig { prompt_tokens_details: tells, ..SimConfig::vllm("gpu1") };
        let server = server(config).await;
        let mut client = Raw::to(&server).await;
        client.post(CHAT, &chat(HELLO, 2, false)).await;
        let answer = client.post(CHAT, &chat(HELLO, 2, false)).await;
        let details = if tells { r#"{"cached_tokens":9}"# } else { "null" };
        let usage = format!(
            r#""usage":{{"prompt_tokens":10,"total_tokens":12,"completion_tokens":2,"prompt_tokens_details":{details}}}"#
        );
        assert!(answer.body.contains(&usage), "{}", answer.body);
        assert_eq!(answer.json()["timings"], Value::Null);
        assert_eq!(answer.json()["system_fingerprint"], "gpu1");

        let mut request = chat(HELLO, 2, true);
        let answer = client.post(CHAT, &request).await;
        assert!(answer.has("Content-Type: text/event-stream; charset=utf-8"), "{}", answer.head);
        assert!(!answer.body.contains("usage"));
        assert_eq!(answer.events().len(), 5);
        request["stream_options"] = json!({"include_usage": true});
        let answer = client.post(CHAT, &request).await;
        let events = answer.events();
        let last: Value = serde_json::from_str(events[events.len() - 2]).unwrap();
        let mut expected = json!({"prompt_tokens": 10, "total_tokens": 12, "completion_tokens": 2});
        if tells {
            expected["prompt_tokens_details"] = json!({"cached_tokens": 9});
        }
        assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &expected));
        assert_eq!(events.last(), Some(&"[DONE]"));
    }
}

#[tokio::test]
async fn small_endpoints_of_llama_server() {
    let server = server(SimConfig { slots: 3, ..SimConfig::llama_server("gpu0") }).await;
    let mut client = Raw::to(&server).await;
    assert_eq!(client.get("/health").await.body, r#"{"status":"ok"}"#);
    assert_eq!(client.get("/v1/models").await.json()["data"][0]["id"], "tiny");
    assert_eq!(client.get("/props").await.json()["total_slots"], 3);
    assert_eq!(client.get("/slots").await.json().as_array().unwrap().len(), 3);
    for _ in 0..2 {
        client.post(CHAT, &chat(HELLO, 2, false)).await;
    }
    let metrics = client.get("/metrics").await.body;
    for line in [
        "llamacpp:prompt_tokens_total 11",
        "llamacpp:prompt_tokens_cached_total 9",
        "llamacpp:tokens_predicted_total 4",
        "llamacpp:requests_processing 0",
        "llamacpp:requests_deferred 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    let missing = client.get("/nope").await;
    assert_eq!((missing.code, missing.json()["error"]["code"].as_u64()), (404, Some(404)));
    assert!(missing.has("Connection: close"), "as the real one after an error");
}

#[tokio::test]
async fn small_endpoints_of_vllm() {
    let server = server(SimConfig::vllm("gpu1")).await;
    let mut client = Raw::to(&server).await;
    let health = client.get("/health").await;
    assert_eq!((health.code, health.body.as_str()), (200, ""));
    client.send("HEAD /health HTTP/1.1\r\nHost: sim\r\n\r\n").await;
    let refused = client.until("\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && refused.contains("allow: GET"), "{refused}");
    let mut client = Raw::to(&server).await;
    for _ in 0..2 {
        client.post(CHAT, &chat(HELLO, 2, false)).await;
    }
    let metrics = client.get("/metrics").await.body;
    for line in [
        "vllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 0.0",
        "vllm:num_requests_waiting{engine=\"0\",model_name=\"tiny\"} 0.0",
        "vllm:prefix_cache_queries_total{engine=\"0\",model_name=\"tiny\"} 20.0",
        "vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"tiny\"} 9.0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    assert!(metrics.contains("vllm:kv_cache_usage_perc{"));
}

#[tokio::test]
async fn what_is_not_a_request_is_400() {
    let server = server(SimConfig::llama_server("gpu0")).await;
    let both =
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let twice = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd";
    let signed = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc";
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for bad in [both, twice, signed, old, "NOT HTTP\r\n\r\n"] {
        let mut client = Raw::to(&server).await;
        client.send(bad).await;
        assert!(client.until("\r\n\r\n").await.starts_with("HTTP/1.1 400 "), "{bad:?}");
    }
    assert_eq!((server.stats().malformed, server.stats().total_requests()), (5, 0));
    let mut client = Raw::to(&server).await;
    client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n{bad").await;
    assert_eq!(client.answer().await.json()["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn requests_are_recorded_as_they_came() {
    let server = server(SimConfig::llama_server("gpu0").recording(1)).await;
    let mut client = Raw::to(&server).await;
    let body = r#"{"prompt":"hi","max_tokens":1}"#;
    let (first, rest) = body.split_at(7);
    let chunks = format!("{:x}\r\n{first}\r\n{:X};ext=1\r\n{rest}\r\n0\r\nTrailer: x\r\n\r\n", first.len(), rest.len());
    let head = "POST /v1/completions?q=1 HTTP/1.1\r\nHost: a\r\nX-Odd: \u{e9}\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(&format!("{head}{chunks}GET /health HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert_eq!(client.answer().await.code, 200);
    assert_eq!(client.answer().await.code, 200, "the pipelined request");
    let recorded = server.recorded();
    assert_eq!(recorded.len(), 1, "bounded");
    assert_eq!((recorded[0].method.as_str(), recorded[0].target.as_str()), ("POST", "/v1/completions?q=1"));
    assert_eq!(recorded[0].body, body.as_bytes());
    assert_eq!(recorded[0].header("x-odd"), Some("\u{e9}".as_bytes()));
    assert_eq!(server.stats().total_requests(), 2);
}
