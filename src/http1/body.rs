//! Where a body ends.

use super::Malformed;
use super::chunked::{ChunkedScanner, Scanned};

/// How a body is framed (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// It has this many bytes; 0 also for messages without a body.
    Length(u64),
    /// In chunks.
    Chunked,
    /// It ends with the connection; responses only.
    UntilClose,
}

/// A body on its way, as far as its end has to be found.
#[derive(Debug)]
pub enum Body {
    /// This many bytes are still to come.
    Length(u64),
    /// In chunks.
    Chunked(ChunkedScanner),
    /// It ends with the connection.
    UntilClose,
}

impl Body {
    /// A body of which nothing has come yet.
    #[must_use]
    pub fn new(framing: Framing) -> Body {
        match framing {
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(ChunkedScanner::default()),
            Framing::UntilClose => Body::UntilClose,
        }
    }

    /// Whether all of it has come. A body that ends with its connection never is.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match self {
            Body::Length(remaining) => *remaining == 0,
            Body::Chunked(scanner) => scanner.is_complete(),
            Body::UntilClose => false,
        }
    }

    /// Whether it comes in chunks, and the next byte starts one.
    #[must_use]
    pub fn is_between_chunks(&self) -> bool {
        matches!(self, Body::Chunked(scanner) if scanner.is_between_chunks())
    }

    /// Scans the next bytes of the connection; `payload` gets what they carry, without a copy.
    ///
    /// # Errors
    ///
    /// If they are not the next bytes of such a body.
    pub fn scan(&mut self, bytes: &[u8], mut payload: impl FnMut(&[u8])) -> Result<Scanned, Malformed> {
        let used = match self {
            Body::Chunked(scanner) => return scanner.scan(bytes, payload),
            Body::UntilClose => bytes.len(),
            Body::Length(remaining) => {
                let used = usize::try_from(*remaining).unwrap_or(usize::MAX).min(bytes.len());
                *remaining -= used as u64;
                used
            }
        };
        if used > 0 {
            payload(&bytes[..used]);
        }
        Ok(Scanned { used, verbatim: used })
    }
}
