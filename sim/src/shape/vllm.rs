//! vLLM's answers, as its OpenAI server of 2026 gives them.

use std::fmt::Write as _;

use super::{Completion, Frame, quoted};
use crate::api::Api;
use crate::routes::{Answer, COUNT_TOKENS};
use crate::server::Shared;

/// The endpoints that answer at once; `None` is 404.
pub(crate) fn endpoint(shared: &Shared, method: &str, path: &str) -> Option<Answer> {
    let (allowed, answer): (_, fn(&Shared) -> Answer) = match path {
        "/health" => ("GET", |_| Answer { code: 200, headers: Vec::new(), body: String::new() }),
        "/version" => ("GET", |_| Answer::json(r#"{"version":"0.32.0"}"#.into())),
        "/v1/models" => ("GET", |shared| Answer::json(models(shared))),
        "/metrics" => ("GET", |shared| Answer::text("text/plain; version=0.0.4; charset=utf-8", metrics(shared))),
        path if Api::of(path).is_some() || path == COUNT_TOKENS => ("POST", |_| Answer::json(String::new())),
        _ => return None,
    };
    if method == allowed {
        return Some(answer(shared));
    }
    let mut refused = Answer::error(405, r#"{"detail":"Method Not Allowed"}"#);
    refused.headers.push(("allow".into(), allowed.into()));
    Some(refused)
}

pub(super) fn plain(c: &Completion, text: &str) -> String {
    let (text, finish) = (quoted(text), c.finish());
    let choice = if is_chat(c) {
        format!(
            r#"{{"index":0,"message":{{"role":"assistant","content":{text},"refusal":null,"annotations":null,"audio":null,"function_call":null,"tool_calls":[],"reasoning_content":null}},"logprobs":null,"finish_reason":"{finish}","stop_reason":null,"token_ids":null}}"#
        )
    } else {
        format!(
            r#"{{"index":0,"text":{text},"logprobs":null,"finish_reason":"{finish}","stop_reason":null,"token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null}}"#
        )
    };
    format!(
        r#"{{{},"choices":[{choice}],"service_tier":null,"system_fingerprint":{},"usage":{},"kv_transfer_params":null}}"#,
        origin(c, if is_chat(c) { "chat.completion" } else { "text_completion" }),
        quoted(&c.fingerprint),
        usage(c, true)
    )
}

/// The first event of a chat.
pub(super) fn role_event(c: &Completion) -> String {
    format!(
        r#"{{{},"choices":[{{"index":0,"delta":{{"role":"assistant","content":""}},"logprobs":null,"finish_reason":null}}],"system_fingerprint":{}}}"#,
        chunk_origin(c),
        quoted(&c.fingerprint)
    )
}

pub(super) fn token_frame(c: &Completion) -> Frame {
    let origin = chunk_origin(c);
    let fingerprint = quoted(&c.fingerprint);
    let (choice, rest) = if is_chat(c) {
        (r#""delta":{"content":""#, r#""},"logprobs":null,"finish_reason":null,"token_ids":null"#)
    } else {
        (r#""text":""#, r#"","logprobs":null,"finish_reason":null,"stop_reason":null"#)
    };
    Frame {
        before: format!(r#"data: {{{origin},"choices":[{{"index":0,{choice}"#),
        after: format!("{rest}}}],\"system_fingerprint\":{fingerprint}}}\n\n"),
        number: None,
    }
}

/// Usage comes in a last event with empty `choices`, and only with `include_usage`.
pub(super) fn last_events(c: &Completion) -> Vec<String> {
    let origin = chunk_origin(c);
    let fingerprint = quoted(&c.fingerprint);
    let text = if is_chat(c) { r#""delta":{"content":""}"# } else { r#""text":"""# };
    let mut events = vec![format!(
        r#"{{{origin},"choices":[{{"index":0,{text},"logprobs":null,"finish_reason":"{}","stop_reason":null}}],"system_fingerprint":{fingerprint}}}"#,
        c.finish()
    )];
    if c.include_usage {
        events.push(format!(
            r#"{{{origin},"choices":[],"system_fingerprint":{fingerprint},"usage":{}}}"#,
            usage(c, false)
        ));
    }
    events
}

fn chunk_origin(c: &Completion) -> String {
    origin(c, if is_chat(c) { "chat.completion.chunk" } else { "text_completion" })
}

fn origin(c: &Completion, object: &str) -> String {
    format!(r#""id":"{}","object":"{object}","created":{},"model":{}"#, c.id(), c.created, quoted(&c.model))
}

fn is_chat(c: &Completion) -> bool {
    c.api == Api::Chat
}

/// In plain answers unknown details are `null`, in streams they are left out.
fn usage(c: &Completion, plain: bool) -> String {
    let details = match (c.reports_cached, plain) {
        (true, _) => format!(r#","prompt_tokens_details":{{"cached_tokens":{}}}"#, c.cached_tokens),
        (false, true) => r#","prompt_tokens_details":null"#.into(),
        (false, false) => String::new(),
    };
    format!(
        r#"{{"prompt_tokens":{},"total_tokens":{},"completion_tokens":{}{details}}}"#,
        c.prompt_tokens,
        c.prompt_tokens + c.output_tokens,
        c.output_tokens
    )
}

fn models(shared: &Shared) -> String {
    let model = quoted(&shared.config.model);
    format!(
        r#"{{"object":"list","data":[{{"id":{model},"object":"model","created":0,"owned_by":"vllm","root":{model},"parent":null,"max_model_len":131072,"permission":[]}}]}}"#
    )
}

fn metrics(shared: &Shared) -> String {
    let counters = shared.engine.counters();
    // Blocks that only the prefix cache has are free: a real one counts those of requests.
    let used = shared.engine.held_tokens() as f64 / shared.config.cache_tokens.max(1) as f64;
    let figures: [(&str, &str, f64); 8] = [
        ("num_requests_running", "gauge", shared.engine.processing() as f64),
        ("num_requests_waiting", "gauge", shared.engine.deferred() as f64),
        ("kv_cache_usage_perc", "gauge", used.min(1.0)),
        ("prefix_cache_queries_total", "counter", counters.prompt_tokens as f64),
        ("prefix_cache_hits_total", "counter", counters.cached_tokens as f64),
        ("prompt_tokens_total", "counter", counters.prompt_tokens as f64),
        ("generation_tokens_total", "counter", counters.output_tokens as f64),
        ("request_success_total", "counter", counters.requests as f64),
    ];
    let model = quoted(&shared.config.model);
    let mut text = String::new();
    for (name, kind, value) in figures {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "# HELP vllm:{name} simulated\n# TYPE vllm:{name} {kind}\nvllm:{name}{{engine=\"0\",model_name={model}}} {value:?}\n"
        );
    }
    text
}
