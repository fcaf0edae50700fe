//! llama-server's answers, as a llama.cpp of 2026-10 gives them.

use std::fmt::Write as _;

use super::{Completion, Frame, quoted};
use crate::api::Api;
use crate::routes::Answer;
use crate::server::Shared;

/// The body of every 503 while the model loads.
pub(crate) const LOADING: &str = r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#;
/// The body of a 404.
pub(crate) const NOT_FOUND: &str = r#"{"error":{"message":"File Not Found","type":"not_found_error","code":404}}"#;

/// The endpoints that answer at once; `None` is 404.
pub(crate) fn get(shared: &Shared, path: &str) -> Option<Answer> {
    match path {
        "/health" | "/v1/health" => Some(Answer::json(r#"{"status":"ok"}"#.into())),
        "/v1/models" | "/models" => Some(Answer::json(models(shared))),
        "/slots" if shared.config.slots_endpoint => Some(Answer::json(slots(shared))),
        "/slots" => Some(Answer::error(
            501,
            r#"{"error":{"code":501,"message":"This server does not support slots endpoint. Start it with `--slots`","type":"not_supported_error"}}"#,
        )),
        "/props" => Some(Answer::json(props(shared))),
        "/metrics" if shared.config.metrics => Some(Answer::text("text/plain; version=0.0.4", metrics(shared))),
        "/metrics" => Some(Answer::error(
            501,
            r#"{"error":{"code":501,"message":"This server does not support metrics endpoint. Start it with `--metrics`","type":"not_supported_error"}}"#,
        )),
        _ => None,
    }
}

pub(super) fn plain(c: &Completion, text: &str) -> String {
    let (text, finish) = (quoted(text), c.finish());
    let choice = if is_chat(c) {
        format!(r#"{{"finish_reason":"{finish}","index":0,"message":{{"role":"assistant","content":{text}}}}}"#)
    } else {
        format!(r#"{{"text":{text},"index":0,"logprobs":null,"finish_reason":"{finish}"}}"#)
    };
    format!(
        r#"{{"choices":[{choice}],{},"object":"{}",{},"id":"{}",{}}}"#,
        origin(c),
        if is_chat(c) { "chat.completion" } else { "text_completion" },
        usage(c),
        c.id(),
        timings(c)
    )
}

/// The first event of a chat.
pub(super) fn role_event(c: &Completion) -> String {
    chat_chunk(c, r#"{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}"#, "")
}

pub(super) fn token_frame(c: &Completion) -> Frame {
    let (before, after) = if is_chat(c) {
        (r#"{"choices":[{"finish_reason":null,"index":0,"delta":{"content":""#, format!(r#""}}}}],{}}}"#, chat_tail(c)))
    } else {
        let rest = r#"","index":0,"logprobs":null,"finish_reason":null}]"#;
        (r#"{"choices":[{"text":""#, format!(r#"{rest},{},"id":"{}"}}"#, text_tail(c), c.id()))
    };
    Frame { before: format!("data: {before}"), after: format!("{after}\n\n"), number: None }
}

/// `timings` are always in the last event; `usage` of a chat needs `include_usage`.
pub(super) fn last_events(c: &Completion) -> Vec<String> {
    let timings = timings(c);
    if !is_chat(c) {
        return vec![format!(
            r#"{{"choices":[{{"text":"","index":0,"logprobs":null,"finish_reason":"{}"}}],{},{},"id":"{}",{timings}}}"#,
            c.finish(),
            text_tail(c),
            usage(c),
            c.id(),
        )];
    }
    let finish = format!(r#"{{"finish_reason":"{}","index":0,"delta":{{}}}}"#, c.finish());
    if c.include_usage {
        vec![chat_chunk(c, &finish, ""), chat_chunk(c, "", &format!(",{},{timings}", usage(c)))]
    } else {
        vec![chat_chunk(c, &finish, &format!(",{timings}"))]
    }
}

fn chat_chunk(c: &Completion, choice: &str, more: &str) -> String {
    format!(r#"{{"choices":[{choice}],{}{more}}}"#, chat_tail(c))
}

fn chat_tail(c: &Completion) -> String {
    format!(
        r#""created":{},"id":"{}","model":{},"system_fingerprint":{},"object":"chat.completion.chunk""#,
        c.created,
        c.id(),
        quoted(&c.model),
        quoted(&c.fingerprint)
    )
}

fn text_tail(c: &Completion) -> String {
    format!(r#"{},"object":"text_completion""#, origin(c))
}

fn origin(c: &Completion) -> String {
    format!(r#""created":{},"model":{},"system_fingerprint":{}"#, c.created, quoted(&c.model), quoted(&c.fingerprint))
}

fn usage(c: &Completion) -> String {
    format!(
        r#""usage":{{"completion_tokens":{},"prompt_tokens":{},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":{}}}}}"#,
        c.output_tokens,
        c.prompt_tokens,
        c.prompt_tokens + c.output_tokens,
        c.cached_tokens
    )
}

/// Prompt tokens that were not cached.
pub(super) fn computed(c: &Completion) -> usize {
    c.prompt_tokens - c.cached_tokens
}

fn is_chat(c: &Completion) -> bool {
    c.api == Api::Chat
}

pub(super) fn timings(c: &Completion) -> String {
    let computed = computed(c);
    let (prompt_ms, output_ms) = (c.prompt_time.as_secs_f64() * 1e3, c.output_time.as_secs_f64() * 1e3);
    let (prompt_each, prompt_rate) = pace(computed, prompt_ms);
    let (output_each, output_rate) = pace(c.output_tokens, output_ms);
    format!(
        r#""timings":{{"cache_n":{},"prompt_n":{computed},"prompt_ms":{prompt_ms:?},"prompt_per_token_ms":{prompt_each:?},"prompt_per_second":{prompt_rate:?},"predicted_n":{},"predicted_ms":{output_ms:?},"predicted_per_token_ms":{output_each:?},"predicted_per_second":{output_rate:?}}}"#,
        c.cached_tokens, c.output_tokens,
    )
}

/// Milliseconds per token and tokens per second; 0 where there is nothing to divide by.
fn pace(tokens: usize, ms: f64) -> (f64, f64) {
    let tokens = tokens as f64;
    if tokens > 0.0 && ms > 0.0 { (ms / tokens, 1e3 * tokens / ms) } else { (0.0, 0.0) }
}

fn models(shared: &Shared) -> String {
    let model = quoted(&shared.config.model);
    format!(
        r#"{{"models":[{{"name":{model},"model":{model},"type":"model","capabilities":["completion"]}}],"object":"list","data":[{{"id":{model},"aliases":[{model}],"tags":[],"object":"model","created":0,"owned_by":"llamacpp","meta":{{"n_ctx_train":131072}}}}]}}"#
    )
}

fn slots(shared: &Shared) -> String {
    let busy = shared.engine.processing();
    let slot = |id: usize| format!(r#"{{"id":{id},"n_ctx":131072,"speculative":false,"is_processing":{}}}"#, id < busy);
    let slots: Vec<String> = (0..shared.config.slots.max(1)).map(slot).collect();
    format!("[{}]", slots.join(","))
}

fn props(shared: &Shared) -> String {
    let model = quoted(&shared.config.model);
    format!(
        r#"{{"default_generation_settings":{{"params":{{}},"n_ctx":131072}},"total_slots":{},"model_alias":{model},"model_path":{model},"modalities":{{"vision":false,"audio":false}},"endpoint_slots":{},"endpoint_props":false,"endpoint_metrics":{},"build_info":"ingle-sim","is_sleeping":false}}"#,
        shared.config.slots.max(1),
        shared.config.slots_endpoint,
        shared.config.metrics
    )
}

fn metrics(shared: &Shared) -> String {
    let counters = shared.engine.counters();
    let figures: [(&str, &str, &str, f64); 7] = [
        (
            "prompt_tokens_total",
            "counter",
            "Number of prompt tokens processed, excluding cached tokens",
            (counters.prompt_tokens - counters.cached_tokens) as f64,
        ),
        (
            "prompt_tokens_cached_total",
            "counter",
            "Number of prompt tokens reused from the cache",
            counters.cached_tokens as f64,
        ),
        ("prompt_seconds_total", "counter", "Total time spent processing prompts", counters.prompt_seconds),
        ("tokens_predicted_total", "counter", "Number of generation tokens processed", counters.output_tokens as f64),
        ("tokens_predicted_seconds_total", "counter", "Total time spent generating tokens", counters.output_seconds),
        ("requests_processing", "gauge", "Number of requests processing", shared.engine.processing() as f64),
        ("requests_deferred", "gauge", "Number of requests deferred", shared.engine.deferred() as f64),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in figures {
        // Writing to a String cannot fail.
        let _ = write!(text, "# HELP llamacpp:{name} {help}\n# TYPE llamacpp:{name} {kind}\nllamacpp:{name} {value}\n");
    }
    text
}
