//! The search for the first output of a stream, against a list of events whose meaning is known; and on any bytes against
//! itself.
//!
//! An input is a way to cut, then choices of which a stream is written; or, if its first bit is set, any bytes.

use ingle::sse::{ErrorClass, FirstOutput, Verdict};

use crate::input::Input;

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.byte();
    let cut = 1 + usize::from(input.u16()) % 600;
    if kind & 1 == 1 {
        let bytes = input.rest();
        let whole = read(bytes, &mut std::iter::once(bytes));
        cuts_change_nothing(bytes, cut, &whole);
        return;
    }
    let stream = Stream::write(&mut input);
    let whole = read(stream.text.as_bytes(), &mut std::iter::once(stream.text.as_bytes()));
    assert_eq!(whole, stream.expected(), "{:?}", stream.text);
    cuts_change_nothing(stream.text.as_bytes(), cut, &whole);
    stream.is_decided_by_its_item();
}

/// What is found in a stream.
#[derive(Debug, PartialEq)]
struct Found {
    verdict: Outcome,
    /// Bytes that can be sent before the first output.
    passable: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Wait,
    Output,
    Error(ErrorClass),
}

fn outcome(first: &FirstOutput) -> Outcome {
    match first.verdict() {
        Verdict::Wait => Outcome::Wait,
        Verdict::Output => Outcome::Output,
        Verdict::Error(error) => Outcome::Error(error.class),
    }
}

/// Reads a stream in pieces. What is taken is what was pushed, in order.
fn read(text: &[u8], pieces: &mut dyn Iterator<Item = &[u8]>) -> Found {
    let (mut first, mut taken) = (FirstOutput::default(), Vec::new());
    for piece in pieces {
        first.push(piece);
        if *first.verdict() == Verdict::Wait {
            taken.extend(first.take_passable());
        }
    }
    first.end();
    taken.extend(first.take_passable());
    let passable = taken.len();
    let verdict = outcome(&first);
    taken.extend(first.take_all());
    assert_eq!(taken, text, "nothing is added, lost or moved");
    Found { verdict, passable }
}

fn cuts_change_nothing(text: &[u8], cut: usize, whole: &Found) {
    let (start, end) = text.split_at(cut.min(text.len()));
    let shown = || text.escape_ascii().to_string();
    for found in [
        read(text, &mut text.chunks(cut)),
        read(text, &mut text.chunks(1)),
        read(text, &mut start.chunks(1).chain([end])),
    ] {
        assert_eq!(found.verdict, whole.verdict, "{}", shown());
        // The LF of a CRLF that comes later waits with what follows.
        assert!(found.passable == whole.passable || found.passable + 1 == whole.passable, "{}", shown());
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Comment,
    Progress,
    Empty,
    Judged(Outcome),
}

/// A stream, and where each of its items ends.
#[derive(Default)]
struct Stream {
    text: String,
    items: Vec<(usize, Kind)>,
    /// Whether the last item lacks its empty line.
    is_cut: bool,
    last_end: &'static str,
}

impl Stream {
    fn write(input: &mut Input<'_>) -> Stream {
        let mut stream = Stream::default();
        if input.flip() {
            stream.text.push('\u{feff}');
        }
        for _ in 0..1 + input.below(6) {
            match input.below(8) {
                0 => stream.comment(input, ": ping"),
                1 => stream.comment(input, ""),
                _ => stream.event(input),
            }
        }
        stream.is_cut = input.below(4) == 0 && stream.items.last().is_some_and(|(_, kind)| *kind != Kind::Comment);
        if stream.is_cut {
            let length = stream.text.len() - stream.last_end.len();
            stream.text.truncate(length);
        }
        stream
    }

    fn line(&mut self, input: &mut Input<'_>, line: &str) {
        let end = match input.below(3) {
            // After CR, the LF of an empty line would be a part of the line before.
            0 if !(line.is_empty() && self.text.ends_with('\r')) => "\n",
            1 => "\r",
            _ => "\r\n",
        };
        self.text += line;
        self.text += end;
        self.last_end = end;
    }

    fn comment(&mut self, input: &mut Input<'_>, line: &str) {
        self.line(input, line);
        self.items.push((self.text.len(), Kind::Comment));
    }

    fn event(&mut self, input: &mut Input<'_>) {
        let (name, data, kind) = input.pick(&EVENTS);
        for other in ["id: 7", "retry:50", ":"] {
            if input.below(4) == 0 && (other != ":" || !name.is_empty()) {
                // A comment is a part of an event only after its first field.
                let line = if other == ":" { "id" } else { other };
                self.line(input, line);
                if other == ":" {
                    self.line(input, ": inside");
                }
            }
        }
        let blank = input.pick(&[" ", ""]);
        if !name.is_empty() {
            self.line(input, &format!("event:{blank}{name}"));
        }
        let is_json = data.starts_with('{');
        match data.split_once(',') {
            Some((front, back)) if is_json && input.flip() => {
                self.line(input, &format!("data:{blank}{front},"));
                self.line(input, &format!("data:{blank}{back}"));
            }
            _ => self.line(input, &format!("data:{blank}{data}")),
        }
        self.line(input, "");
        self.items.push((self.text.len(), kind));
    }

    fn expected(&self) -> Found {
        let judged = self.items.iter().find_map(|(_, kind)| match kind {
            Kind::Judged(outcome) => Some(*outcome),
            _ => None,
        });
        let passing = self.items.iter().take_while(|(_, kind)| matches!(kind, Kind::Comment | Kind::Progress));
        let passable = passing.map(|(end, _)| (*end).min(self.text.len())).last().unwrap_or_default();
        Found { verdict: judged.unwrap_or(Outcome::Wait), passable }
    }

    /// The first output is found with the byte that ends it, and not before.
    fn is_decided_by_its_item(&self) {
        let Some((end, Kind::Judged(outcome_))) = self.items.iter().find(|(_, kind)| matches!(kind, Kind::Judged(_)))
        else {
            return;
        };
        if *end > self.text.len() {
            return;
        }
        let line_end = if self.text[..*end].ends_with("\r\n") { 2 } else { 1 };
        let decided = end - line_end + 1;
        for (length, expected) in [(decided - 1, Outcome::Wait), (decided, *outcome_)] {
            let mut first = FirstOutput::default();
            first.push(&self.text.as_bytes()[..length]);
            assert_eq!(outcome(&first), expected, "{length} bytes of {:?}", self.text);
        }
    }
}

const OUTPUT: Kind = Kind::Judged(Outcome::Output);

const fn error(class: ErrorClass) -> Kind {
    Kind::Judged(Outcome::Error(class))
}

/// Names, data and meanings of events, as the servers send them.
const EVENTS: [(&str, &str, Kind); 22] = [
    ("", r#"{"choices":[{"delta":{"role":"assistant","content":""}}],"x":1}"#, Kind::Empty),
    ("", r#"{"choices":[{"delta":{"role":"assistant","content":null}}]}"#, Kind::Empty),
    ("message_start", r#"{"type":"message_start","message":{"content":[]}}"#, Kind::Empty),
    ("content_block_start", r#"{"type":"content_block_start","content_block":{"type":"text","text":""}}"#, Kind::Empty),
    ("ping", r#"{"type":"ping"}"#, Kind::Empty),
    ("response.created", r#"{"type":"response.created","response":{"error":null}}"#, Kind::Empty),
    ("", r#"{"type":"response.output_item.added","item":{}}"#, Kind::Empty),
    ("", "", Kind::Empty),
    ("", r#"{"choices":[],"prompt_progress":{"total":9,"processed":3}}"#, Kind::Progress),
    ("", r#"{"prompt_progress":{"total":9}}"#, Kind::Progress),
    ("", r#"{"choices":[{"delta":{"content":"x"}}]}"#, OUTPUT),
    ("", r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#, OUTPUT),
    ("", r#"{"choices":[{"text":"x"}]}"#, OUTPUT),
    ("content_block_delta", r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"x"}}"#, OUTPUT),
    ("response.output_text.delta", r#"{"type":"response.output_text.delta","delta":"x"}"#, OUTPUT),
    ("", "[DONE]", OUTPUT),
    ("", r#"{"anything":1,"else":2}"#, OUTPUT),
    ("", r#"{"error":{"code":400,"message":"m"}}"#, OUTPUT),
    ("", r#"{"error":{"code":503,"message":"m"}}"#, error(ErrorClass::Unavailable)),
    ("", r#"{"error":{"code":500,"message":"m"}}"#, error(ErrorClass::Failed)),
    ("error", r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, error(ErrorClass::Unavailable)),
    ("error", r#"{"type":"error","error":{"type":"rate_limit_error"}}"#, error(ErrorClass::RateLimited)),
];
