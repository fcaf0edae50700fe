//! Whether an event of an inference server has output.
//!
//! It reads the shapes of Chat Completions, Completions, Responses, Anthropic's Messages and llama-server's `/completion`. An
//! event of an unknown kind is output: a stream must never wait for something that does not come.

use serde_json::{Map, Value};

use super::error::ErrorEvent;
use super::reader::Event;

/// What an event is to a gateway that waits for the first output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has output, ends the stream, or is of an unknown kind.
    Output,
    /// It announces output, or keeps the connection alive.
    Empty,
    /// It reports how far the prompt was processed.
    Progress,
    /// The server failed.
    Error(ErrorEvent),
}

/// Reads an event.
#[must_use]
pub fn kind(event: &Event) -> Kind {
    if event.data.iter().all(u8::is_ascii_whitespace) {
        return Kind::Empty;
    }
    let Ok(Value::Object(data)) = serde_json::from_slice(&event.data) else {
        return match event.is_error || event.name == b"error" {
            true => Kind::Error(ErrorEvent::from_text(&event.data)),
            false => Kind::Output,
        };
    };
    if let Some(error) = ErrorEvent::find(event, &data) {
        return Kind::Error(error);
    }
    let named = std::str::from_utf8(&event.name).unwrap_or_default();
    match data.get("type").and_then(Value::as_str).unwrap_or(named) {
        "" => untyped(&data),
        name => typed(name, &data),
    }
}

/// Chat Completions, Completions, llama-server's `/completion`.
fn untyped(data: &Map<String, Value>) -> Kind {
    let is_over = data.get("stop") == Some(&Value::Bool(true));
    let has_output = match data.get("choices").and_then(Value::as_array) {
        // The last event of a stream with `include_usage` has no choice.
        Some(choices) if choices.is_empty() => !is_empty(data.get("usage")) || data.get("prompt_progress").is_none(),
        Some(choices) => choices.iter().any(choice_has_output),
        None => match data.get("content") {
            Some(content) => is_over || !is_empty(Some(content)),
            None => data.get("prompt_progress").is_none(),
        },
    };
    match has_output {
        true => Kind::Output,
        false if data.get("prompt_progress").is_some_and(|progress| !progress.is_null()) => Kind::Progress,
        false => Kind::Empty,
    }
}

/// Anything but a role is output: text, reasoning, tool calls, audio, a refusal, the reason for the end.
fn choice_has_output(choice: &Value) -> bool {
    let has = |field: &str| !is_empty(choice.get(field));
    let delta = choice.get("delta").or_else(|| choice.get("message")).and_then(Value::as_object);
    let in_delta =
        delta.is_some_and(|delta| delta.iter().any(|(name, value)| name != "role" && !is_empty(Some(value))));
    in_delta || has("text") || has("finish_reason")
}

/// Anthropic's Messages and Responses, whose events have types.
fn typed(name: &str, data: &Map<String, Value>) -> Kind {
    let empty = match name {
        "ping" | "message_start" | "content_block_stop" => true,
        "content_block_start" => data.get("content_block").is_some_and(is_announced),
        "content_block_delta" => is_empty_delta(data.get("delta")),
        "response.created" | "response.queued" | "response.in_progress" => true,
        // Items and parts are announced before their content.
        name if name.starts_with("response.") && name.ends_with(".added") => true,
        name if name.starts_with("response.") && name.ends_with(".delta") => is_empty(data.get("delta")),
        _ => false,
    };
    if empty { Kind::Empty } else { Kind::Output }
}

/// Whether a block of content starts without content. A tool use is output.
fn is_announced(block: &Value) -> bool {
    let kind = block.get("type").and_then(Value::as_str).unwrap_or_default();
    matches!(kind, "text" | "thinking") && is_empty(block.get("text")) && is_empty(block.get("thinking"))
}

fn is_empty_delta(delta: Option<&Value>) -> bool {
    let fields = delta.and_then(Value::as_object);
    fields.is_some_and(|fields| fields.iter().all(|(name, value)| name == "type" || is_empty(Some(value))))
}

/// Whether a value has no content.
pub(super) fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Bool(_) | Value::Number(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(name: &str, data: &str) -> Kind {
        kind(&Event { name: name.into(), data: data.into(), is_error: false })
    }

    /// Shapes as llama-server of 2026-10 and vLLM 0.32 send them.
    #[test]
    fn events_without_output() {
        for (name, data) in [
            ("", ""),
            ("", " "),
            (
                "",
                r#"{"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"object":"chat.completion.chunk"}"#,
            ),
            (
                "",
                r#"{"choices":[{"delta":{"role":"assistant","content":"","reasoning_content":null,"tool_calls":[]}}],"usage":{"prompt_tokens":5}}"#,
            ),
            ("", r#"{"choices":[{"text":"","finish_reason":null}]}"#),
            ("", r#"{"content":"","stop":false}"#),
            ("ping", r#"{"type":"ping"}"#),
            ("ping", "{}"),
            (
                "message_start",
                r#"{"type":"message_start","message":{"role":"assistant","content":[],"usage":{"input_tokens":3}}}"#,
            ),
            (
                "content_block_start",
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            ),
            (
                "content_block_start",
                r#"{"type":"content_block_start","content_block":{"type":"thinking","thinking":""}}"#,
            ),
            ("content_block_delta", r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":""}}"#),
            ("response.created", r#"{"type":"response.created","response":{"status":"in_progress","error":null}}"#),
            ("response.in_progress", "{}"),
            ("", r#"{"type":"response.output_item.added","item":{"type":"message","content":[]}}"#),
            ("", r#"{"type":"response.content_part.added","part":{"type":"output_text","text":""}}"#),
        ] {
            assert_eq!(kind_of(name, data), Kind::Empty, "{name} {data}");
        }
    }

    #[test]
    fn events_with_output() {
        for (name, data) in [
            ("", "[DONE]"),
            ("", "text"),
            ("", "7"),
            ("", r#"{"choices":[{"delta":{"content":" "}}]}"#),
            ("", r#"{"choices":[{"delta":{"role":"assistant","content":"x"}}],"error":null}"#),
            ("", r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#),
            ("", r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#),
            ("", r#"{"choices":[{"delta":{"audio":{"data":"x"}}}]}"#),
            ("", r#"{"choices":[{"delta":{"refusal":"no"}}]}"#),
            ("", r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#),
            ("", r#"{"choices":[],"usage":{"prompt_tokens":5}}"#),
            ("", r#"{"choices":[{"text":"x"}]}"#),
            ("", r#"{"content":"x","stop":false}"#),
            ("", r#"{"content":"","stop":true}"#),
            ("", r#"{"unknown":1}"#),
            ("unknown", r#"{"a":1}"#),
            (
                "content_block_start",
                r#"{"type":"content_block_start","content_block":{"type":"tool_use","id":"x","name":"f","input":{}}}"#,
            ),
            ("content_block_delta", r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"x"}}"#),
            (
                "message_delta",
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}"#,
            ),
            ("message_stop", r#"{"type":"message_stop"}"#),
            ("", r#"{"type":"response.output_text.delta","delta":"x"}"#),
            ("", r#"{"type":"response.completed","response":{"error":null}}"#),
        ] {
            assert_eq!(kind_of(name, data), Kind::Output, "{name} {data}");
        }
    }

    #[test]
    fn progress_of_the_prompt_is_neither() {
        let data = r#"{"choices":[{"delta":{"role":"assistant","content":null}}],"prompt_progress":{"total":9,"processed":3}}"#;
        assert_eq!(kind_of("", data), Kind::Progress);
        assert_eq!(kind_of("", r#"{"choices":[],"prompt_progress":{"total":9}}"#), Kind::Progress);
    }
}
