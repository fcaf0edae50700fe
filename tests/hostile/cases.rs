//! The form of a case.

use std::time::Duration;

/// Longer than anything takes: who waits this long hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a client does after its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It waits for its answers.
    Waits,
    /// It says at once that nothing more will come.
    HalfCloses,
}

/// Bytes from a hostile client, and what must become of them.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: End,
    pub(crate) expect: Expect,
}

/// What must become of a case.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    /// One answer with this status, then a close; nothing reaches the backend.
    Refused(u16),
    /// A close without an answer; nothing reaches the backend.
    Closed,
    /// A 200 for each of these, and exactly these reach the backend: `METHOD TARGET BODY`.
    Served(&'static [&'static str]),
}

/// The client waits for its answer.
pub(crate) fn case(name: &'static str, bytes: impl AsRef<[u8]>, expect: Expect) -> Case {
    Case { name, bytes: bytes.as_ref().to_vec(), end: End::Waits, expect }
}

/// The client ends its half of the connection: the message stays as incomplete as it is.
pub(crate) fn cut(name: &'static str, bytes: impl AsRef<[u8]>, expect: Expect) -> Case {
    Case { end: End::HalfCloses, ..case(name, bytes, expect) }
}

/// A POST to `/case` with these header lines and this body.
pub(crate) fn post(headers: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    [b"POST /case HTTP/1.1\r\nHost: a\r\n", headers.as_ref(), b"\r\n\r\n", body.as_ref()].concat()
}

/// A GET of `/case` with these header lines.
pub(crate) fn get(headers: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET /case HTTP/1.1\r\nHost: a\r\n", headers.as_ref(), b"\r\n\r\n"].concat()
}
