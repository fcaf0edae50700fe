//! Prompt and cached tokens, as backends report them at the end of a response.
//!
//! A stream is never held back for this: its last kilobytes are copied while it passes, and read when it is over.
//! That is enough for every server we know: OpenAI's `usage` object is the last thing of a JSON body or the last
//! event of a stream, and llama-server adds `timings` beside it.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// What a backend said of one prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Those of them that were in the KV cache; at most `prompt`. `None` if there is no such figure: a vLLM without
    /// `--enable-prompt-tokens-details` never gives one, and one with it leaves it out where it is 0.
    pub cached: Option<u64>,
}

/// Prompt tokens of some requests, as they are counted: what a backend does not call cached was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// All of them.
    pub prompt: u64,
    /// Those that were in the KV cache.
    pub cached: u64,
}

impl Usage {
    /// How it is counted.
    #[must_use]
    pub fn tokens(self) -> Tokens {
        Tokens { prompt: self.prompt, cached: self.cached.unwrap_or(0) }
    }
}

impl std::ops::AddAssign for Tokens {
    fn add_assign(&mut self, other: Tokens) {
        self.prompt += other.prompt;
        self.cached += other.cached;
    }
}

/// The last bytes of a response, at least [`KEPT`] of them once so many have passed.
#[derive(Debug, Default)]
pub struct Tail(Vec<u8>);

impl Tail {
    /// Notes the next piece of the response.
    pub fn push(&mut self, piece: &[u8]) {
        if piece.len() >= KEPT {
            self.0.clear();
            self.0.extend_from_slice(&piece[piece.len() - KEPT..]);
            return;
        }
        if self.0.len() + piece.len() > 2 * KEPT {
            self.0.drain(..self.0.len() - KEPT);
        }
        self.0.extend_from_slice(piece);
    }

    /// The usage figures in the last [`KEPT`] bytes, in whatever pieces they came.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        read(&self.0[self.0.len().saturating_sub(KEPT)..])
    }
}

/// How many bytes of the end are looked at. The largest usage event seen of llama-server or vLLM has about 900.
pub const KEPT: usize = 4096;

/// Reads the last usage figures in a piece of JSON or of an event stream.
///
/// It looks for keys, not for structure: a quoted key inside a string would have its quotes escaped, so a chat about
/// `"prompt_tokens": 7` is not mistaken for usage. Figures are whole numbers; one that `text` ends in may go on, and is none.
#[must_use]
pub fn read(text: &[u8]) -> Option<Usage> {
    let keys = &*KEYS;
    let number = |key: &Finder<'_>| last_number(text, key);
    let computed_and_cached = || Some((number(&keys.prompt_n)?, number(&keys.cache_n)?));
    let prompt = number(&keys.prompt_tokens).or_else(|| number(&keys.input_tokens));
    let cached = number(&keys.cached_tokens);
    let (prompt, cached) = match (prompt, cached) {
        (Some(prompt), Some(cached)) => (prompt, Some(cached)),
        (Some(prompt), None) => (prompt, computed_and_cached().map(|(_, cached)| cached)),
        (None, _) => computed_and_cached().map(|(computed, cached)| (computed.saturating_add(cached), Some(cached)))?,
    };
    Some(Usage { prompt, cached: cached.map(|cached| cached.min(prompt)) })
}

/// Prepared searches: forward ones, which use SIMD. Preparing them costs more than the search.
struct Keys {
    prompt_tokens: Finder<'static>,
    input_tokens: Finder<'static>,
    cached_tokens: Finder<'static>,
    prompt_n: Finder<'static>,
    cache_n: Finder<'static>,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys {
    prompt_tokens: Finder::new("\"prompt_tokens\""),
    input_tokens: Finder::new("\"input_tokens\""),
    cached_tokens: Finder::new("\"cached_tokens\""),
    prompt_n: Finder::new("\"prompt_n\""),
    cache_n: Finder::new("\"cache_n\""),
});

/// The number after the last `key` (found with its quotes) that is a key of an object.
fn last_number(text: &[u8], key: &Finder<'_>) -> Option<u64> {
    let numbers = key.find_iter(text).filter_map(|at| {
        // Where `text` begins, the backslash may be what was cut off. No JSON begins with a key.
        let inside_a_string = at == 0 || text[at - 1] == b'\\';
        if inside_a_string { None } else { number_of(&text[at + key.needle().len()..]) }
    });
    numbers.last()
}

/// The number in `: 123,`, if that is how `text` begins.
fn number_of(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let digits = text.iter().position(|b| !b.is_ascii_digit())?;
    let (number, rest) = text.split_at(digits);
    if !matches!(rest[0], b',' | b'}' | b']') && !rest[0].is_ascii_whitespace() {
        return None;
    }
    std::str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LLAMA_STREAM: &str = concat!(
        r#"data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],"created":1,"id":"x","model":"m","#,
        r#""object":"chat.completion.chunk","usage":{"completion_tokens":8,"prompt_tokens":3020,"total_tokens":3028,"#,
        r#""prompt_tokens_details":{"cached_tokens":2956}},"timings":{"cache_n":2956,"prompt_n":64,"prompt_ms":7.1}}"#,
        "\n\ndata: [DONE]\n\n"
    );

    #[test]
    fn both_servers_json_and_streams() {
        let read = |text: &str| read(text.as_bytes()).map(|usage| (usage.prompt, usage.cached));
        assert_eq!(read(LLAMA_STREAM), Some((3020, Some(2956))));
        let timings_only = r#"data: {"choices":[],"timings":{"cache_n":2956,"prompt_n":64,"predicted_n":8}}"#;
        assert_eq!(read(timings_only), Some((3020, Some(2956))));
        let vllm = r#"{"usage": {"prompt_tokens": 3018, "total_tokens": 3020, "prompt_tokens_details": {"cached_tokens": 2944}}}"#;
        assert_eq!(read(vllm), Some((3018, Some(2944))));
        let vllm_without_flag = r#"{"usage":{"prompt_tokens":3018,"total_tokens":3020,"prompt_tokens_details":null}}"#;
        assert_eq!(read(vllm_without_flag), Some((3018, None)));
        let vllm_with_nothing_cached = r#"{"usage":{"prompt_tokens":18,"total_tokens":20,"completion_tokens":2}}"#;
        assert_eq!(read(vllm_with_nothing_cached), Some((18, None)), "vLLM leaves the figure out where it is 0");
        let llama_with_nothing_cached = r#"{"usage":{"prompt_tokens":18},"timings":{"cache_n":0,"prompt_n":18}}"#;
        assert_eq!(read(llama_with_nothing_cached), Some((18, Some(0))));
        let nonsense = r#"{"usage":{"prompt_tokens":18,"prompt_tokens_details":{"cached_tokens":19}}}"#;
        assert_eq!(read(nonsense), Some((18, Some(18))));
        let responses =
            r#"{"usage":{"input_tokens":50,"input_tokens_details":{"cached_tokens":48},"output_tokens":2}}"#;
        assert_eq!(read(responses), Some((50, Some(48))));
        assert_eq!(read("data: {\"choices\":[]}\n\ndata: [DONE]\n\n"), None);
    }

    #[test]
    fn a_chat_about_usage_is_not_usage() {
        assert_eq!(read(br#"{"content":"try {\"prompt_tokens\": 7, \"cached_tokens\": 7}"}"#), None);
        assert_eq!(
            read(br#"{"content":"\"prompt_tokens\":7","usage":{"prompt_tokens":9}}"#).map(|u| u.prompt),
            Some(9)
        );
    }

    /// A backend that dies within its answer.
    #[test]
    fn half_a_number_is_none() {
        assert_eq!(read(br#"{"usage":{"prompt_tokens":30"#), None, "it may have been 3020");
        assert_eq!(read(br#"{"usage":{"prompt_tokens":3020,"prompt"#).map(|usage| usage.prompt), Some(3020));
        assert_eq!(read(br#"{"usage":{"prompt_tokens":30.5}}"#), None, "no number of tokens");
    }

    #[test]
    fn the_figures_depend_on_the_last_bytes_not_on_the_pieces_in_which_they_came() {
        let text = format!("{{\"prompt_tokens\":5}}{}", " ".repeat(KEPT));
        let (mut whole, mut pieces) = (Tail::default(), Tail::default());
        whole.push(text.as_bytes());
        text.as_bytes().chunks(100).for_each(|piece| pieces.push(piece));
        assert_eq!((whole.usage(), pieces.usage()), (None, None));
        // What is left of `\"prompt_tokens": 7` when the backslash is just beyond.
        let cut = format!("\"prompt_tokens\": 7,{}", " ".repeat(KEPT - 19));
        assert_eq!((cut.len(), read(cut.as_bytes())), (KEPT, None));
    }

    #[test]
    fn running_figures_count_once_the_last_ones() {
        let running = br#"data: {"usage":{"prompt_tokens":5}} data: {"usage":{"prompt_tokens":6}}"#;
        assert_eq!(read(running), Some(Usage { prompt: 6, cached: None }));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(noise in "[a-z\"{}:,\\\\0-9]{0,9000}", cuts in prop::collection::vec(1usize..600, 1..80)) {
            let text = format!("{noise}\n\n{LLAMA_STREAM}");
            let mut tail = Tail::default();
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                tail.push(piece);
                rest = after;
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(tail.usage(), Some(Usage { prompt: 3020, cached: Some(2956) }));
            prop_assert!(tail.0.len() <= 2 * KEPT);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let _ = read(&bytes);
        }
    }
}
