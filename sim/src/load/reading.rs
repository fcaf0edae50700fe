//! Reading answers: usage figures and text, from JSON bodies and from event streams.

use serde::Deserialize;

/// What an answer said about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The generated text.
    pub(crate) text: String,
    pub(crate) prompt_tokens: Option<u64>,
    pub(crate) cached_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    /// Events or choices with text.
    pub(crate) tokens_seen: bool,
    /// `data: [DONE]` came.
    pub(crate) done: bool,
    /// An `error` object came instead of, or in the middle of, the answer.
    pub(crate) error: bool,
}

impl Reading {
    /// Takes in one JSON object; `false` if it is none.
    pub(crate) fn take_json(&mut self, json: &[u8]) -> bool {
        let Ok(body) = serde_json::from_slice::<Body>(json) else { return false };
        self.error |= body.error.is_some();
        for choice in body.choices {
            let parts = choice.message.or(choice.delta).unwrap_or_default();
            // A thinking model's first token is reasoning: it counts as a token, but is not part of the history.
            self.tokens_seen |= parts.reasoning_content.or(parts.reasoning).is_some_and(|text| !text.is_empty());
            let text = parts.content.or(choice.text).unwrap_or_default();
            self.tokens_seen |= !text.is_empty();
            self.text.push_str(&text);
        }
        if let Some(usage) = body.usage {
            self.prompt_tokens = usage.prompt_tokens;
            self.output_tokens = usage.completion_tokens;
            self.cached_tokens = usage.prompt_tokens_details.and_then(|details| details.cached_tokens);
        }
        if let Some(timings) = body.timings
            && let Some(cached) = timings.cache_n
        {
            self.cached_tokens = self.cached_tokens.or(Some(cached));
            self.prompt_tokens = self.prompt_tokens.or(timings.prompt_n.map(|computed| computed + cached));
        }
        true
    }
}

/// Cuts an event stream into `data` values, whatever pieces it arrives in.
#[derive(Debug, Default)]
pub(crate) struct EventStream {
    line: Vec<u8>,
}

impl EventStream {
    /// Takes in bytes; comments and empty lines are skipped.
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
        reading.done = true;
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
    error: Option<serde_json::Value>,
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

    const STREAM: &str = ": ping\n\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"ab\"}}]}\r\n\r\n\
        data: {\"choices\":[],\"timings\":{\"cache_n\":40,\"prompt_n\":2}}\n\ndata: [DONE]\n\n";

    #[test]
    fn a_stream_reads_the_same_in_any_pieces() {
        for size in 1..STREAM.len() {
            let (mut events, mut reading) = (EventStream::default(), Reading::default());
            STREAM.as_bytes().chunks(size).for_each(|piece| events.push(piece, &mut reading));
            assert_eq!(reading.text, "ab");
            assert_eq!((reading.prompt_tokens, reading.cached_tokens), (Some(42), Some(40)));
            assert!(reading.done && reading.tokens_seen && !reading.error);
        }
    }

    #[test]
    fn comments_and_the_role_are_not_tokens() {
        let (mut events, mut reading) = (EventStream::default(), Reading::default());
        let role = STREAM.find("ab").unwrap() - 30;
        events.push(&STREAM.as_bytes()[..role], &mut reading);
        assert!(!reading.tokens_seen);
    }

    #[test]
    fn an_error_in_the_stream_is_seen() {
        let (mut events, mut reading) = (EventStream::default(), Reading::default());
        events.push(b"data: {\"error\":{\"code\":500}}\n\n", &mut reading);
        assert!(reading.error);
    }
}
