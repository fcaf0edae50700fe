//! Prompt and cached tokens, as backends report them in a response.
//!
//! A stream is never held for this. While it passes, the keys `usage` and `timings` are searched for, and the objects
//! behind them are copied: one of each has about 900 bytes. So figures count wherever they stand, at the start of a stream
//! (Anthropic's `message_start`), in the last event, or before kilobytes of other fields, and a stream that waits holds
//! nothing.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::{Map, Value};

use crate::core::usage::Usage;

/// Reads the figures of one response, which comes in pieces of any size.
#[derive(Debug, Default)]
pub struct UsageReader {
    figures: Figures,
    state: State,
    /// The last bytes that were searched: a key can be cut.
    carry: Vec<u8>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Search,
    /// After a key: white space, a colon, and the brace of its object come.
    Colon,
    Brace,
    Object(Box<Object>),
}

/// An object that is copied.
#[derive(Debug, Default)]
struct Object {
    bytes: Vec<u8>,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

/// The figures so far. Later ones replace earlier ones, field by field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    prompt_tokens: Option<u64>,
    input_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    cache_read: Option<u64>,
    cache_creation: Option<u64>,
    prompt_n: Option<u64>,
    cache_n: Option<u64>,
}

impl UsageReader {
    /// Reads the next piece of the response's payload.
    pub fn push(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while !rest.is_empty() {
            rest = match &mut self.state {
                State::Search => self.search(rest),
                State::Colon | State::Brace => self.expect(rest),
                State::Object(object) => match object.take(rest) {
                    Taken::All => &[],
                    Taken::Complete(rest) => {
                        self.figures.add(&object.bytes);
                        self.state = State::Search;
                        rest
                    }
                    Taken::TooLong(rest) => {
                        self.state = State::Search;
                        rest
                    }
                },
            };
        }
    }

    /// The figures, if there are any.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.figures.usage()
    }

    /// Searches for a key. What was searched before is at hand, so a key that is cut is found.
    fn search<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let edge = bytes.len().min(LONGEST_KEY);
        let before = self.carry.len();
        self.carry.extend_from_slice(&bytes[..edge]);
        if let Some(end) = find(&self.carry).filter(|end| *end > before) {
            self.carry.clear();
            self.state = State::Colon;
            return &bytes[end - before..];
        }
        if let Some(end) = find(bytes) {
            self.carry.clear();
            self.state = State::Colon;
            return &bytes[end..];
        }
        match bytes.len() > LONGEST_KEY {
            true => {
                self.carry.clear();
                self.carry.extend_from_slice(&bytes[bytes.len() - LONGEST_KEY..]);
            }
            false => drop(self.carry.drain(..self.carry.len().saturating_sub(LONGEST_KEY))),
        }
        &[]
    }

    fn expect<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let rest = bytes.trim_ascii_start();
        let (state, used) = match (&self.state, rest.first()) {
            (_, None) => return &[],
            (State::Colon, Some(b':')) => (State::Brace, 1),
            (State::Brace, Some(b'{')) => (State::Object(Box::default()), 0),
            _ => (State::Search, 0),
        };
        self.state = state;
        &rest[used..]
    }
}

enum Taken<'b> {
    All,
    Complete(&'b [u8]),
    TooLong(&'b [u8]),
}

impl Object {
    fn take<'b>(&mut self, bytes: &'b [u8]) -> Taken<'b> {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' if !self.in_string => self.depth += 1,
                b'}' if !self.in_string => self.depth -= 1,
                _ => {}
            }
            if self.depth == 0 {
                self.bytes.extend_from_slice(&bytes[..=at]);
                return Taken::Complete(&bytes[at + 1..]);
            }
            if self.bytes.len() + at >= MAX_OBJECT {
                return Taken::TooLong(&bytes[at..]);
            }
        }
        self.bytes.extend_from_slice(bytes);
        Taken::All
    }
}

impl Figures {
    fn add(&mut self, object: &[u8]) {
        let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(object) else { return };
        let number = |name: &str| fields.get(name).and_then(Value::as_u64);
        let detail = |name: &str| fields.get(name)?.get("cached_tokens")?.as_u64();
        let cached = detail("prompt_tokens_details").or_else(|| detail("input_tokens_details"));
        // Of another API: what was taken for figures before was part of the content.
        match (number("prompt_tokens"), number("input_tokens")) {
            (Some(_), None) => (self.input_tokens, self.cache_read, self.cache_creation) = (None, None, None),
            (None, Some(_)) => self.prompt_tokens = None,
            _ => {}
        }
        for (slot, value) in [
            (&mut self.prompt_tokens, number("prompt_tokens")),
            (&mut self.input_tokens, number("input_tokens")),
            (&mut self.cached_tokens, cached),
            (&mut self.cache_read, number("cache_read_input_tokens")),
            (&mut self.cache_creation, number("cache_creation_input_tokens")),
            (&mut self.prompt_n, number("prompt_n")),
            (&mut self.cache_n, number("cache_n")),
        ] {
            *slot = value.or(*slot);
        }
    }

    fn usage(self) -> Option<Usage> {
        let of_timings = self.prompt_n.zip(self.cache_n);
        let anthropic = self.cache_read.is_some() || self.cache_creation.is_some();
        let (prompt, cached) = match (self.prompt_tokens, self.input_tokens) {
            (Some(prompt), _) => (prompt, self.cached_tokens),
            // Anthropic's input does not include what was cached.
            (None, Some(input)) if anthropic => {
                let (read, created) = (self.cache_read.unwrap_or(0), self.cache_creation.unwrap_or(0));
                (input.saturating_add(read).saturating_add(created), Some(read))
            }
            (None, Some(input)) => (input, self.cached_tokens),
            (None, None) => of_timings.map(|(computed, cached)| (computed.saturating_add(cached), Some(cached)))?,
        };
        let cached = cached.or(of_timings.map(|(_, cached)| cached));
        Some(Usage { prompt, cached: cached.map(|cached| cached.min(prompt)) })
    }
}

/// Where the first of the keys ends. Inside a string of JSON its quotes would be escaped, so a chat about `"usage"` is not
/// mistaken for usage.
fn find(bytes: &[u8]) -> Option<usize> {
    let ends = KEYS.iter().filter_map(|key| {
        let is_key = |at: &usize| *at == 0 || bytes[at - 1] != b'\\';
        key.find_iter(bytes).find(is_key).map(|at| at + key.needle().len())
    });
    ends.min()
}

/// Prepared searches, which use SIMD. Preparing them costs more than the search.
static KEYS: LazyLock<[Finder<'static>; 2]> = LazyLock::new(|| [Finder::new("\"usage\""), Finder::new("\"timings\"")]);
/// The longer key, and the byte before it.
const LONGEST_KEY: usize = 10;
/// The largest object that was seen has 900 bytes.
const MAX_OBJECT: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(text: &str) -> Option<(u64, Option<u64>)> {
        let mut whole = UsageReader::default();
        whole.push(text.as_bytes());
        let whole = whole.usage();
        for size in 1..=12 {
            let mut pieces = UsageReader::default();
            text.as_bytes().chunks(size).for_each(|piece| pieces.push(piece));
            assert_eq!(pieces.usage(), whole, "in pieces of {size}: {text}");
        }
        whole.map(|usage| (usage.prompt, usage.cached))
    }

    /// Shapes as llama-server of 2026-10 and vLLM 0.32 send them.
    #[test]
    fn chat_completions_of_both_servers() {
        let llama = concat!(
            r#"data: {"choices":[],"created":1,"usage":{"completion_tokens":8,"prompt_tokens":3020,"total_tokens":3028,"#,
            r#""prompt_tokens_details":{"cached_tokens":2956}},"timings":{"cache_n":2956,"prompt_n":64,"prompt_ms":7.1}}"#,
            "\n\ndata: [DONE]\n\n"
        );
        assert_eq!(usage(llama), Some((3020, Some(2956))));
        let timings = r#"data: {"choices":[],"timings":{"cache_n":2956,"prompt_n":64,"predicted_n":8}}"#;
        assert_eq!(usage(timings), Some((3020, Some(2956))));
        let vllm = r#"{"usage": {"prompt_tokens": 3018, "prompt_tokens_details": {"cached_tokens": 2944}}, "prompt_logprobs": null}"#;
        assert_eq!(usage(vllm), Some((3018, Some(2944))));
        assert_eq!(usage(r#"{"usage":{"prompt_tokens":3018,"prompt_tokens_details":null}}"#), Some((3018, None)));
        assert_eq!(
            usage(r#"{"usage":{"prompt_tokens":18},"timings":{"cache_n":0,"prompt_n":18}}"#),
            Some((18, Some(0)))
        );
        assert_eq!(usage("data: {\"choices\":[],\"usage\":null}\n\ndata: [DONE]\n\n"), None);
    }

    #[test]
    fn responses_include_what_was_cached() {
        let text = r#"{"type":"response.completed","response":{"usage":{"input_tokens":50,"input_tokens_details":{"cached_tokens":48},"output_tokens":2}}}"#;
        assert_eq!(usage(text), Some((50, Some(48))));
    }

    #[test]
    fn messages_are_merged_from_two_events() {
        let start = r#"data: {"type":"message_start","message":{"usage":{"input_tokens":2,"cache_read_input_tokens":442,"output_tokens":0}}}"#;
        let delta = r#"data: {"type":"message_delta","delta":{},"usage":{"output_tokens":9}}"#;
        let text = "x".repeat(10_000);
        assert_eq!(usage(&format!("{start}\n\n{text}{delta}\n\n")), Some((444, Some(442))));
        let later = r#"data: {"usage":{"input_tokens":3,"output_tokens":9,"cache_creation_input_tokens":5}}"#;
        assert_eq!(usage(&format!("{start}\n\n{later}")), Some((450, Some(442))));
        assert_eq!(usage(r#"{"usage":{"input_tokens":7,"output_tokens":1}}"#), Some((7, None)));
    }

    #[test]
    fn figures_count_wherever_they_stand() {
        let after = format!(r#"{{"usage":{{"prompt_tokens":9}},"x":"{}"}}"#, "y".repeat(20_000));
        assert_eq!(usage(&after), Some((9, None)));
        let spaced = "{\"usage\" \n:\t { \"prompt_tokens\" : 9 } }";
        assert_eq!(usage(spaced), Some((9, None)));
        let running = r#"data: {"usage":{"prompt_tokens":5}} data: {"usage":{"prompt_tokens":6}}"#;
        assert_eq!(usage(running), Some((6, None)), "the last ones");
    }

    #[test]
    fn chat_about_usage_is_not_usage() {
        assert_eq!(usage(r#"{"content":"try {\"usage\": {\"prompt_tokens\": 7}}"}"#), None);
        assert_eq!(usage(r#"{"content":"\"usage\":{","usage":{"prompt_tokens":9}}"#), Some((9, None)));
        for argument in ["prompt_tokens", "input_tokens"] {
            for own in ["prompt_tokens", "input_tokens"] {
                let text = format!(r#"{{"input":{{"usage":{{"{argument}":1}}}},"usage":{{"{own}":9}}}}"#);
                assert_eq!(usage(&text), Some((9, None)), "{text}");
            }
        }
    }

    #[test]
    fn figures_that_are_cut_or_no_numbers_do_not_count() {
        for text in [
            r#"{"usage":{"prompt_tokens":30"#,
            r#"{"usage":{"prompt_tokens":3020,"prompt"#,
            r#"{"usage":{"prompt_tokens":30.5}}"#,
            r#"{"usage":{"prompt_tokens":"30"}}"#,
            r#"{"usage":[{"prompt_tokens":30}]}"#,
            r#"{"usage":{"a":{"prompt_tokens":30}}}"#,
        ] {
            assert_eq!(usage(text), None, "{text}");
        }
        assert_eq!(
            usage(r#"{"usage":{"prompt_tokens":18,"prompt_tokens_details":{"cached_tokens":19}}}"#),
            Some((18, Some(18)))
        );
    }

    #[test]
    fn object_without_end_is_not_kept() {
        let mut reader = UsageReader::default();
        reader.push(b"\"usage\":{\"x\":\"");
        (0..100).for_each(|_| reader.push(&[b'x'; 1000]));
        assert!(matches!(reader.state, State::Search) && reader.carry.len() <= LONGEST_KEY);
        reader.push(b"\"}, \"usage\":{\"prompt_tokens\":9}}");
        assert_eq!(reader.usage().map(|usage| usage.prompt), Some(9));
    }
}
