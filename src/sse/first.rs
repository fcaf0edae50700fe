//! The start of a stream, up to its first output.

use super::error::{ErrorClass, ErrorEvent};
use super::output::{Kind, kind};
use super::reader::{BYTE_ORDER_MARK, EventReader, Item};

/// Holds the start of a stream until its first output.
///
/// What can be sent before that is at its front: whole comments and events that report progress, up to the first other
/// event.
#[derive(Debug, Default)]
pub struct FirstOutput {
    reader: EventReader,
    /// What came and was not taken.
    held: Vec<u8>,
    /// Bytes at the front of `held` that can be sent before the first output.
    passable: usize,
    /// Whether an event without output is held, after which everything is.
    holds_event: bool,
    /// Whether a byte order mark at the front is dropped.
    drops_mark: bool,
    /// Whether the first output is an error that is an answer to the request.
    is_error: bool,
    verdict: Verdict,
}

/// What a stream has shown so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// No output yet.
    #[default]
    Wait,
    /// The first output; or so much without any that it is not waited for any longer.
    Output,
    /// The first thing that is not empty is an error, and no answer to this request.
    Error(ErrorEvent),
}

impl FirstOutput {
    /// For a stream that continues another one, in whose middle a byte order mark would be a part of a line.
    #[must_use]
    pub fn continuing() -> FirstOutput {
        FirstOutput { drops_mark: true, ..FirstOutput::default() }
    }

    /// Takes the next bytes of the stream. Nothing is read after the first output.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && self.verdict == Verdict::Wait {
            let (read, item) = self.reader.read(rest);
            self.held.extend_from_slice(&rest[..read]);
            rest = &rest[read..];
            match item {
                Some(Item::Comment) => self.pass(),
                Some(Item::Event(event)) => self.judge(kind(&event)),
                None => {}
            }
        }
        self.held.extend_from_slice(rest);
        if self.held.len() > MAX_HELD && self.verdict == Verdict::Wait {
            self.verdict = Verdict::Output;
        }
    }

    /// The stream has ended. Its last event may lack its empty line.
    pub fn end(&mut self) {
        if self.verdict == Verdict::Wait
            && let Some(event) = self.reader.end()
        {
            self.judge(kind(&event));
        }
    }

    /// What the stream has shown so far.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Whether the first output is an error that is an answer to the request.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.is_error
    }

    /// Bytes that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes what can be sent before the first output.
    pub fn take_passable(&mut self) -> Vec<u8> {
        let rest = self.held.split_off(self.passable);
        self.passable = 0;
        let passable = std::mem::replace(&mut self.held, rest);
        self.without_mark(passable)
    }

    /// Takes everything.
    pub fn take_all(&mut self) -> Vec<u8> {
        self.passable = 0;
        let all = std::mem::take(&mut self.held);
        self.without_mark(all)
    }

    fn without_mark(&mut self, mut front: Vec<u8>) -> Vec<u8> {
        if !front.is_empty() && std::mem::take(&mut self.drops_mark) && front.starts_with(BYTE_ORDER_MARK) {
            front.drain(..BYTE_ORDER_MARK.len());
        }
        front
    }

    fn judge(&mut self, kind: Kind) {
        match kind {
            Kind::Output => self.verdict = Verdict::Output,
            Kind::Error(error) if error.class == ErrorClass::Answer => {
                (self.verdict, self.is_error) = (Verdict::Output, true);
            }
            Kind::Error(error) => self.verdict = Verdict::Error(error),
            Kind::Progress => self.pass(),
            Kind::Empty => self.holds_event = true,
        }
    }

    /// What was read so far can be sent.
    fn pass(&mut self) {
        if !self.holds_event {
            self.passable = self.held.len();
        }
    }
}

/// Bytes that are held without an output; a stream that has more counts as started.
pub const MAX_HELD: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";

    fn first(pieces: &[&str]) -> FirstOutput {
        let mut first = FirstOutput::default();
        pieces.iter().for_each(|piece| first.push(piece.as_bytes()));
        first
    }

    #[test]
    fn output_is_found_wherever_the_stream_is_cut() {
        let text = format!(": ping\n\n{ROLE}: ping\n\n{TEXT}rest");
        for cut in 0..=text.len() {
            let mut first = first(&[&text[..cut], &text[cut..]]);
            assert_eq!(*first.verdict(), Verdict::Output, "{cut}");
            assert_eq!(first.take_all(), text.as_bytes(), "{cut}: unchanged");
        }
    }

    #[test]
    fn comments_pass_until_an_event_is_held() {
        let mut first = first(&[": a\n\n: b"]);
        assert_eq!(first.take_passable(), b": a\n\n", "not half a comment");
        first.push(b"\n\n");
        assert_eq!(first.take_passable(), b": b\n\n");
        let progress = "data: {\"choices\":[],\"prompt_progress\":{\"processed\":1}}\n\n";
        first.push(progress.as_bytes());
        assert_eq!(first.take_passable(), progress.as_bytes());
        first.push(format!("{ROLE}: c\n\n").as_bytes());
        assert_eq!((first.take_passable(), first.verdict()), (Vec::new(), &Verdict::Wait), "order is kept");
        first.push(TEXT.as_bytes());
        assert_eq!(*first.verdict(), Verdict::Output);
        assert_eq!(first.take_all(), format!("{ROLE}: c\n\n{TEXT}").as_bytes());
    }

    #[test]
    fn comment_inside_an_event_does_not_pass() {
        assert_eq!(first(&["event: x\n: c\n"]).take_passable(), b"");
    }

    #[test]
    fn end_without_output_is_none() {
        for (text, verdict) in [(ROLE, Verdict::Wait), ("", Verdict::Wait), ("data: [DONE]", Verdict::Output)] {
            let mut first = first(&[text]);
            first.end();
            assert_eq!(*first.verdict(), verdict, "{text}");
        }
    }

    #[test]
    fn errors_are_no_output_but_answers_are() {
        let text = |code| format!("{ROLE}data: {{\"error\":{{\"code\":{code},\"message\":\"m\"}}}}\n\n");
        assert_eq!(*first(&[&text(400)]).verdict(), Verdict::Output);
        let error = ErrorEvent { class: ErrorClass::Unavailable, message: "m".to_owned() };
        assert_eq!(*first(&[&text(503)]).verdict(), Verdict::Error(error));
    }

    #[test]
    fn continuing_stream_has_no_byte_order_mark() {
        for cut in 0..4 {
            let text = format!("\u{feff}: a\n{TEXT}");
            let mut first = FirstOutput::continuing();
            first.push(&text.as_bytes()[..cut]);
            let mut taken = first.take_passable();
            first.push(&text.as_bytes()[cut..]);
            taken.extend(first.take_passable());
            taken.extend(first.take_all());
            assert_eq!(taken, &text.as_bytes()[3..], "{cut}");
        }
        let mut first = FirstOutput::continuing();
        first.push(b": a\n");
        assert_eq!(first.take_passable(), b": a\n");
        let mut first = FirstOutput::default();
        first.push("\u{feff}: a\n".as_bytes());
        assert_eq!(first.take_passable(), "\u{feff}: a\n".as_bytes());
    }

    #[test]
    fn too_much_without_output_has_started() {
        let mut first = FirstOutput::default();
        (0..=MAX_HELD / ROLE.len()).for_each(|_| first.push(ROLE.as_bytes()));
        assert_eq!(*first.verdict(), Verdict::Output);
    }
}
