//! The form of a case: what a backend does, and what a client can get of it.

use std::fmt;

use crate::reader::Field;

/// One thing that a backend does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes one by one, with a pause after each.
    Drip(Vec<u8>),
    /// Sends these bytes again and again, until the gateway closes the connection.
    Flood(Vec<u8>),
    /// Sends this many bytes that show their place, in chunks of [`PIECE`] bytes if they are chunked.
    Count(usize, bool),
    /// Reads this many bytes of the request, if its head was all that was read before (`/early`).
    Take(usize),
    /// Waits until the gateway sends no more, since nothing is read here.
    AwaitBlocked,
    /// Waits until the client has the head and this many bytes of payload.
    Await(usize),
    /// Waits until the client has all of its answer.
    AwaitEnd,
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
    /// Waits until the gateway closes the connection.
    Hang,
}

/// What a client can get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Must {
    /// This status and payload, to the end.
    Whole(u16, Vec<u8>),
    /// An answer of the gateway with this status, or the answer of another backend.
    Refused(u16),
    /// This status and a part of this payload; the end shows that the rest is missing.
    Broken(u16, Vec<u8>),
}

impl fmt::Display for Must {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = |payload: &[u8]| payload[..payload.len().min(40)].escape_ascii().to_string();
        match self {
            Must::Whole(status, payload) => write!(f, "{status} {:?}", start(payload)),
            Must::Refused(status) => write!(f, "{status} of the gateway"),
            Must::Broken(status, payload) => write!(f, "{status} {:?} broken", start(payload)),
        }
    }
}

/// What becomes of the connection to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It serves the next request.
    Kept,
    /// It serves no other request.
    Dropped,
}

/// A hostile answer.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Of the request.
    pub(crate) method: &'static str,
    pub(crate) steps: Vec<Step>,
    pub(crate) must: Must,
    pub(crate) fate: Fate,
    /// Statuses of interim responses that an HTTP/1.1 client gets.
    pub(crate) interim: Vec<u16>,
    /// The trailer fields that HTTP/1.1 and HTTP/2 clients get.
    pub(crate) trailers: Vec<Field>,
    /// A field that the client must get with this value.
    pub(crate) field: Option<(&'static str, Vec<u8>)>,
}

impl Case {
    /// An answer that no client gets.
    pub(crate) fn refused(name: impl Into<String>, bytes: impl AsRef<[u8]>) -> Case {
        Case {
            name: name.into(),
            method: "GET",
            steps: vec![Step::Send(bytes.as_ref().to_vec())],
            must: Must::Refused(502),
            fate: Fate::Dropped,
            interim: Vec::new(),
            trailers: Vec::new(),
            field: None,
        }
    }

    /// An answer with status 200 that clients get whole; its connection is kept.
    pub(crate) fn whole(name: impl Into<String>, bytes: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Case {
        let must = Must::Whole(200, payload.as_ref().to_vec());
        Case { must, fate: Fate::Kept, ..Case::refused(name, bytes) }
    }

    /// An answer with status 200 that breaks off within this payload.
    pub(crate) fn broken(name: impl Into<String>, bytes: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Case {
        let must = Must::Broken(200, payload.as_ref().to_vec());
        Case { must, ..Case::refused(name, bytes) }
    }

    /// The connection is not used again.
    pub(crate) fn dropped(self) -> Case {
        Case { fate: Fate::Dropped, ..self }
    }

    /// After the first bytes, the backend does this.
    pub(crate) fn then(mut self, steps: impl IntoIterator<Item = Step>) -> Case {
        self.steps.extend(steps);
        self
    }

    /// The backend does this alone.
    pub(crate) fn steps(self, steps: impl IntoIterator<Item = Step>) -> Case {
        Case { steps: steps.into_iter().collect(), ..self }
    }

    pub(crate) fn method(self, method: &'static str) -> Case {
        Case { method, ..self }
    }

    /// The status of the answer, of the backend or of the gateway.
    pub(crate) fn status(self, status: u16) -> Case {
        let must = match self.must {
            Must::Whole(_, payload) => Must::Whole(status, payload),
            Must::Broken(_, payload) => Must::Broken(status, payload),
            Must::Refused(_) => Must::Refused(status),
        };
        Case { must, ..self }
    }

    pub(crate) fn interim(self, interim: impl Into<Vec<u16>>) -> Case {
        Case { interim: interim.into(), ..self }
    }

    pub(crate) fn trailers(self, trailers: &[(&str, &str)]) -> Case {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
        Case { trailers: trailers.iter().map(owned).collect(), ..self }
    }

    pub(crate) fn field(self, name: &'static str, value: impl AsRef<[u8]>) -> Case {
        Case { field: Some((name, value.as_ref().to_vec())), ..self }
    }
}

/// What [`Step::Count`] sends: numbers of four bytes.
pub(crate) fn counted(from: usize, length: usize) -> Vec<u8> {
    (from / 4..(from + length) / 4).flat_map(|n| u32::try_from(n).unwrap().to_be_bytes()).collect()
}

/// Bytes that a backend sends at once of an answer that is long.
pub(crate) const PIECE: usize = 16 << 10;

/// A head with status 200 and these lines.
pub(crate) fn head(lines: impl AsRef<[u8]>) -> Vec<u8> {
    match lines.as_ref() {
        [] => b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        lines => [b"HTTP/1.1 200 OK\r\n", lines, b"\r\n\r\n"].concat(),
    }
}

/// An answer with status 200, these lines and this body.
pub(crate) fn answer(lines: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    [&head(lines)[..], body.as_ref()].concat()
}

/// An answer with status 200 in chunks.
pub(crate) fn chunked(body: impl AsRef<[u8]>) -> Vec<u8> {
    answer("Transfer-Encoding: chunked", body)
}
