//! The head of a response.

use std::mem::MaybeUninit;

use super::Malformed;
use super::body::Framing;
use super::fields::{Field, MAX_FIELDS, check_line_ends, is_hop_by_hop, tokens};

/// Room for the fields of a head. It is not initialized, since filling it would cost more than parsing a small head.
pub type FieldSlots<'b> = [MaybeUninit<Field<'b>>; MAX_FIELDS];

/// The head of a response, read from the bytes of a backend.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'h, 'b> {
    /// The status, 100 to 599.
    pub status: u16,
    /// The reason phrase; may be empty.
    pub reason: &'b str,
    /// All fields, in their order.
    pub fields: &'h [Field<'b>],
    /// How many bytes the head has.
    pub length: usize,
    /// How the body is framed.
    pub framing: Framing,
    /// Whether the connection can be used again after the response.
    pub keep_alive: bool,
    /// Whether `Connection` names fields that must not be forwarded.
    nominates: bool,
}

impl<'h, 'b> ResponseHead<'h, 'b> {
    /// Room for [`ResponseHead::parse`].
    #[must_use]
    pub fn slots() -> FieldSlots<'b> {
        [const { MaybeUninit::uninit() }; MAX_FIELDS]
    }

    /// Parses the head that `bytes` start with; `Ok(None)` if it is not complete yet. `to_head` says whether it answers a
    /// HEAD request, whose response has no body.
    ///
    /// # Errors
    ///
    /// If the bytes start no response, or one that recipients could read in different ways.
    pub fn parse(
        bytes: &'b [u8],
        slots: &'h mut FieldSlots<'b>,
        to_head: bool,
    ) -> Result<Option<ResponseHead<'h, 'b>>, Malformed> {
        // `httparse` skips empty lines, which RFC 9112, section 2.2 allows before a request only.
        if matches!(bytes.first(), Some(b'\r' | b'\n')) {
            return Err(Malformed("not an HTTP/1.1 response"));
        }
        let mut parsed = httparse::Response::new(&mut []);
        let length =
            match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, slots) {
                Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD_BYTES => length,
                // It fails now, not when the rest of the head has come or the time for that is over.
                Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => {
                    return check_line_ends(bytes).map(|()| None);
                }
                Ok(_) => return Err(Malformed("the head is too large")),
                Err(error) => return Err(Malformed(describe(error))),
            };
        check_line_ends(&bytes[..length])?;
        let (status, reason, http10) =
            (parsed.code.unwrap_or_default(), parsed.reason.unwrap_or_default(), parsed.version == Some(0));
        let fields: &'h [Field<'b>] = parsed.headers;
        if !(100..600).contains(&status) {
            return Err(Malformed("invalid status"));
        }
        let mut meaning = Meaning::default();
        fields.iter().try_for_each(|field| meaning.note(field))?;
        let framing = meaning.framing(status, to_head, http10)?;
        let keep_alive = !meaning.close && (!http10 || meaning.keep_alive) && framing != Framing::UntilClose;
        Ok(Some(ResponseHead {
            status,
            reason,
            fields,
            length,
            framing,
            keep_alive,
            nominates: meaning.nominations > 0,
        }))
    }

    /// A head that the gateway makes itself, with a body of `length` bytes.
    #[must_use]
    pub fn own(status: u16, reason: &'b str, fields: &'h [Field<'b>], length: u64) -> ResponseHead<'h, 'b> {
        let framing = Framing::Length(length);
        ResponseHead { status, reason, fields, length: 0, framing, keep_alive: false, nominates: false }
    }

    /// The same without a length that is known before: its body ends with the connection, or in chunks.
    #[must_use]
    pub fn without_length(self) -> ResponseHead<'h, 'b> {
        let has_length = matches!(self.framing, Framing::Length(_));
        ResponseHead { framing: if has_length { Framing::UntilClose } else { self.framing }, ..self }
    }

    /// The value of the first field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'b [u8]> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// Whether it is an interim response (RFC 9110, section 15.2). 101 is not: it ends the request.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != SWITCHING_PROTOCOLS
    }

    /// Whether it has no body whatever its fields say (RFC 9112, section 6.3).
    #[must_use]
    pub fn is_without_body(&self) -> bool {
        is_without_body(self.status)
    }

    /// The fields that are forwarded: not those of the connection, nor lengths where no body can be.
    pub fn forwarded(&self) -> impl Iterator<Item = &Field<'b>> {
        self.fields.iter().filter(|field| self.is_forwarded(field.name))
    }

    fn is_forwarded(&self, name: &str) -> bool {
        // A server must not send it without a body (RFC 9110, section 8.6), and a client could wait for one.
        let has_length =
            matches!(self.framing, Framing::Length(_)) && (!is_without_body(self.status) || self.status == 304);
        let is_length = || !has_length && is_content_length(name);
        let is_dropped = is_hop_by_hop(name.as_bytes()) || is_length() || self.nominates && self.is_nominated(name);
        !is_dropped
    }

    /// Whether `Connection` names it. `Content-Length` frames the message, whatever `Connection` says.
    fn is_nominated(&self, name: &str) -> bool {
        let connections = self.fields.iter().filter(|field| field.name.eq_ignore_ascii_case("connection"));
        let mut nominated = connections.flat_map(|field| tokens(field.value));
        !is_content_length(name) && nominated.any(|token| token.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// What the fields of a head say of its body and its connection.
#[derive(Default)]
struct Meaning {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    nominations: usize,
}

impl Meaning {
    fn note(&mut self, field: &Field<'_>) -> Result<(), Malformed> {
        match field.name.len() {
            10 if field.name.eq_ignore_ascii_case("connection") => {
                for token in tokens(field.value) {
                    match token {
                        _ if token.eq_ignore_ascii_case(b"close") => self.close = true,
                        _ if token.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                        _ => self.nominations += 1,
                    }
                }
                if self.nominations > MAX_NOMINATIONS {
                    return Err(Malformed("too many names in Connection"));
                }
            }
            14 if is_content_length(field.name) => {
                let is_number =
                    |value: &&[u8]| value.len() <= MAX_LENGTH_DIGITS && value.iter().all(u8::is_ascii_digit);
                let digits = Some(field.value).filter(is_number);
                let length = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
                if self.length.is_some() {
                    return Err(Malformed("more than one Content-Length"));
                }
                self.length = Some(length.ok_or(Malformed("invalid Content-Length"))?);
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                if self.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed("a Transfer-Encoding other than chunked"));
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, status: u16, to_head: bool, http10: bool) -> Result<Framing, Malformed> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Malformed("both Content-Length and Transfer-Encoding")),
            (true, None) if http10 => Err(Malformed("Transfer-Encoding in HTTP/1.0")),
            _ if to_head || is_without_body(status) => Ok(Framing::Length(0)),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::UntilClose),
        }
    }
}

fn is_without_body(status: u16) -> bool {
    status < 200 || matches!(status, 204 | 304)
}

fn is_content_length(name: &str) -> bool {
    name.eq_ignore_ascii_case("content-length")
}

fn describe(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "invalid header name",
        httparse::Error::HeaderValue => "invalid header value",
        httparse::Error::NewLine => "invalid line ending",
        httparse::Error::Status => "invalid status",
        httparse::Error::TooManyHeaders => "too many header fields",
        httparse::Error::Token | httparse::Error::Version => "not an HTTP/1.1 response",
    }
}

const SWITCHING_PROTOCOLS: u16 = 101;
/// Bytes that a head may have. HAProxy's and nginx's defaults are 16 and 8 KiB.
pub const MAX_HEAD_BYTES: usize = 64 << 10;
/// Names in `Connection`: each field of a head is compared with each of them.
const MAX_NOMINATIONS: usize = 16;
/// A length of more digits can be negative to a client that reads it into 64 bits.
const MAX_LENGTH_DIGITS: usize = 18;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str, to_head: bool) -> Result<(Framing, bool, String), Malformed> {
        let mut slots = ResponseHead::slots();
        let head = ResponseHead::parse(head.as_bytes(), &mut slots, to_head)?.expect("a complete head");
        let forwarded: Vec<&str> = head.forwarded().map(|field| field.name).collect();
        Ok((head.framing, head.keep_alive, forwarded.join(" ")))
    }

    fn framing(fields: &str) -> Result<Framing, Malformed> {
        parse(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), false).map(|(framing, ..)| framing)
    }

    #[test]
    fn body_is_framed_as_rfc_9112_says() {
        assert_eq!(framing("Content-Length: 5\r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing("content-LENGTH:005\r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
        assert_eq!(framing(""), Ok(Framing::UntilClose));
        for (status, to_head) in
            [("204 No Content", false), ("304 Not Modified", false), ("200 OK", true), ("103 x", false)]
        {
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n");
            assert_eq!(parse(&head, to_head).unwrap().0, Framing::Length(0), "{status}");
        }
    }

    #[test]
    fn ambiguous_framing_is_malformed() {
        for fields in [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Content-Length: 9223372036854775808\r\n",
            "Content-Length: 0000000000000000005\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding : chunked\r\n",
            "X: a\r\n b\r\n",
            "X: a\n",
            "X: a\rY: b\r\n",
            "X: \0\r\n",
            ": x\r\n",
        ] {
            assert!(framing(fields).is_err(), "{fields:?}");
        }
        for head in [
            "HTTP/1.1 200 OK\nX: y\r\n\r\n",
            "HTTP/1.1 200 OK\nX: y",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 99 x\r\n\r\n",
            "HTTP/1.1 600 x\r\n\r\n",
        ] {
            assert!(parse(head, false).is_err(), "{head:?}");
        }
        assert!(parse("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false).is_err());
    }

    #[test]
    fn connection_is_kept_as_both_versions_say() {
        let keeps = |line: &str, fields: &str| parse(&format!("{line}\r\n{fields}\r\n"), false).unwrap().1;
        assert!(keeps("HTTP/1.1 200 OK", "Content-Length: 0\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK", "Content-Length: 0\r\nConnection: x, Close\r\n"));
        assert!(!keeps("HTTP/1.0 200 OK", "Content-Length: 0\r\n"));
        assert!(keeps("HTTP/1.0 200 OK", "Content-Length: 0\r\nConnection: Keep-Alive\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK", ""), "the body ends with it");
    }

    #[test]
    fn fields_of_the_connection_are_not_forwarded() {
        let fields = "Connection: X-Hop, content-length\r\nx-hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n\
                      Content-Length: 2\r\nX-End: 2\r\nTrailer: X\r\n";
        let forwarded = |status: &str| parse(&format!("HTTP/1.1 {status}\r\n{fields}\r\n"), false).unwrap().2;
        assert_eq!(forwarded("200 OK"), "Content-Length X-End Trailer");
        assert_eq!(forwarded("204 No Content"), "X-End Trailer", "a client might wait for a body");
        assert_eq!(forwarded("304 Not Modified"), "Content-Length X-End Trailer");
    }

    #[test]
    fn half_a_head_is_not_malformed_and_an_endless_one_is() {
        let mut slots = ResponseHead::slots();
        assert!(ResponseHead::parse(b"HTTP/1.1 200 OK\r\nContent-Le", &mut slots, false).unwrap().is_none());
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD_BYTES));
        let mut slots = ResponseHead::slots();
        assert!(ResponseHead::parse(long.as_bytes(), &mut slots, false).is_err());
    }

    #[test]
    fn names_in_connection_are_bounded() {
        for (names, is_valid) in [(MAX_NOMINATIONS, true), (MAX_NOMINATIONS + 1, false)] {
            let fields = format!("Content-Length: 0\r\nConnection: close, {}\r\n", vec!["x"; names].join(","));
            assert_eq!(framing(&fields).is_ok(), is_valid, "{names}");
            let fields = format!("Content-Length: 0\r\n{}", "Connection: x\r\n".repeat(names));
            assert_eq!(framing(&fields).is_ok(), is_valid, "{names} fields");
        }
    }

    #[test]
    fn head_over_the_bound_is_malformed_in_one_piece() {
        let rest = MAX_HEAD_BYTES - "HTTP/1.1 200 OK\r\nX: \r\n\r\n".len();
        for (length, fits) in [(rest, true), (rest + 1, false)] {
            let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(length));
            let mut slots = ResponseHead::slots();
            assert_eq!(ResponseHead::parse(head.as_bytes(), &mut slots, false).is_ok(), fits, "{length}");
        }
    }
}
