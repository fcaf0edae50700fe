//! Anthropic's Messages, as a llama.cpp of 2026-10 and a vLLM of 2026 answer them.
//!
//! llama-server counts what was cached apart from `input_tokens`. vLLM counts all of the prompt there, and again in the
//! last `message_delta`.

use super::{Completion, Frame, event, llama, quoted};
use crate::config::ServerKind;

pub(super) fn plain(server: ServerKind, c: &Completion, text: &str) -> String {
    let (id, model, text, stop) = (c.id(), quoted(&c.model), quoted(text), stop_reason(c));
    let output = c.output_tokens;
    match server {
        ServerKind::LlamaServer => format!(
            r#"{{"id":"{id}","type":"message","role":"assistant","content":[{{"type":"text","text":{text}}}],"model":{model},"stop_reason":"{stop}","stop_sequence":null,"usage":{{{},"output_tokens":{output}}}}}"#,
            llama_input(c),
        ),
        ServerKind::Vllm => format!(
            r#"{{"id":"{id}","type":"message","role":"assistant","content":[{{"type":"text","text":{text}}}],"model":{model},"stop_reason":"{stop}","usage":{{"input_tokens":{},"output_tokens":{output}}}}}"#,
            c.prompt_tokens,
        ),
    }
}

/// `message_start` and `content_block_start`.
pub(super) fn opening(server: ServerKind, c: &Completion) -> String {
    let (id, model) = (c.id(), quoted(&c.model));
    let (start, block) = match server {
        ServerKind::LlamaServer => (
            format!(
                r#"{{"type":"message_start","message":{{"id":"{id}","type":"message","role":"assistant","content":[],"model":{model},"stop_reason":null,"stop_sequence":null,"usage":{{{},"output_tokens":0}}}}}}"#,
                llama_input(c)
            ),
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        ),
        ServerKind::Vllm => (
            format!(
                r#"{{"type":"message_start","message":{{"id":"{id}","content":[],"model":{model},"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":{},"output_tokens":0}}}}}}"#,
                c.prompt_tokens
            ),
            r#"{"type":"content_block_start","content_block":{"type":"text","text":""},"index":0}"#,
        ),
    };
    event("message_start", &start) + &event("content_block_start", block)
}

pub(super) fn token_frame(server: ServerKind) -> Frame {
    let (before, after) = match server {
        ServerKind::LlamaServer => {
            (r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""#, r#""}}"#)
        }
        ServerKind::Vllm => {
            (r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":""#, r#""},"index":0}"#)
        }
    };
    Frame { before: format!("event: content_block_delta\ndata: {before}"), after: format!("{after}\n\n"), number: None }
}

pub(super) fn closing(server: ServerKind, c: &Completion) -> Vec<String> {
    let (stop, output) = (stop_reason(c), c.output_tokens);
    let delta = match server {
        ServerKind::LlamaServer => format!(
            r#"{{"type":"message_delta","delta":{{"stop_reason":"{stop}","stop_sequence":null}},"usage":{{"output_tokens":{output}}}}}"#
        ),
        ServerKind::Vllm => format!(
            r#"{{"type":"message_delta","delta":{{"stop_reason":"{stop}"}},"usage":{{"input_tokens":{},"output_tokens":{output}}}}}"#,
            c.prompt_tokens
        ),
    };
    vec![
        event("content_block_stop", r#"{"type":"content_block_stop","index":0}"#),
        event("message_delta", &delta),
        event("message_stop", r#"{"type":"message_stop"}"#),
    ]
}

fn llama_input(c: &Completion) -> String {
    format!(r#""cache_read_input_tokens":{},"input_tokens":{}"#, c.cached_tokens, llama::computed(c))
}

fn stop_reason(c: &Completion) -> &'static str {
    if c.is_cut { "max_tokens" } else { "end_turn" }
}
