//! The reader of usage figures, against serde_json on well-formed answers, and on any bytes against itself.
//!
//! An input is a way to cut, then choices of which an answer is written: JSON or events, with figures, texts about figures
//! and noise; or, if its first bit is set, any bytes.

use ingle::core::usage::{KEPT, Tail, Usage, read};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::input::Input;

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.byte();
    let cut = 1 + usize::from(input.u16()) % 6000;
    if kind & 1 == 1 {
        let bytes = input.rest();
        cuts_do_not_matter(bytes, cut, read(&bytes[bytes.len().saturating_sub(KEPT)..]));
        return;
    }
    let answer = Answer::write(&mut input, kind & 2 == 2);
    assert_eq!(answer.parsed(), answer.figures(), "the writer and serde_json differ: {}", answer.text);
    let text = answer.text.as_bytes();
    let expected = answer.expected(text.len());
    if text.len() <= KEPT {
        assert_eq!(read(text), expected, "{}", answer.text);
    }
    cuts_do_not_matter(text, cut, expected);
    // A backend that dies within its answer.
    let end = usize::from(input.u16()) % (text.len() + 1);
    cuts_do_not_matter(&text[..end], cut, answer.expected(end));
}

/// Whatever the pieces in which it comes, the figures are those of its last [`KEPT`] bytes.
fn cuts_do_not_matter(text: &[u8], cut: usize, expected: Option<Usage>) {
    let figures = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut tail = Tail::default();
        pieces.for_each(|piece| tail.push(piece));
        tail.usage()
    };
    let shown = || text.escape_ascii().to_string();
    assert_eq!(figures(&mut std::iter::once(text)), expected, "in one piece: {}", shown());
    assert_eq!(figures(&mut text.chunks(cut)), expected, "in pieces of {cut}: {}", shown());
    assert_eq!(figures(&mut text.chunks(KEPT)), expected, "in pieces of {KEPT}: {}", shown());
    let (begin, end) = text.split_at(cut.min(text.len()));
    assert_eq!(figures(&mut begin.chunks(1).chain([end])), expected, "bytes, then the rest: {}", shown());
    if let Some(usage) = expected {
        assert!(usage.cached.is_none_or(|cached| cached <= usage.prompt));
        assert!(usage.tokens().cached <= usage.tokens().prompt);
    }
}

/// An answer and where its figures are.
#[derive(Default)]
struct Answer {
    text: String,
    figures: Vec<Figure>,
}

/// A key with a number: where its quote is, and where the byte after the number ends.
struct Figure {
    begin: usize,
    end: usize,
    key: &'static str,
    value: u64,
}

const FIGURES: [&str; 5] = ["prompt_tokens", "input_tokens", "cached_tokens", "prompt_n", "cache_n"];
/// What no figure is, but might be taken for one.
const NOISE: [&str; 13] = [
    r#""content":"\"prompt_tokens\": 7, \"cached_tokens\": 7""#,
    r#""content":"\\\"prompt_n\\\":7""#,
    r#""content":"\\","x":"prompt_tokens""#,
    r#""prompt_tokens":null"#,
    r#""cached_tokens":-5"#,
    r#""prompt_tokens_details":null"#,
    r#""prompt_tokens":"7""#,
    r#""cache_n":[7]"#,
    r#""prompt_tokens":99999999999999999999"#,
    r#""prompt_n":7.5"#,
    r#""input_tokens":1e3"#,
    r#""completion_tokens":7"#,
    "\"content\":\"caf\u{e9} \u{1f525}\"",
];

impl Answer {
    fn write(input: &mut Input<'_>, events: bool) -> Answer {
        let mut answer = Answer::default();
        for _ in 0..if events { 1 + input.below(5) } else { 1 } {
            answer.text += if events { "data: " } else { "" };
            answer.object(input, 0);
            answer.text += if events { "\n\n" } else { "" };
        }
        if events && input.flip() {
            answer.text += "data: [DONE]\n\n";
        }
        answer
    }

    fn object(&mut self, input: &mut Input<'_>, depth: usize) {
        self.text.push('{');
        for entry in 0..input.below(7) {
            self.text += if entry > 0 { "," } else { "" };
            self.text += input.pick(&["", " ", ""]);
            match input.below(8) {
                0..4 => self.figure(input),
                4 => self.text += input.pick(&NOISE),
                5 => {
                    let length = usize::from(input.byte()) * input.pick(&[1, 1, 20]);
                    self.text += &format!("\"content\":\"{}\"", "x".repeat(length));
                }
                _ if depth < 4 => {
                    self.text += input.pick(&["\"usage\":", "\"timings\" : ", "\"choices\":"]);
                    self.object(input, depth + 1);
                }
                _ => self.text += "\"id\":1",
            }
        }
        self.text.push('}');
    }

    fn figure(&mut self, input: &mut Input<'_>) {
        let (begin, key) = (self.text.len(), input.pick(&FIGURES));
        let value = input.pick(&[0, 1, 7, 18, 2956, 3020, u64::from(u32::MAX), u64::MAX]);
        self.text += &format!("\"{key}\"{}{value}", input.pick(&[":", ": ", " :", ":\t"]));
        // A number has ended once something else has come.
        self.figures.push(Figure { begin, end: self.text.len() + 1, key, value });
    }

    fn figures(&self) -> Vec<(String, u64)> {
        self.figures.iter().map(|figure| (figure.key.to_owned(), figure.value)).collect()
    }

    /// What the answer says if it ends after so many bytes: each figure as it was said last, within the bytes that are kept.
    /// At the very first of them one can't know whether the quote was escaped.
    fn expected(&self, end: usize) -> Option<Usage> {
        let begin = end.saturating_sub(KEPT);
        let said = |key: &str| {
            let whole = |figure: &&Figure| figure.key == key && figure.begin > begin && figure.end <= end;
            Some(self.figures.iter().rfind(whole)?.value)
        };
        let timings = said("prompt_n").zip(said("cache_n"));
        let prompt = said("prompt_tokens").or(said("input_tokens"));
        let total = timings.map(|(computed, cached)| computed.saturating_add(cached));
        let cached = match prompt {
            Some(_) => said("cached_tokens").or(timings.map(|(_, cached)| cached)),
            None => timings.map(|(_, cached)| cached),
        };
        let prompt = prompt.or(total)?;
        Some(Usage { prompt, cached: cached.map(|cached| cached.min(prompt)) })
    }

    /// The figures that serde_json finds, in the order of the text.
    fn parsed(&self) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        for line in self.text.lines().filter(|line| !line.is_empty()) {
            let json = line.strip_prefix("data: ").unwrap_or(line);
            if json != "[DONE]" {
                found.append(&mut serde_json::from_str::<Found>(json).unwrap().0);
            }
        }
        found
    }
}

/// Whole, not negative numbers under the keys of figures, anywhere in a value.
#[derive(Default)]
struct Found(Vec<(String, u64)>);

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(Finder)
    }
}

struct Finder;

impl<'de> Visitor<'de> for Finder {
    type Value = Found;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        while let Some(key) = map.next_key::<String>()? {
            let Found(mut below) = map.next_value()?;
            // A number has come up without its key.
            for (name, value) in below.drain(..) {
                match (name.is_empty(), FIGURES.contains(&key.as_str())) {
                    (true, true) => found.0.push((key.clone(), value)),
                    (true, false) => {}
                    (false, _) => found.0.push((name, value)),
                }
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        while let Some(Found(below)) = list.next_element()? {
            found.0.extend(below.into_iter().filter(|(name, _)| !name.is_empty()));
        }
        Ok(found)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Found, E> {
        Ok(Found(vec![(String::new(), value)]))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Found::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok(Found::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Found, E> {
        Ok(Found::default())
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::default())
    }
}
