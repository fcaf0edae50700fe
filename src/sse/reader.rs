//! Splits a stream of server-sent events (WHATWG HTML, section 9.2.6).

use memchr::memchr2;

/// Reads events from a stream that comes in pieces of any size.
///
/// Lines end with LF, CR or CRLF, a colon can be followed by a blank, the stream can start with a byte order mark. Fields
/// other than `event` and `data` are skipped, except `error`, in which older llama-servers send errors.
#[derive(Debug, Default)]
pub struct EventReader {
    /// The line that is not complete yet.
    line: Vec<u8>,
    event: Event,
    /// Whether the event has had a line yet.
    has_fields: bool,
    /// Whether the last line ended with CR, so that an LF belongs to it.
    after_cr: bool,
    /// Whether a line was read, before which there can be a byte order mark.
    has_started: bool,
}

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The value of `event`; may be empty.
    pub name: Vec<u8>,
    /// The values of `data`, with LF between them.
    pub data: Vec<u8>,
    /// Whether the data came in a field `error`.
    pub is_error: bool,
}

/// What a stream consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A comment, or an empty line that ends no event.
    Comment,
    /// An event, with the empty line that ends it.
    Event(Event),
}

impl EventReader {
    /// Reads bytes up to the end of the next item. Returns how many were read, and the item if it is complete; all bytes
    /// were read if there is none.
    pub fn read(&mut self, bytes: &[u8]) -> (usize, Option<Item>) {
        let mut at = 0;
        if self.after_cr && bytes.first() == Some(&b'\n') {
            at = 1;
        }
        self.after_cr &= bytes.is_empty();
        while let Some(end) = memchr2(b'\n', b'\r', &bytes[at..]) {
            let (line, rest) = (&bytes[at..at + end], &bytes[at + end..]);
            at += end + 1;
            if rest.starts_with(b"\r\n") {
                at += 1;
            } else {
                self.after_cr = rest == b"\r";
            }
            if let Some(item) = self.take_line(line) {
                return (at, Some(item));
            }
        }
        self.line.extend_from_slice(&bytes[at..]);
        (bytes.len(), None)
    }

    /// The event that the end of the stream leaves without its empty line. Browsers drop it; a client that splits at lines
    /// does not.
    pub fn end(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.take_field(&line);
        }
        self.has_fields = false;
        Some(std::mem::take(&mut self.event)).filter(|event| *event != Event::default())
    }

    /// Whether nothing of an event was read yet.
    #[must_use]
    pub fn is_between_events(&self) -> bool {
        self.line.is_empty() && !self.has_fields
    }

    fn take_line(&mut self, end: &[u8]) -> Option<Item> {
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(end);
        if !std::mem::replace(&mut self.has_started, true) && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        match line.first() {
            None if self.has_fields => {
                self.has_fields = false;
                Some(Item::Event(std::mem::take(&mut self.event)))
            }
            None | Some(b':') if !self.has_fields => Some(Item::Comment),
            None | Some(b':') => None,
            Some(_) => {
                self.take_field(&line);
                None
            }
        }
    }

    fn take_field(&mut self, line: &[u8]) {
        self.has_fields = true;
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"event" => self.event.name = value.to_vec(),
            name @ (b"data" | b"error") => {
                self.event.is_error |= name == b"error";
                if !self.event.data.is_empty() {
                    self.event.data.push(b'\n');
                }
                self.event.data.extend_from_slice(value);
            }
            _ => {}
        }
    }
}

/// U+FEFF in UTF-8.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;

    fn items(pieces: &[&[u8]]) -> Vec<(usize, Item)> {
        let (mut reader, mut items, mut at) = (EventReader::default(), Vec::new(), 0);
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let (read, item) = reader.read(rest);
                at += read;
                rest = &rest[read..];
                items.extend(item.map(|item| (at, item)));
            }
        }
        items
    }

    fn event(name: &str, data: &str) -> Item {
        Item::Event(Event { name: name.into(), data: data.into(), is_error: false })
    }

    #[test]
    fn lines_end_with_lf_cr_or_crlf() {
        for end in ["\n", "\r", "\r\n"] {
            let text = [": c", "", "event:a", "data: 1", "id: 7", "retry: 5", ":", "data:2", "", ""].join(end);
            let kinds: Vec<Item> = items(&[text.as_bytes()]).into_iter().map(|(_, item)| item).collect();
            assert_eq!(kinds, [Item::Comment, Item::Comment, event("a", "1\n2")], "{end:?}");
        }
    }

    #[test]
    fn items_are_the_same_wherever_the_stream_is_cut() {
        let text = b"\xef\xbb\xbf: c\r\n\r\nevent: x\r\ndata: {}\r\n\r\ndata: y\n\nerror: z\r\r";
        let whole: Vec<Item> = items(&[text]).into_iter().map(|(_, item)| item).collect();
        assert_eq!(whole.len(), 5);
        for cut in 0..=text.len() {
            let cut: Vec<Item> = items(&[&text[..cut], &text[cut..]]).into_iter().map(|(_, item)| item).collect();
            assert_eq!(cut, whole);
        }
    }

    #[test]
    fn item_ends_with_its_empty_line() {
        assert_eq!(items(&[b"data: 1\n\ndata: 2\n\n"]), [(9, event("", "1")), (18, event("", "2"))]);
        assert_eq!(items(&[b": a\n\n"]), [(4, Item::Comment), (5, Item::Comment)]);
    }

    #[test]
    fn stream_can_end_without_an_empty_line() {
        let mut reader = EventReader::default();
        assert_eq!(reader.read(b"data: [DONE]").1, None);
        assert!(!reader.is_between_events());
        assert_eq!(reader.end().unwrap().data, b"[DONE]");
        assert_eq!(reader.end(), None);
    }
}
