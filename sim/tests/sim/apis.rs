//! Messages and Responses of both servers. The expected llama-server texts are those of a real one (llama.cpp 2026-10)
//! with its figures replaced by ours.

use serde_json::{Value, json};

use ingle_sim::{Api, SimConfig, SimServer, generated_text};

use crate::raw::{Answer, CHAT, Raw};

/// A prompt of `user: hello there my friend\nassistant: ` is 40 bytes: 10 tokens. Blocks of one token.
async fn server(config: SimConfig) -> (SimServer, Raw) {
    let mut config = SimConfig { block_tokens: 1, model: "tiny".into(), ..config.instant() };
    config.keep_alive.close_after_stream = false;
    let server = SimServer::start(config).await.unwrap();
    let client = Raw::to(&server).await;
    (server, client)
}

fn request(api: Api, stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": "hello there my friend"}]);
    match api {
        Api::Responses => json!({"input": messages, "max_output_tokens": 2, "stream": stream}),
        _ => json!({"messages": messages, "max_tokens": 2, "stream": stream}),
    }
}

/// The answer to a prompt that is cached, with its ids, its times and its text replaced.
async fn cached(server: &SimServer, client: &mut Raw, api: Api, stream: bool) -> String {
    let request = request(api, stream);
    client.post(api.path(), &request).await;
    let answer = client.post(api.path(), &request).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    normal(server, &answer, api, &request)
}

fn normal(server: &SimServer, answer: &Answer, api: Api, request: &Value) -> String {
    let text = generated_text(server.config(), api, request.to_string().as_bytes()).unwrap();
    let mut body = answer.body.replace(&format!("\"{text}\""), "<text>");
    for word in [&text[..4], &text[4..]] {
        body = body.replace(&format!("\"{word}\""), "<word>");
    }
    for (prefix, name) in [("chatcmpl-gpu-", "<id>"), ("resp_gpu-", "<id>"), ("msg_gpu-", "<item>")] {
        body = without_number(&body, &format!("\"{prefix}"), "\"", name);
    }
    for field in ["\"created_at\":", "\"completed_at\":"] {
        body = without_number(&body, field, "", &format!("{field}<time>"));
    }
    body
}

/// Replaces `before`, the digits behind it, and `after`.
fn without_number(text: &str, before: &str, after: &str, by: &str) -> String {
    let mut parts = text.split(before);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        result += by;
        result += rest.strip_prefix(after).unwrap_or(rest);
    }
    result
}

/// Names and data, as an event stream has them.
fn events(all: &[(&str, &str)]) -> String {
    all.iter().map(|(name, data)| format!("event: {name}\ndata: {data}\n\n")).collect()
}

const TIMINGS: &str = r#""timings":{"cache_n":9,"prompt_n":1,"prompt_ms":0.0,"prompt_per_token_ms":0.0,"prompt_per_second":0.0,"predicted_n":2,"predicted_ms":0.0,"predicted_per_token_ms":0.0,"predicted_per_second":0.0}"#;

#[tokio::test]
async fn llama_server_messages() {
    let (server, mut client) = server(SimConfig::llama_server("gpu")).await;
    assert_eq!(
        cached(&server, &mut client, Api::Messages, false).await,
        r#"{"id":<id>,"type":"message","role":"assistant","content":[{"type":"text","text":<text>}],"model":"tiny","stop_reason":"max_tokens","stop_sequence":null,"usage":{"cache_read_input_tokens":9,"input_tokens":1,"output_tokens":2}}"#
    );
    let token = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":<word>}}"#;
    let expected = events(&[
        (
            "message_start",
            r#"{"type":"message_start","message":{"id":<id>,"type":"message","role":"assistant","content":[],"model":"tiny","stop_reason":null,"stop_sequence":null,"usage":{"cache_read_input_tokens":9,"input_tokens":1,"output_tokens":0}}}"#,
        ),
        (
            "content_block_start",
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        ),
        ("content_block_delta", token),
        ("content_block_delta", token),
        ("content_block_stop", r#"{"type":"content_block_stop","index":0}"#),
        (
            "message_delta",
            r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens","stop_sequence":null},"usage":{"output_tokens":2}}"#,
        ),
        ("message_stop", r#"{"type":"message_stop"}"#),
    ]);
    assert_eq!(cached(&server, &mut client, Api::Messages, true).await, expected);
}

#[tokio::test]
async fn llama_server_responses() {
    let (server, mut client) = server(SimConfig::llama_server("gpu")).await;
    let usage =
        r#""usage":{"input_tokens":10,"output_tokens":2,"total_tokens":12,"input_tokens_details":{"cached_tokens":9}}"#;
    let part = r#"{"type":"output_text","annotations":[],"logprobs":[],"text":<text>}"#;
    let item =
        format!(r#"{{"type":"message","status":"completed","id":<item>,"content":[{part}],"role":"assistant"}}"#);
    assert_eq!(
        cached(&server, &mut client, Api::Responses, false).await,
        format!(
            r#"{{"completed_at":<time>,"created_at":<time>,"id":<id>,"model":"tiny","object":"response","output":[{item}],"status":"completed",{usage}}}"#
        )
    );
    let started = |name: &str| {
        format!(r#"{{"type":"{name}","response":{{"id":<id>,"object":"response","status":"in_progress"}}}}"#)
    };
    let token = r#"{"type":"response.output_text.delta","item_id":<item>,"delta":<word>}"#;
    let expected = events(&[
        ("response.created", &started("response.created")),
        ("response.in_progress", &started("response.in_progress")),
        (
            "response.output_item.added",
            r#"{"type":"response.output_item.added","item":{"content":[],"id":<item>,"role":"assistant","status":"in_progress","type":"message"}}"#,
        ),
        (
            "response.content_part.added",
            r#"{"type":"response.content_part.added","item_id":<item>,"part":{"type":"output_text","text":""}}"#,
        ),
        ("response.output_text.delta", token),
        ("response.output_text.delta", token),
        ("response.output_text.done", r#"{"type":"response.output_text.done","item_id":<item>,"text":<text>}"#),
        (
            "response.content_part.done",
            &format!(r#"{{"type":"response.content_part.done","item_id":<item>,"part":{part}}}"#),
        ),
        ("response.output_item.done", &format!(r#"{{"type":"response.output_item.done","item":{item}}}"#)),
        (
            "response.completed",
            &format!(
                r#"{{"type":"response.completed","response":{{"id":<id>,"object":"response","created_at":<time>,"status":"completed","model":"tiny","output":[{item}],{usage}}},{TIMINGS}}}"#
            ),
        ),
    ]);
    assert_eq!(cached(&server, &mut client, Api::Responses, true).await, expected);
}

#[tokio::test]
async fn vllm_messages_count_the_whole_prompt() {
    let (server, mut client) = server(SimConfig::vllm("gpu")).await;
    let body: Value = client.post("/v1/messages", &request(Api::Messages, false)).await.json();
    assert_eq!(body["usage"], json!({"input_tokens": 10, "output_tokens": 2}));
    let stream = cached(&server, &mut client, Api::Messages, true).await;
    assert!(
        stream.starts_with("event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":<id>,"),
        "{stream}"
    );
    assert!(stream.contains(r#""usage":{"input_tokens":10,"output_tokens":0}}}"#), "{stream}");
    assert!(stream.contains(r#""usage":{"input_tokens":10,"output_tokens":2}}"#), "{stream}");
    assert!(stream.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"), "{stream}");
}

#[tokio::test]
async fn vllm_responses_number_their_events() {
    let (server, mut client) = server(SimConfig::vllm("gpu")).await;
    let stream = cached(&server, &mut client, Api::Responses, true).await;
    let data: Vec<Value> = stream
        .replace("<word>", "\"w\"")
        .replace("<text>", "\"t\"")
        .replace("<id>", "\"i\"")
        .replace("<item>", "\"i\"")
        .replace("<time>", "0")
        .lines()
        .filter_map(|line| Some(serde_json::from_str(line.strip_prefix("data: ")?).unwrap()))
        .collect();
    let names: Vec<&str> = stream.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(data.len(), 10);
    for (number, (event, name)) in data.iter().zip(&names).enumerate() {
        assert_eq!((&event["sequence_number"], &event["type"]), (&json!(number), &json!(name)));
    }
    assert_eq!(
        (names[0], names[4], names[9]),
        ("response.created", "response.output_text.delta", "response.completed")
    );
    let usage = &data[9]["response"]["usage"];
    assert_eq!((&usage["input_tokens"], &usage["input_tokens_details"]["cached_tokens"]), (&json!(10), &json!(9)));
}

#[tokio::test]
async fn vllm_announces_a_response_with_the_head() {
    let config = SimConfig { prefill_rate: 0.001, ..SimConfig::vllm("gpu") };
    let server = SimServer::start(config).await.unwrap();
    let mut client = Raw::to(&server).await;
    client.send(&crate::raw::post("/v1/responses", &request(Api::Responses, true))).await;
    let text = client.until("response.in_progress\"}").await;
    assert!(text.contains("event: response.created\n") && !text.contains("response.output_item.added"), "{text}");
}

#[tokio::test]
async fn same_chat_is_cached_across_apis() {
    for config in [SimConfig::llama_server("gpu"), SimConfig::vllm("gpu")] {
        let (server, mut client) = server(config).await;
        for api in [Api::Chat, Api::Messages, Api::Responses] {
            client.post(api.path(), &request(api, false)).await;
        }
        let stats = server.stats();
        assert_eq!((stats.completions, stats.completed, stats.prompt_tokens, stats.cached_tokens), (3, 3, 30, 18));
    }
}

#[tokio::test]
async fn malformed_request_is_400_in_the_servers_shape() {
    for (config, shape) in [(SimConfig::llama_server("gpu"), "/error/type"), (SimConfig::vllm("gpu"), "/error/type")] {
        let (_server, mut client) = server(config.clone()).await;
        let answer = client.post("/v1/messages", &json!({"messages": "x"})).await;
        assert_eq!(answer.code, 400);
        assert_eq!(answer.json().pointer(shape), Some(&json!("invalid_request_error")), "{}", answer.body);
        let is_anthropic = answer.json()["type"] == "error";
        assert_eq!(is_anthropic, config == SimConfig::vllm("gpu"), "{}", answer.body);
    }
    let (_server, mut client) = server(SimConfig::llama_server("gpu")).await;
    let answer = client.post("/v1/responses", &json!({"model": "x"})).await;
    assert_eq!(answer.body, r#"{"error":{"code":400,"message":"'input' is required","type":"invalid_request_error"}}"#);
}

#[tokio::test]
async fn tokens_are_counted_without_a_slot() {
    for config in [SimConfig::llama_server("gpu"), SimConfig::vllm("gpu")] {
        let (server, mut client) = server(config).await;
        let answer = client.post("/v1/messages/count_tokens", &request(Api::Messages, false)).await;
        assert_eq!(answer.body, r#"{"input_tokens":10}"#);
        assert_eq!((server.stats().completions, server.stats().prompt_tokens), (0, 0));
        assert_eq!(client.post(CHAT, &request(Api::Chat, false)).await.code, 200);
    }
}
