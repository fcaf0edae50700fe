//! What is asked, and what must be answered to it.

use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use ingle_sim::{Api, BYTES_PER_TOKEN, SimConfig, generated_text};
use serde_json::Value;

/// Prompts, and what the simulated backends say to each.
pub(crate) struct Book {
    prompts: Vec<Prompt>,
}

struct Prompt {
    content: String,
    /// As much as is ever asked for.
    text: Arc<str>,
}

/// One request's body, and its answer.
pub(crate) struct Ask {
    pub(crate) body: Bytes,
    stream: bool,
    tokens: usize,
    text: Arc<str>,
}

impl Book {
    pub(crate) fn new(rng: &mut Rng) -> Book {
        let sizes = [(SMALL, 600), (MEDIUM, 8_000), (LARGE, 150_000)];
        let sizes = sizes.into_iter().flat_map(|(count, size)| std::iter::repeat_n(size, count));
        Book { prompts: sizes.map(|size| Prompt::new(letters(rng, size))).collect() }
    }

    /// Most are small, a few large enough that their body does not fit into any buffer.
    pub(crate) fn ask(&self, rng: &mut Rng, stream: bool, tokens: usize) -> Ask {
        let (first, count) = match rng.usize(..100) {
            0 => (SMALL + MEDIUM, LARGE),
            1..15 => (SMALL, MEDIUM),
            _ => (0, SMALL),
        };
        self.prompts[first + rng.usize(..count)].ask(stream, tokens.min(MOST_TOKENS))
    }

    /// A stream with a prompt that no backend has in its cache.
    pub(crate) fn new_prompt(&self, rng: &mut Rng, bytes: usize, tokens: usize) -> Ask {
        Prompt::new(letters(rng, bytes)).ask(true, tokens)
    }
}

impl Prompt {
    fn new(content: String) -> Prompt {
        let mut prompt = Prompt { content, text: Arc::from("") };
        let body = prompt.ask(false, MOST_TOKENS).body;
        prompt.text =
            generated_text(&SimConfig::default(), Api::Chat, &body).expect("it is a completion request").into();
        prompt
    }

    fn ask(&self, stream: bool, tokens: usize) -> Ask {
        let body = format!(
            r#"{{"model":"sim-model","stream":{stream},"stream_options":{{"include_usage":true}},"max_tokens":{tokens},"messages":[{{"role":"user","content":"{}"}}]}}"#,
            self.content
        );
        Ask { body: body.into(), stream, tokens, text: Arc::clone(&self.text) }
    }
}

impl Ask {
    /// An error says what is wrong with the body of an answer.
    pub(crate) fn verify(&self, body: &[u8]) -> Result<(), String> {
        let checked = if self.stream { self.verify_stream(body) } else { self.verify_plain(body) };
        checked.map_err(|what| format!("{what} in {} bytes that end with {}", body.len(), end_of(body)))
    }

    fn verify_plain(&self, body: &[u8]) -> Result<(), String> {
        let answer: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let expected = &self.text[..self.tokens * BYTES_PER_TOKEN];
        if answer["choices"][0]["message"]["content"] != *expected {
            return Err("another text".to_owned());
        }
        self.verify_usage(&answer)
    }

    /// Each event but for the numbers in the last ones: the tokens of a stream have the same bytes around them, among them
    /// the id of this very answer, and between them what follows from the prompt.
    fn verify_stream(&self, body: &[u8]) -> Result<(), String> {
        let text = str::from_utf8(body).map_err(|error| error.to_string())?;
        let text = text.strip_suffix("data: [DONE]\n\n").ok_or("no [DONE] at the end")?;
        // Comments come before the first token only.
        let text = text.trim_start_matches(":\n\n");
        let events = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").ok_or("no event"));
        let events: Vec<&str> = events.collect::<Result<_, _>>()?;
        let (first, rest) = events.split_first().ok_or("no events")?;
        let (tokens, last) = rest.split_at_checked(self.tokens).ok_or("too few events")?;
        let id = json(first)?["id"].clone();
        let sample = tokens.first().ok_or("no token")?;
        let (before, after) = sample.split_once(&format!("\"content\":\"{}\"", self.word(0))).ok_or("another token")?;
        if json(sample)?["id"] != id || !id.is_string() {
            return Err("the id of another answer".to_owned());
        }
        for (number, event) in tokens.iter().enumerate() {
            let content = event.strip_prefix(before).and_then(|event| event.strip_suffix(after));
            let content = content.and_then(|event| event.strip_prefix("\"content\":\"")?.strip_suffix('"'));
            if content != Some(self.word(number)) {
                return Err(format!("token {number} is {event}"));
            }
        }
        let last: Vec<Value> = last.iter().map(|event| json(event)).collect::<Result<_, _>>()?;
        if last.iter().any(|event| event["id"] != id || !event["choices"][0]["delta"]["content"].is_empty()) {
            return Err("more text, or the id of another answer".to_owned());
        }
        let usage = last.iter().find(|event| event["usage"].is_object()).ok_or("no usage")?;
        self.verify_usage(usage)
    }

    fn verify_usage(&self, answer: &Value) -> Result<(), String> {
        let told = &answer["usage"]["completion_tokens"];
        if *told == self.tokens { Ok(()) } else { Err(format!("{told} tokens, not {}", self.tokens)) }
    }

    fn word(&self, number: usize) -> &str {
        &self.text[number * BYTES_PER_TOKEN..][..BYTES_PER_TOKEN]
    }
}

trait IsEmpty {
    fn is_empty(&self) -> bool;
}

impl IsEmpty for Value {
    fn is_empty(&self) -> bool {
        self.as_str().unwrap_or_default().is_empty()
    }
}

fn json(event: &str) -> Result<Value, String> {
    serde_json::from_str(event).map_err(|error| format!("{error} in the event {event}"))
}

/// Lower-case letters and spaces.
fn letters(rng: &mut Rng, bytes: usize) -> String {
    (0..bytes).map(|_| if rng.u8(..6) == 0 { ' ' } else { rng.lowercase() }).collect()
}

fn end_of(body: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(&body[body.len().saturating_sub(300)..]))
}

const SMALL: usize = 48;
const MEDIUM: usize = 12;
const LARGE: usize = 2;
/// No answer is longer.
pub(crate) const MOST_TOKENS: usize = 400;

#[cfg(test)]
#[allow(dead_code, unused_imports, reason = "for `tests/soak.rs`: a bench has no tests")]
mod tests {
    use super::*;

    fn answer(ask: &Ask) -> String {
        let event =
            |delta: &str| format!("data: {{\"id\":\"7\",\"choices\":[{{\"delta\":{{{delta}}}}}],\"usage\":null}}\n\n");
        let mut text = event(r#""role":"assistant","content":null"#);
        (0..ask.tokens).for_each(|i| text += &event(&format!("\"content\":\"{}\"", ask.word(i))));
        text += &format!(
            "data: {{\"id\":\"7\",\"choices\":[],\"usage\":{{\"completion_tokens\":{}}}}}\n\ndata: [DONE]\n\n",
            ask.tokens
        );
        text
    }

    #[test]
    fn a_stream_is_right_and_wrong_with_any_byte_changed_lost_or_doubled() {
        let mut rng = Rng::with_seed(1);
        let ask = Book::new(&mut rng).ask(&mut rng, true, 9);
        let right = answer(&ask).into_bytes();
        assert_eq!(ask.verify(&right), Ok(()));
        assert_eq!(ask.verify(&[b":\n\n:\n\n", &right[..]].concat()), Ok(()));
        let ends: Vec<usize> = memchr::memmem::find_iter(&right, "\n\n").map(|at| at + 2).collect();
        let tokens = ends[0]..ends[9];
        for at in 0..right.len() {
            let (mut changed, mut lost, mut doubled) = (right.clone(), right.clone(), right.clone());
            changed[at] ^= 1;
            lost.remove(at);
            doubled.insert(at, right[at]);
            for wrong in [changed, lost, doubled, right[..at].to_vec()] {
                // Between the first event and the last ones every byte counts; there, what JSON takes for the same is the same.
                let loose = !tokens.contains(&at) && wrong.len() + 1 >= right.len();
                assert!(ask.verify(&wrong).is_err() || loose, "at {at}");
            }
        }
        let swapped = answer(&ask).replacen(ask.word(2), "zzz ", 1);
        assert!(ask.verify(swapped.as_bytes()).is_err());
    }
}
