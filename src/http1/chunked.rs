//! The chunked transfer coding (RFC 9112, section 7.1).

use super::Malformed;
use super::extension::Extension;
use super::fields::{Field, check_line_ends, is_allowed_trailer, is_token};

/// Finds the end of a chunked body, and its payload.
///
/// Stricter than the grammar where recipients differ: a chunk size has at most `MAX_SIZE_DIGITS` digits, there is no
/// whitespace after it or in its extensions, and lines end with CRLF.
#[derive(Debug)]
pub struct ChunkedScanner {
    state: State,
    /// Bytes of the current chunk that are still to come.
    remaining: u64,
    digits: u8,
    extension_bytes: u16,
    /// The trailer section with its final CRLF. It is held until it is complete, since it is forwarded without the fields
    /// that a proxy must not forward.
    trailers: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension(Extension),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// After the last chunk: the empty line, or the first trailer.
    LastChunk,
    EndLf,
    Trailers,
    End,
}

/// How much of the scanned bytes belongs to a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Bytes that belong to the body, from the first one on.
    pub used: usize,
    /// Bytes of those that can be forwarded unchanged, from the first one on: all but the trailer section.
    pub verbatim: usize,
}

impl Default for ChunkedScanner {
    fn default() -> ChunkedScanner {
        ChunkedScanner { state: State::Size, remaining: 0, digits: 0, extension_bytes: 0, trailers: None }
    }
}

impl ChunkedScanner {
    /// Whether the body has ended.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == State::End
    }

    /// Whether the next byte is the first one of a chunk's size: what follows can be the start of another chunked body.
    #[must_use]
    pub fn is_between_chunks(&self) -> bool {
        self.state == State::Size && self.digits == 0
    }

    /// Scans the next bytes; `payload` gets what they carry, without a copy.
    ///
    /// # Errors
    ///
    /// If they are not the next bytes of a chunked body. Nothing after the first malformed byte has been used.
    pub fn scan(&mut self, bytes: &[u8], mut payload: impl FnMut(&[u8])) -> Result<Scanned, Malformed> {
        let mut at = 0;
        let mut verbatim = None;
        while at < bytes.len() && self.state != State::End {
            match self.state {
                State::Data => {
                    let here = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len() - at);
                    payload(&bytes[at..at + here]);
                    at += here;
                    self.remaining -= here as u64;
                    if self.remaining == 0 {
                        self.state = State::DataCr;
                    }
                }
                State::Trailers => {
                    verbatim.get_or_insert(at);
                    at += self.scan_trailers(&bytes[at..])?;
                }
                State::LastChunk if is_token(bytes[at]) => self.state = State::Trailers,
                _ => {
                    self.state = self.next(bytes[at])?;
                    at += 1;
                }
            }
        }
        Ok(Scanned { used: at, verbatim: verbatim.unwrap_or(at) })
    }

    fn next(&mut self, byte: u8) -> Result<State, Malformed> {
        Ok(match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.digits < MAX_SIZE_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.digits += 1;
                self.remaining = self.remaining << 4 | u64::from(digit);
                State::Size
            }
            (State::Size, b';') if self.digits > 0 => State::Extension(Extension::default()),
            (State::Size, b'\r') if self.digits > 0 => State::SizeLf,
            (State::Extension(extension), b'\r') if extension.can_end() => State::SizeLf,
            (State::Extension(extension), _) if self.extension_bytes < MAX_EXTENSION_BYTES => {
                self.extension_bytes += 1;
                State::Extension(extension.next(byte)?)
            }
            (State::SizeLf, b'\n') => {
                (self.digits, self.extension_bytes) = (0, 0);
                if self.remaining == 0 { State::LastChunk } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::LastChunk, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => State::End,
            (State::Size | State::SizeLf, _) => return Err(Malformed("invalid chunk size")),
            (State::Extension(_), _) => return Err(Malformed("the chunk extensions are too long")),
            (State::DataCr | State::DataLf, _) => return Err(Malformed("a chunk is longer than its size")),
            _ => return Err(Malformed("invalid end of a chunked body")),
        })
    }

    /// Takes bytes up to the end of the trailer section.
    fn scan_trailers(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let section = self.trailers.get_or_insert_default();
        for (at, byte) in bytes.iter().enumerate() {
            if *byte == b'\n' && section.last() != Some(&b'\r') {
                return Err(Malformed("a line ends without CR"));
            }
            section.push(*byte);
            if section.ends_with(b"\r\n\r\n") {
                *section = forwarded_trailers(section)?;
                self.state = State::End;
                return Ok(at + 1);
            }
            if section.len() >= MAX_TRAILER_BYTES {
                return Err(Malformed("the trailer section is too long"));
            }
        }
        Ok(bytes.len())
    }

    /// The trailer section of a complete body as it is forwarded, with its final CRLF, which [`Scanned::verbatim`] leaves
    /// out then; `None` if the body has no trailer section.
    #[must_use]
    pub fn trailers(&self) -> Option<&[u8]> {
        self.trailers.as_deref()
    }
}

/// The lines of a trailer section that are forwarded, unchanged: with more whitespace, a section that fits the bound here
/// could exceed it at the next recipient.
fn forwarded_trailers(section: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut kept = Vec::with_capacity(section.len());
    let mut slots = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let lines = section.split_inclusive(|byte| *byte == b'\n');
    for (field, line) in parse_trailers(section, &mut slots)?.iter().zip(lines) {
        if is_allowed_trailer(field.name.as_bytes()) {
            kept.extend_from_slice(line);
        }
    }
    kept.extend_from_slice(b"\r\n");
    Ok(kept)
}

/// The fields of a trailer section that ends with its final CRLF.
///
/// # Errors
///
/// If it is none.
pub fn parse_trailers<'h, 'b>(
    section: &'b [u8],
    slots: &'h mut [Field<'b>; MAX_TRAILERS],
) -> Result<&'h [Field<'b>], Malformed> {
    check_line_ends(section)?;
    match httparse::parse_headers(section, slots) {
        Ok(httparse::Status::Complete((_, fields))) => Ok(fields),
        _ => Err(Malformed("invalid trailer section")),
    }
}

/// The line before a chunk of `length` bytes; CRLF follows the chunk.
#[must_use]
pub fn chunk_size_line(length: usize) -> ([u8; 18], usize) {
    let mut line = [0; 18];
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1) as usize;
    for (place, slot) in line[..digits].iter_mut().rev().enumerate() {
        *slot = b"0123456789abcdef"[length >> (4 * place) & 15];
    }
    line[digits..digits + 2].copy_from_slice(b"\r\n");
    (line, digits + 2)
}

/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// A chunk of 2^60 bytes has one more.
const MAX_SIZE_DIGITS: u8 = 15;
/// No known server sends extensions; the bound is nginx's for a line.
const MAX_EXTENSION_BYTES: u16 = 4096;
const MAX_TRAILER_BYTES: usize = 8192;
/// Fields that a trailer section may have.
pub const MAX_TRAILERS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// What a scanner makes of bytes that come in two parts.
    fn scan(bytes: &[u8], cut: usize) -> Result<(usize, Vec<u8>, Vec<u8>, ChunkedScanner), Malformed> {
        let (mut scanner, mut payload, mut verbatim, mut used) = (ChunkedScanner::default(), vec![], vec![], 0);
        for part in [&bytes[..cut], &bytes[cut..]] {
            let scanned = scanner.scan(part, |piece| payload.extend_from_slice(piece))?;
            verbatim.extend_from_slice(&part[..scanned.verbatim]);
            used += scanned.used;
        }
        Ok((used, payload, verbatim, scanner))
    }

    #[test]
    fn end_is_found_wherever_the_bytes_are_cut() {
        let body = b"5\r\nhello\r\n1;x=\"y\";z\r\n!\r\n0\r\n\r\n";
        let whole = [&body[..], b"NEXT"].concat();
        for cut in 0..whole.len() {
            let (used, payload, verbatim, scanner) = scan(&whole, cut).unwrap();
            assert_eq!((used, &payload[..], scanner.is_complete()), (body.len(), &b"hello!"[..], true), "{cut}");
            assert_eq!((verbatim, scanner.trailers()), (body.to_vec(), None), "{cut}");
        }
    }

    #[test]
    fn trailers_are_held_and_filtered() {
        let body = b"1\r\nx\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nX-End:2\r\n\r\n";
        for cut in 0..body.len() {
            let (used, _, verbatim, scanner) = scan(body, cut).unwrap();
            assert_eq!((used, &verbatim[..]), (body.len(), &b"1\r\nx\r\n0\r\n"[..]), "{cut}");
            assert_eq!(scanner.trailers(), Some(&b"X-Sum: 1\r\nX-End:2\r\n\r\n"[..]), "{cut}");
        }
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for bad in [
            "\r\n",
            "g\r\n",
            " 5\r\n",
            "5 \r\n",
            "5\nhello",
            "+5\r\n",
            "0x5\r\n",
            "5;\x01\r\n",
            "5;a\n",
            "5;\r\n",
            "5; a\r\n",
            "5;a=\"\r\n",
            "5\rX",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "5\r\nhello\rX",
            "0\r\n\n",
            "0\r\n\rX",
            "0\r\nA: b\n\r\n\r\n",
            "0\r\nA\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\nA: b\r\n c\r\n\r\n",
            "0\r\nA: \0\r\n\r\n",
            "1000000000000000\r\n",
            "0000000000000000\r\n",
        ] {
            assert!(ChunkedScanner::default().scan(bad.as_bytes(), |_| ()).is_err(), "{bad:?}");
        }
        let long = format!("0\r\nA: {}", "x".repeat(MAX_TRAILER_BYTES));
        assert!(ChunkedScanner::default().scan(long.as_bytes(), |_| ()).is_err());
        let long = format!("5;{}\r\n", "x".repeat(usize::from(MAX_EXTENSION_BYTES) + 1));
        assert!(ChunkedScanner::default().scan(long.as_bytes(), |_| ()).is_err());
    }

    #[test]
    fn what_is_written_is_read() {
        for length in [1, 9, 10, 15, 16, 255, 256, 4095, 65_536] {
            let (line, digits) = chunk_size_line(length);
            let body = [&line[..digits], &vec![b'x'; length], b"\r\n", LAST_CHUNK].concat();
            let (used, payload, _, scanner) = scan(&body, 0).unwrap();
            assert_eq!((used, payload.len(), scanner.is_complete()), (body.len(), length, true));
        }
    }
}
