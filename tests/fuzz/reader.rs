//! A reader of HTTP/1.1 responses, written from RFC 9110 and RFC 9112 alone. It has all bytes at once and shares nothing
//! with `ingle::http1`.
//!
//! It is as strict as the strictest client. Where RFC 9112 lets recipients choose, it refuses:
//!
//! - a bare LF or CR, obsolete folding, whitespace before a colon (sections 2.2, 5.1, 5.2)
//! - empty lines before the status line, which section 2.2 allows before a request only
//! - more than one `Content-Length`, or one beside `Transfer-Encoding`; any coding but `chunked` (sections 6.1, 6.3)
//! - whitespace around chunk sizes and in chunk extensions (section 7.1.1)
//! - more than [`MAX_HEAD`], [`MAX_FIELDS`] and the other bounds below
//!
//! In one place it accepts what the grammar does not: the space after the status code can be absent where there is no
//! reason phrase. Every client reads such a line in the same way, and the gateway writes a status line of its own.

#![allow(dead_code, reason = "each program that has this module uses a part of it")]

/// What a recipient reads in some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The head, once it is complete and well-formed.
    pub(crate) head: Option<Head>,
    /// The payload, as far as it came before the end, or before the first malformed byte.
    pub(crate) payload: Vec<u8>,
    /// The trailer fields that a proxy forwards, if the body ended with a trailer section.
    pub(crate) trailers: Option<Vec<Field>>,
    pub(crate) end: End,
}

/// Where a response ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Before this byte.
    At(usize),
    /// With the connection.
    AtClose,
    /// It can end well, with more bytes.
    Incomplete,
    /// No bytes that follow can make a response of it.
    Malformed,
}

/// A head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Empty if it is not ASCII.
    pub(crate) reason: String,
    /// The fields that a proxy forwards.
    pub(crate) fields: Vec<Field>,
    /// Bytes of the head, with its last line.
    pub(crate) length: usize,
    pub(crate) framing: Framing,
    /// Whether the connection can be used again.
    pub(crate) keep_alive: bool,
}

/// How a body is framed (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// A name as it was sent, and a value.
pub(crate) type Field = (String, Vec<u8>);

/// Reads the response at the start of `bytes`; `to_head` if it answers a HEAD request.
pub(crate) fn read(bytes: &[u8], to_head: bool) -> Reading {
    let mut reader = Reader { bytes, at: 0, payload: Vec::new(), trailers: None };
    let head = reader.head(to_head);
    let end = match &head {
        Ok(Head { framing: Framing::Length(length), .. }) => reader.take(*length),
        Ok(Head { framing: Framing::Chunked, .. }) => reader.chunks(),
        Ok(Head { framing: Framing::UntilClose, .. }) => {
            let _all = reader.take(u64::MAX);
            Err(End::AtClose)
        }
        Err(end) => Err(*end),
    };
    let end = end.map_or_else(|end| end, |()| End::At(reader.at));
    Reading { head: head.ok(), payload: reader.payload, trailers: reader.trailers, end }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    payload: Vec<u8>,
    trailers: Option<Vec<Field>>,
}

/// A line, as far as it came.
struct Line<'a> {
    text: &'a [u8],
    /// Whether no more text can follow: its CR is there.
    is_whole: bool,
    /// Whether its LF is there.
    has_ended: bool,
}

type Read<T> = Result<T, End>;

impl<'a> Reader<'a> {
    /// Section 4, and section 5 up to the empty line.
    fn head(&mut self, to_head: bool) -> Read<Head> {
        let head = self.whole_head(to_head);
        let is_too_long = self.at > MAX_HEAD || head == Err(End::Incomplete) && self.bytes.len() >= MAX_HEAD;
        if is_too_long { Err(End::Malformed) } else { head }
    }

    fn whole_head(&mut self, to_head: bool) -> Read<Head> {
        let line = self.line()?;
        check(is_status_line(line.text, line.is_whole))?;
        self.end_line(&line)?;
        let (version, status) = (line.text[7], &line.text[9..12]);
        let status: u16 = String::from_utf8_lossy(status).parse().map_err(|_| End::Malformed)?;
        let reason = String::from_utf8_lossy(line.text.get(13..).unwrap_or_default());
        let reason = if reason.is_ascii() { reason.into_owned() } else { String::new() };
        let fields = self.fields(MAX_FIELDS)?;
        check((100..600).contains(&status))?;
        let framing = framing(status, version, to_head, &fields)?;
        let options = options(&fields);
        let is_name = |option: &&String| !matches!(&option[..], "" | "close" | "keep-alive");
        check(options.iter().filter(is_name).count() <= MAX_NOMINATIONS)?;
        let keep_alive = framing != Framing::UntilClose && persists(version, &options);
        let fields = fields.into_iter().filter(|(name, _)| is_forwarded(status, name, &options)).collect();
        Ok(Head { status, reason, fields, length: self.at, framing, keep_alive })
    }

    /// Fields up to the empty line, at most `max`.
    fn fields(&mut self, max: usize) -> Read<Vec<Field>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.text.is_empty() && line.is_whole {
                return self.end_line(&line).map(|()| fields);
            }
            check(is_field(line.text, line.is_whole))?;
            self.end_line(&line)?;
            check(fields.len() < max)?;
            let colon = line.text.iter().position(|byte| *byte == b':').unwrap_or_default();
            let name = String::from_utf8_lossy(&line.text[..colon]).into_owned();
            fields.push((name, line.text[colon + 1..].trim_ascii().to_vec()));
        }
    }

    /// The next line: text, CR, LF. Neither of those stands anywhere else, nor does another control character.
    fn line(&self) -> Read<Line<'a>> {
        let rest = &self.bytes[self.at..];
        let (text, after) = rest.split_at(rest.iter().take_while(|byte| is_text(**byte)).count());
        let line = |is_whole, has_ended| Ok(Line { text, is_whole, has_ended });
        match after {
            [] => line(false, false),
            [b'\r'] => line(true, false),
            [b'\r', b'\n', ..] => line(true, true),
            _ => Err(End::Malformed),
        }
    }

    /// Goes on after a line.
    fn end_line(&mut self, line: &Line<'_>) -> Read<()> {
        if !line.has_ended {
            return Err(End::Incomplete);
        }
        self.at += line.text.len() + 2;
        Ok(())
    }

    /// Takes payload.
    fn take(&mut self, length: u64) -> Read<()> {
        let rest = &self.bytes[self.at..];
        let here = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
        self.payload.extend_from_slice(&rest[..here]);
        self.at += here;
        if here as u64 == length { Ok(()) } else { Err(End::Incomplete) }
    }

    fn peek(&self) -> Read<u8> {
        self.bytes.get(self.at).copied().ok_or(End::Incomplete)
    }

    /// Takes one byte that `is_right`.
    fn byte(&mut self, is_right: impl Fn(u8) -> bool) -> Read<()> {
        check(is_right(self.peek()?))?;
        self.at += 1;
        Ok(())
    }

    fn crlf(&mut self) -> Read<()> {
        self.byte(|byte| byte == b'\r')?;
        self.byte(|byte| byte == b'\n')
    }

    /// Section 7.1.
    fn chunks(&mut self) -> Read<()> {
        loop {
            let size = self.size()?;
            self.extensions()?;
            self.crlf()?;
            if size == 0 {
                return self.trailer_section();
            }
            self.take(size)?;
            self.crlf()?;
        }
    }

    fn size(&mut self) -> Read<u64> {
        let mut size = 0;
        let mut digits = 0;
        while digits == 0 || self.peek()?.is_ascii_hexdigit() {
            let digit = char::from(self.peek()?).to_digit(16).ok_or(End::Malformed)?;
            digits += 1;
            check(digits <= MAX_SIZE_DIGITS)?;
            size = size * 16 + u64::from(digit);
            self.at += 1;
        }
        Ok(size)
    }

    /// Section 7.1.1, without the whitespace that it calls bad.
    fn extensions(&mut self) -> Read<()> {
        let start = self.at;
        let read = self.extension_list();
        // The first semicolon does not count.
        if self.at > start + 1 + MAX_EXTENSIONS { Err(End::Malformed) } else { read }
    }

    fn extension_list(&mut self) -> Read<()> {
        while self.peek()? == b';' {
            self.at += 1;
            self.token()?;
            if self.peek()? == b'=' {
                self.at += 1;
                if self.peek()? == b'"' { self.quoted()? } else { self.token()? }
            }
        }
        Ok(())
    }

    fn token(&mut self) -> Read<()> {
        self.byte(is_tchar)?;
        while is_tchar(self.peek()?) {
            self.at += 1;
        }
        Ok(())
    }

    /// RFC 9110, section 5.6.4.
    fn quoted(&mut self) -> Read<()> {
        self.byte(|byte| byte == b'"')?;
        while self.peek()? != b'"' {
            if self.peek()? == b'\\' {
                self.at += 1;
            }
            self.byte(is_text)?;
        }
        self.byte(|byte| byte == b'"')
    }

    /// Section 7.1.2. A section is judged as soon as its end is there, since it is not forwarded before; but for a bare LF
    /// it need not end.
    fn trailer_section(&mut self) -> Read<()> {
        if !is_tchar(self.peek()?) {
            return self.crlf();
        }
        let rest = &self.bytes[self.at..];
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let section = &rest[..end.unwrap_or(rest.len()).min(MAX_TRAILER_SECTION)];
        check(section.windows(2).all(|two| two[1] != b'\n' || two[0] == b'\r'))?;
        match end {
            Some(end) if end <= MAX_TRAILER_SECTION => {}
            _ if rest.len() >= MAX_TRAILER_SECTION => return Err(End::Malformed),
            _ => return Err(End::Incomplete),
        }
        let fields = self.fields(MAX_TRAILERS)?;
        self.trailers = Some(fields.into_iter().filter(|(name, _)| is_forwarded_trailer(name)).collect());
        Ok(())
    }
}

fn check(holds: bool) -> Read<()> {
    if holds { Ok(()) } else { Err(End::Malformed) }
}

/// `HTTP-version SP status-code SP [ reason-phrase ]`; a part of it if it is not whole.
fn is_status_line(line: &[u8], is_whole: bool) -> bool {
    let fits = |(at, byte): (usize, &u8)| match at {
        0..7 => *byte == b"HTTP/1."[at],
        7 => matches!(byte, b'0' | b'1'),
        8 | 12 => *byte == b' ',
        9..12 => byte.is_ascii_digit(),
        _ => is_text(*byte),
    };
    line.iter().enumerate().all(fits) && (line.len() >= 12 || !is_whole)
}

/// `field-name ":" OWS field-value OWS`; a part of it if it is not whole.
fn is_field(line: &[u8], is_whole: bool) -> bool {
    match line.iter().position(|byte| !is_tchar(*byte)) {
        None => !is_whole,
        Some(end) => end > 0 && line[end] == b':',
    }
}

/// HTAB, SP, VCHAR and obs-text (RFC 9110, section 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

/// RFC 9110, section 5.6.2.
fn is_tchar(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`'
        | b'|' | b'~')
}

fn values<'f>(fields: &'f [Field], name: &str) -> Vec<&'f [u8]> {
    fields.iter().filter(|field| field.0.eq_ignore_ascii_case(name)).map(|field| &field.1[..]).collect()
}

/// Section 6.3.
fn framing(status: u16, version: u8, to_head: bool, fields: &[Field]) -> Read<Framing> {
    let framing = match (&values(fields, "Content-Length")[..], &values(fields, "Transfer-Encoding")[..]) {
        ([], []) => Framing::UntilClose,
        ([length], []) => {
            check(!length.is_empty() && length.len() <= MAX_LENGTH_DIGITS && length.iter().all(u8::is_ascii_digit))?;
            Framing::Length(length.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
        }
        ([], [coding]) => {
            check(version == b'1' && coding.eq_ignore_ascii_case(b"chunked"))?;
            Framing::Chunked
        }
        _ => return Err(End::Malformed),
    };
    let is_empty = to_head || matches!(status, 100..200 | 204 | 304);
    Ok(if is_empty { Framing::Length(0) } else { framing })
}

/// The options of `Connection` (RFC 9110, section 7.6.1).
fn options(fields: &[Field]) -> Vec<String> {
    let values = values(fields, "Connection").into_iter().map(String::from_utf8_lossy);
    values
        .flat_map(|value| {
            value.split(',').map(|option| option.trim_matches([' ', '\t']).to_ascii_lowercase()).collect::<Vec<_>>()
        })
        .collect()
}

/// Section 9.3.
fn persists(version: u8, options: &[String]) -> bool {
    let has = |option: &str| options.iter().any(|other| other == option);
    !has("close") && (version == b'1' || has("keep-alive"))
}

/// RFC 9110, sections 7.6.1 and 11.7; and section 8.6: no length where there can be no body.
fn is_forwarded(status: u16, name: &str, options: &[String]) -> bool {
    let name = name.to_ascii_lowercase();
    if name == "content-length" {
        return !matches!(status, 100..200 | 204);
    }
    !is_of_connection(&name) && !options.contains(&name)
}

fn is_of_connection(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "proxy-authenticate",
        "proxy-authorization",
    ];
    NAMES.contains(&name)
}

/// RFC 9110, section 6.5.1.
fn is_forwarded_trailer(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_framing = matches!(&name[..], "content-length" | "trailer");
    let is_format = matches!(&name[..], "content-encoding" | "content-type" | "content-range");
    !is_framing && !is_format && name != "host" && !is_of_connection(&name)
}

pub(crate) const MAX_HEAD: usize = 64 * 1024;
pub(crate) const MAX_FIELDS: usize = 256;
/// Names in `Connection`.
const MAX_NOMINATIONS: usize = 16;
/// 2^63 has 19.
const MAX_LENGTH_DIGITS: usize = 18;
/// 2^60 has 16.
const MAX_SIZE_DIGITS: u32 = 15;
const MAX_EXTENSIONS: usize = 4096;
const MAX_TRAILER_SECTION: usize = 8192;
pub(crate) const MAX_TRAILERS: usize = 32;
