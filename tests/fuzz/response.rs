//! Responses of backends, against a reader that is written from the RFCs ([`reader`](crate::reader)): both find the same
//! end, payload, trailers and framing in any bytes, whatever pieces they come in.
//!
//! An input is a byte of choices, a length to cut at, then the bytes of a connection. One of the choices repeats a piece of
//! them, for the bounds of lines and heads.

use ingle::http1::{self, Body, LAST_CHUNK, MAX_TRAILERS, ResponseHead, chunk_size_line, parse_trailers};

use crate::input::Input;
use crate::reader::{self, End, Field, Framing, Head, Reading};

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choices = input.byte();
    let (to_head, is_repeated, in_bytes) = (choices & 1 == 1, choices & 2 == 2, choices & 4 == 4);
    let cut = 1 + usize::from(input.u16());
    let text = if is_repeated { repeated(&mut input) } else { input.rest().to_vec() };
    let expected = reader::read(&text, to_head);
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>, how: &str| {
        let relayed = Relayed::read(pieces, to_head);
        assert_eq!(relayed.reading, expected, "in {how}: {}", text.escape_ascii());
        relayed
    };
    let whole = read(&mut std::iter::once(&text[..]), "one piece");
    let (start, end) = text.split_at(cut % (text.len() + 1));
    read(&mut [start, end].into_iter(), "two pieces");
    let length = if in_bytes && text.len() <= SHORT { 1 } else { (1 + cut % 257).max(text.len() / FEW) };
    read(&mut text.chunks(length), "pieces of one length");
    whole.passes_verbatim(&text);
    is_read_as_written(&expected.payload, cut);
}

/// The rest of an input, with a piece of it repeated.
fn repeated(input: &mut Input<'_>) -> Vec<u8> {
    let (at, length, times) = (usize::from(input.u16()), usize::from(input.byte()), usize::from(input.u16()));
    let text = input.rest();
    let (start, rest) = text.split_at(at.min(text.len()));
    let (piece, end) = rest.split_at(length.min(rest.len()));
    let times = times.min(LONG / piece.len().max(1));
    [start, &piece.repeat(times), end].concat()
}

/// What the gateway makes of the bytes of a backend.
struct Relayed {
    reading: Reading,
    /// The bytes of the body that pass unchanged.
    verbatim: Vec<u8>,
    /// What follows them at the end.
    trailers: Option<Vec<u8>>,
}

impl Relayed {
    /// Reads as `src/proxy` does: a head from all bytes so far, then what is left of them, then each piece alone.
    fn read(pieces: &mut dyn Iterator<Item = &[u8]>, to_head: bool) -> Relayed {
        let reading = Reading { head: None, payload: Vec::new(), trailers: None, end: End::Incomplete };
        let mut relayed = Relayed { reading, verbatim: Vec::new(), trailers: None };
        let mut seen = Vec::new();
        let mut body = loop {
            let Some(piece) = pieces.next() else { return relayed };
            seen.extend_from_slice(piece);
            let mut slots = ResponseHead::slots();
            match ResponseHead::parse(&seen, &mut slots, to_head) {
                Ok(None) => {}
                Ok(Some(head)) => {
                    relayed.reading.head = Some(described(&head));
                    let mut body = Body::new(head.framing);
                    let length = head.length;
                    relayed.scan(&mut body, length, &seen[length..]);
                    break body;
                }
                Err(_) => {
                    relayed.reading.end = End::Malformed;
                    return relayed;
                }
            }
        };
        let mut at = seen.len();
        for piece in pieces {
            relayed.scan(&mut body, at, piece);
            at += piece.len();
        }
        if matches!(body, Body::UntilClose) {
            relayed.reading.end = End::AtClose;
        }
        relayed
    }

    /// Scans the bytes at a place of the connection, unless the response is over.
    fn scan(&mut self, body: &mut Body, at: usize, bytes: &[u8]) {
        if self.reading.end != End::Incomplete {
            return;
        }
        let payload = &mut self.reading.payload;
        let scanned = body.scan(bytes, |piece| {
            assert!(!piece.is_empty(), "a chunk of it would be the last one");
            payload.extend_from_slice(piece);
        });
        let Ok(scanned) = scanned else {
            self.reading.end = End::Malformed;
            return;
        };
        assert!(scanned.verbatim <= scanned.used && scanned.used <= bytes.len());
        self.verbatim.extend_from_slice(&bytes[..scanned.verbatim]);
        if !body.is_complete() {
            assert_eq!(scanned.used, bytes.len());
            return;
        }
        self.reading.end = End::At(at + scanned.used);
        if let Body::Chunked(scanner) = body {
            self.trailers = scanner.trailers().map(<[u8]>::to_vec);
            self.reading.trailers = scanner.trailers().map(fields_of);
        }
    }

    /// What a client gets verbatim is a prefix of the body, and with the trailers that are forwarded it is a body of the
    /// same payload.
    fn passes_verbatim(&self, text: &[u8]) {
        let Some(head) = &self.reading.head else { return };
        assert!(text[head.length..].starts_with(&self.verbatim), "not verbatim: {}", text.escape_ascii());
        let (Framing::Chunked, End::At(_)) = (head.framing, self.reading.end) else { return };
        let start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let message = [start, &self.verbatim[..], self.trailers.as_deref().unwrap_or_default()].concat();
        let read = reader::read(&message, false);
        assert_eq!(read.end, End::At(message.len()), "{}", message.escape_ascii());
        assert_eq!(read.payload, self.reading.payload);
        // A section of which nothing is forwarded is none.
        let expected = self.reading.trailers.clone().filter(|fields| !fields.is_empty());
        assert_eq!(read.trailers, expected, "{}", text.escape_ascii());
    }
}

fn described(head: &ResponseHead<'_, '_>) -> Head {
    let framing = match head.framing {
        http1::Framing::Length(length) => Framing::Length(length),
        http1::Framing::Chunked => Framing::Chunked,
        http1::Framing::UntilClose => Framing::UntilClose,
    };
    Head {
        status: head.status,
        reason: head.reason.to_owned(),
        fields: head.forwarded().map(owned).collect(),
        length: head.length,
        framing,
        keep_alive: head.keep_alive,
    }
}

fn owned(field: &http1::Field<'_>) -> Field {
    (field.name.to_owned(), field.value.to_vec())
}

/// The fields of a trailer section, as they go to clients that speak HTTP/2.
fn fields_of(section: &[u8]) -> Vec<Field> {
    let mut slots = [http1::Field { name: "", value: b"" }; MAX_TRAILERS];
    parse_trailers(section, &mut slots).unwrap().iter().map(owned).collect()
}

/// Payload in chunks of the gateway's own, as for a body that ends with its connection.
fn is_read_as_written(payload: &[u8], cut: usize) {
    let mut message = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in payload.chunks(cut.max(payload.len() / FEW).max(1)) {
        let (line, length) = chunk_size_line(piece.len());
        message.extend_from_slice(&line[..length]);
        message.extend_from_slice(piece);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(LAST_CHUNK);
    let read = reader::read(&message, false);
    assert_eq!((read.payload.as_slice(), read.trailers, read.end), (payload, None, End::At(message.len())));
}

/// A head is parsed anew with each piece, so a connection that is longer than this does not come byte by byte.
const SHORT: usize = 256;
/// The most pieces otherwise.
const FEW: usize = 16;
/// More than any bound of a head or a line.
const LONG: usize = 80 << 10;
