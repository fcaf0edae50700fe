//! The reader of usage figures, against serde_json on well-formed responses, and on any bytes against itself.
//!
//! An input is a way to cut, then choices of which a response is written: JSON or events, with figures, texts about figures
//! and noise; or, if its first bit is set, any bytes.

use ingle::api::usage::UsageReader;
use ingle::core::usage::Usage;
use serde_json::{Map, Value};

use crate::input::Input;

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.byte();
    let cut = 1 + usize::from(input.u16()) % 6000;
    if kind & 1 == 1 {
        let bytes = input.rest();
        let whole = figures(&mut std::iter::once(bytes));
        cuts_do_not_matter(bytes, cut, whole);
        return;
    }
    let response = Response::write(&mut input, kind & 2 == 2);
    let text = response.text.as_bytes();
    cuts_do_not_matter(text, cut, response.expected(text.len()));
    // A backend that dies within its response.
    let end = usize::from(input.u16()) % (text.len() + 1);
    cuts_do_not_matter(&text[..end], cut, response.expected(end));
}

fn figures(pieces: &mut dyn Iterator<Item = &[u8]>) -> Option<Usage> {
    let mut reader = UsageReader::default();
    pieces.for_each(|piece| reader.push(piece));
    reader.usage()
}

fn cuts_do_not_matter(text: &[u8], cut: usize, expected: Option<Usage>) {
    let shown = || text.escape_ascii().to_string();
    assert_eq!(figures(&mut std::iter::once(text)), expected, "in one piece: {}", shown());
    assert_eq!(figures(&mut text.chunks(cut)), expected, "in pieces of {cut}: {}", shown());
    assert_eq!(figures(&mut text.chunks(1)), expected, "in single bytes: {}", shown());
    let (begin, end) = text.split_at(cut.min(text.len()));
    assert_eq!(figures(&mut begin.chunks(1).chain([end])), expected, "bytes, then the rest: {}", shown());
    if let Some(usage) = expected {
        assert!(usage.cached.is_none_or(|cached| cached <= usage.prompt));
    }
}

/// A response, and where its objects with figures end.
#[derive(Default)]
struct Response {
    text: String,
    objects: Vec<(usize, Map<String, Value>)>,
}

const FIGURES: [&str; 7] = [
    "prompt_tokens",
    "input_tokens",
    "cached_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "prompt_n",
    "cache_n",
];
const DETAILS: [&str; 3] = ["prompt_tokens_details", "input_tokens_details", "other_details"];
/// What is no figure, but could be taken for one.
const NOISE: [&str; 12] = [
    r#""content":"\"usage\": {\"prompt_tokens\": 7}""#,
    r#""content":"\\\"usage\\\":{""#,
    r#""content":"\\","x":"usage""#,
    r#""usage":null"#,
    r#""usage":[7]"#,
    r#""timings":-5"#,
    r#""prompt_tokens_details":null"#,
    r#""prompt_tokens":"7""#,
    r#""prompt_n":7.5"#,
    r#""input_tokens":1e3"#,
    r#""content":"}{{\"}""#,
    "\"content\":\"caf\u{e9} \u{1f525}\"",
];

impl Response {
    fn write(input: &mut Input<'_>, events: bool) -> Response {
        let mut response = Response::default();
        for _ in 0..if events { 1 + input.below(5) } else { 1 } {
            response.text += if events { "data: " } else { "" };
            response.object(input, 0, false);
            response.text += if events { "\n\n" } else { "" };
        }
        if events && input.flip() {
            response.text += "data: [DONE]\n\n";
        }
        response
    }

    /// Writes an object; `inside` says whether it is part of one with figures, which is read as a whole.
    fn object(&mut self, input: &mut Input<'_>, depth: usize, inside: bool) {
        self.text.push('{');
        for entry in 0..input.below(7) {
            self.text += if entry > 0 { "," } else { "" };
            self.text += input.pick(&["", " ", ""]);
            match input.below(8) {
                0..4 => self.figure(input),
                4 => self.text += input.pick(&NOISE),
                5 if !inside => {
                    let length = usize::from(input.byte()) * input.pick(&[1, 1, 60]);
                    self.text += &format!("\"content\":\"{}\"", "x".repeat(length));
                }
                6 if depth < 4 => {
                    self.text += &format!("\"{}\":", input.pick(&DETAILS));
                    self.object(input, depth + 1, inside);
                }
                7 if depth < 4 => {
                    let is_read = input.flip();
                    self.text += if is_read { input.pick(&["\"usage\":", "\"timings\" : "]) } else { "\"choices\":" };
                    let begin = self.text.len();
                    self.object(input, depth + 1, inside || is_read);
                    if is_read && !inside {
                        let object = serde_json::from_str(&self.text[begin..]).expect("the writer writes JSON");
                        self.objects.push((self.text.len(), object));
                    }
                }
                _ => self.text += "\"id\":1",
            }
        }
        self.text.push('}');
    }

    fn figure(&mut self, input: &mut Input<'_>) {
        let value = input.pick(&[0, 1, 7, 18, 2956, 3020, u64::from(u32::MAX), u64::MAX]);
        self.text += &format!("\"{}\"{}{value}", input.pick(&FIGURES), input.pick(&[":", ": ", " :", ":\t"]));
    }

    /// The figures of the objects that are complete after so many bytes.
    fn expected(&self, end: usize) -> Option<Usage> {
        let mut last = Map::new();
        for (_, object) in self.objects.iter().filter(|(object_end, _)| *object_end <= end) {
            let has = |name: &str| object.get(name).is_some_and(Value::is_u64);
            if has("prompt_tokens") && !has("input_tokens") {
                for name in ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"] {
                    last.remove(name);
                }
            }
            if has("input_tokens") && !has("prompt_tokens") {
                last.remove("prompt_tokens");
            }
            last.extend(
                FIGURES.iter().filter(|name| has(name)).map(|name| ((*name).to_owned(), object[*name].clone())),
            );
            last.remove("cached_tokens");
            let details = DETAILS[..2].iter().filter_map(|name| object.get(*name)?.get("cached_tokens")?.as_u64());
            if let Some(cached) = details.into_iter().next() {
                last.insert("detail".to_owned(), cached.into());
            }
        }
        let get = |name: &str| last.get(name).and_then(Value::as_u64);
        let (read, created) = (get("cache_read_input_tokens"), get("cache_creation_input_tokens"));
        let timings = get("prompt_n").zip(get("cache_n"));
        let (prompt, cached) = match (get("prompt_tokens"), get("input_tokens"), timings) {
            (Some(prompt), ..) => (prompt, get("detail")),
            (None, Some(input), _) if read.or(created).is_some() => {
                (input.saturating_add(read.unwrap_or(0)).saturating_add(created.unwrap_or(0)), Some(read.unwrap_or(0)))
            }
            (None, Some(input), _) => (input, get("detail")),
            (None, None, Some((computed, cached))) => (computed.saturating_add(cached), Some(cached)),
            (None, None, None) => return None,
        };
        let cached = cached.or(timings.map(|(_, cached)| cached));
        Some(Usage { prompt, cached: cached.map(|cached| cached.min(prompt)) })
    }
}
