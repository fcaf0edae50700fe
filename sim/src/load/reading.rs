//! Reading answers of all APIs: usage figures and text, from JSON bodies and from event streams.

use serde::Deserialize;
use serde_json::Value;

/// What an answer reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The generated text.
    pub(crate) text: String,
    pub(crate) prompt_tokens: Option<u64>,
    pub(crate) cached_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    /// Whether output has come: text or reasoning, in an event or a body.
    pub(crate) has_output: bool,
    /// Whether the last event has come: `[DONE]`, `message_stop` or `response.completed`.
    pub(crate) is_done: bool,
    /// An error came instead of, or in the middle of, the answer.
    pub(crate) error: bool,
    /// Anthropic's input, which does not include what was cached.
    pub(crate) uncached: Option<u64>,
}

impl Reading {
    /// Takes one JSON object; `false` if it is none.
    pub(crate) fn take_json(&mut self, json: &[u8]) -> bool {
        let Ok(body) = serde_json::from_slice::<Body>(json) else { return false };
        self.error |= body.error.is_some();
        for choice in body.choices {
            let parts = choice.message.or(choice.delta).unwrap_or_default();
            // A thinking model's first token is reasoning: it counts as a token, but is not part of the history.
            self.has_output |= parts.reasoning_content.or(parts.reasoning).is_some_and(|text| !text.is_empty());
            self.take_text(&parts.content.or(choice.text).unwrap_or_default());
        }
        if let Some(usage) = body.usage {
            self.take_usage(&usage);
        }
        if let Some(timings) = body.timings
            && let Some(cached) = timings.cache_n
        {
            self.cached_tokens = self.cached_tokens.or(Some(cached));
            self.prompt_tokens = self.prompt_tokens.or(timings.prompt_n.map(|computed| computed + cached));
        }
        match body.kind.or(body.object).as_deref() {
            Some("response") => self.take_blocks(&body.output),
            Some("message") => self.take_blocks(&body.content),
            Some(name) => self.take_typed(name, &body.delta, &body.message, &body.response),
            None => {}
        }
        true
    }

    /// Takes an event of Messages or Responses.
    fn take_typed(&mut self, name: &str, delta: &Value, message: &Value, response: &Value) {
        match name {
            "content_block_delta" => {
                self.has_output |= delta["thinking"].as_str().is_some_and(|text| !text.is_empty());
                self.take_text(delta["text"].as_str().unwrap_or_default());
            }
            "response.output_text.delta" => self.take_text(delta.as_str().unwrap_or_default()),
            "message_start" => self.take_usage_of(message),
            "message_stop" => self.is_done = true,
            "response.completed" => {
                self.take_usage_of(response);
                self.is_done = true;
            }
            "error" | "response.failed" | "response.error" => self.error = true,
            _ => {}
        }
    }

    /// Takes the text of blocks: `[{"text":..}]` or `[{"content":[{"text":..}]}]`.
    fn take_blocks(&mut self, blocks: &Value) {
        for block in blocks.as_array().into_iter().flatten() {
            self.take_text(block["text"].as_str().unwrap_or_default());
            self.take_blocks(&block["content"]);
        }
    }

    fn take_text(&mut self, text: &str) {
        self.has_output |= !text.is_empty();
        self.text.push_str(text);
    }

    fn take_usage_of(&mut self, value: &Value) {
        if let Ok(usage) = Usage::deserialize(&value["usage"]) {
            self.take_usage(&usage);
        }
    }

    fn take_usage(&mut self, usage: &Usage) {
        let details = usage.prompt_tokens_details.as_ref().or(usage.input_tokens_details.as_ref());
        self.output_tokens = usage.completion_tokens.or(usage.output_tokens).or(self.output_tokens);
        self.cached_tokens =
            usage.cache_read_input_tokens.or(details.and_then(|details| details.cached_tokens)).or(self.cached_tokens);
        if usage.cache_read_input_tokens.is_some() {
            self.uncached = usage.input_tokens.or(self.uncached);
        }
        // Only Anthropic's shape counts the input without what was cached.
        let anthropic = self.uncached.map(|uncached| uncached + self.cached_tokens.unwrap_or(0));
        self.prompt_tokens = usage.prompt_tokens.or(anthropic).or(usage.input_tokens).or(self.prompt_tokens);
    }
}

/// Cuts an event stream into `data` values, whatever pieces it arrives in.
#[derive(Debug, Default)]
pub(crate) struct EventStream {
    line: Vec<u8>,
}

impl EventStream {
    /// Takes bytes; comments and lines without data are skipped.
    pub(crate) fn push(&mut self, bytes: &[u8], reading: &mut Reading) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                take_line(&self.line, reading);
                self.line.clear();
            }
        }
    }
}

fn take_line(line: &[u8], reading: &mut Reading) {
    let Some(data) = line.strip_prefix(b"data:") else { return };
    let data = data.trim_ascii();
    if data == b"[DONE]" {
        reading.is_done = true;
    } else {
        reading.error |= !reading.take_json(data);
    }
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    timings: Option<Timings>,
    error: Option<Value>,
    #[serde(rename = "type")]
    kind: Option<String>,
    object: Option<String>,
    #[serde(default)]
    delta: Value,
    #[serde(default)]
    message: Value,
    #[serde(default)]
    response: Value,
    #[serde(default)]
    content: Value,
    #[serde(default)]
    output: Value,
}

#[derive(Deserialize)]
struct Choice {
    message: Option<Parts>,
    delta: Option<Parts>,
    text: Option<String>,
}

#[derive(Default, Deserialize)]
struct Parts {
    content: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<Details>,
    cache_read_input_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Timings {
    cache_n: Option<u64>,
    prompt_n: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = ": ping\n\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"ab\"}}]}\r\n\r\n\
        data: {\"choices\":[],\"timings\":{\"cache_n\":40,\"prompt_n\":2}}\n\ndata: [DONE]\n\n";
    const MESSAGES: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"cache_read_input_tokens\":40,\"input_tokens\":2,\"output_tokens\":0}}}\n\n\
        event: ping\ndata: {\"type\":\"ping\"}\n\n\
        data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"ab\"}}\n\n\
        data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":9}}\n\ndata: {\"type\":\"message_stop\"}\n\n";
    const RESPONSES: &str = "data: {\"type\":\"response.created\",\"response\":{\"usage\":null}}\n\n\
        data: {\"type\":\"response.output_text.delta\",\"delta\":\"ab\"}\n\n\
        data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":42,\"input_tokens_details\":{\"cached_tokens\":40},\"output_tokens\":9}}}\n\n";

    fn read(text: &str) -> Reading {
        let (mut events, mut reading) = (EventStream::default(), Reading::default());
        events.push(text.as_bytes(), &mut reading);
        reading
    }

    #[test]
    fn stream_reads_the_same_in_any_pieces() {
        for stream in [CHAT, MESSAGES, RESPONSES] {
            for size in 1..stream.len() {
                let (mut events, mut reading) = (EventStream::default(), Reading::default());
                stream.as_bytes().chunks(size).for_each(|piece| events.push(piece, &mut reading));
                assert_eq!(reading.text, "ab");
                assert_eq!((reading.prompt_tokens, reading.cached_tokens), (Some(42), Some(40)), "{stream}");
                assert!(reading.is_done && reading.has_output && !reading.error);
            }
        }
    }

    #[test]
    fn comments_and_skeleton_events_are_no_output() {
        for stream in [CHAT, MESSAGES, RESPONSES] {
            let before = &stream[..stream.find("ab").unwrap()];
            let whole = before.rfind("data:").unwrap();
            assert!(!read(&before[..whole]).has_output, "{before}");
        }
    }

    #[test]
    fn vllm_counts_the_whole_prompt_of_messages() {
        let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":42,"output_tokens":0}}}"#;
        let delta = r#"{"type":"message_delta","usage":{"input_tokens":42,"output_tokens":9}}"#;
        let reading = read(&format!("data: {start}\n\ndata: {delta}\n\n"));
        assert_eq!((reading.prompt_tokens, reading.cached_tokens, reading.output_tokens), (Some(42), None, Some(9)));
    }

    #[test]
    fn bodies_have_text_and_figures() {
        for body in [
            r#"{"type":"message","content":[{"type":"text","text":"ab"}],"usage":{"input_tokens":2,"cache_read_input_tokens":40,"output_tokens":9}}"#,
            r#"{"object":"response","output":[{"type":"message","content":[{"text":"ab"}]}],"usage":{"input_tokens":42,"output_tokens":9}}"#,
            r#"{"object":"chat.completion","choices":[{"message":{"content":"ab"}}],"usage":{"prompt_tokens":42,"completion_tokens":9}}"#,
        ] {
            let mut reading = Reading::default();
            assert!(reading.take_json(body.as_bytes()));
            assert_eq!(
                (reading.text.as_str(), reading.prompt_tokens, reading.output_tokens),
                ("ab", Some(42), Some(9))
            );
        }
    }

    #[test]
    fn error_event_of_any_api_is_an_error() {
        for event in [
            r#"data: {"error":{"code":500}}"#,
            r#"data: {"type":"error","error":{"type":"api_error"}}"#,
            r#"data: {"type":"response.failed","response":{"error":{"code":"server_error"}}}"#,
            "data: {cut",
        ] {
            assert!(read(&format!("{event}\n\n")).error, "{event}");
        }
        assert!(!read("data: {\"error\":null,\"choices\":[]}\n\n").error);
    }
}
