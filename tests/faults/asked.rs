//! What clients ask for, and what a right backend answers: both sides compute it from the request's own id.

use crate::client::Req;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An event stream of so many pieces, with so many milliseconds between two, and between the head and the first event.
    Stream { pieces: usize, pause: u64 },
    /// A short answer with a length.
    Short,
    /// An answer of so many MiB.
    Large(usize),
}

/// One request of a test's client.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// No other request of the scenario has it.
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) session: Option<String>,
    /// Bytes of its body beyond the id.
    pub(crate) padding: usize,
    /// Whether the body's length stays undeclared.
    pub(crate) chunked: bool,
}

impl Asked {
    pub(crate) fn request(&self) -> Req {
        let req = match self.kind {
            Kind::Stream { pieces, pause } => Req::post(&format!("/stream/{pieces}/{pause}/{}", self.id), &self.body()),
            Kind::Short => Req::get(&format!("/short/{}", self.id)),
            Kind::Large(size) => Req::get(&format!("/large/{size}/{}", self.id)),
        };
        let req = self.session.iter().fold(req, |req, session| req.session(session));
        if self.chunked { req.chunked(10_000) } else { req }
    }

    fn body(&self) -> Vec<u8> {
        body(&self.id, self.padding)
    }

    /// What this backend answers.
    pub(crate) fn expected(&self, backend: &str) -> Vec<u8> {
        match self.kind {
            Kind::Stream { pieces, .. } => {
                let pieces = (0..pieces).flat_map(|i| piece(backend, &self.id, i));
                ROLE.iter().copied().chain(pieces).collect()
            }
            Kind::Short => short(backend, &self.id),
            Kind::Large(size) => large(size).flatten().collect(),
        }
    }
}

/// The body of a request: its id, then a pattern that tells its place in every line.
fn body(id: &str, padding: usize) -> Vec<u8> {
    let mut body = format!("{id}\n").into_bytes();
    let end = body.len() + padding;
    for line in 0.. {
        if body.len() >= end {
            break;
        }
        body.extend(format!("{id} {line}\n").bytes());
    }
    body.truncate(end);
    body
}

/// Whether a backend was sent what the client of `id` has sent.
pub(crate) fn is_body(id: &str, sent: &[u8]) -> bool {
    let own = id.len() + 1;
    sent.len() >= own && sent == body(id, sent.len() - own)
}

/// The first event of a stream, which has no output: a chat's role.
pub(crate) const ROLE: &[u8] =
    b"data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";

/// Whether the first output is in this much of a stream.
pub(crate) fn has_output(stream: &[u8]) -> bool {
    stream.strip_prefix(ROLE).is_some_and(|pieces| !pieces.is_empty())
}

/// The backend whose output is in this much of a stream.
pub(crate) fn origin(stream: &[u8]) -> Option<&str> {
    let piece = std::str::from_utf8(stream.strip_prefix(ROLE)?).ok()?;
    Some(piece.strip_prefix("data: ")?.split_once(" says ")?.0)
}

/// One event of a stream that has output.
pub(crate) fn piece(backend: &str, id: &str, number: usize) -> Vec<u8> {
    format!("data: {backend} says {number} to {id}\n\n").into_bytes()
}

/// A short answer.
pub(crate) fn short(backend: &str, id: &str) -> Vec<u8> {
    format!("{backend} says hello to {id}").into_bytes()
}

/// A large answer, in parts of 64 KiB.
pub(crate) fn large(size: usize) -> impl Iterator<Item = Vec<u8>> + Send {
    (0..16 * size).map(|part| format!("{part:15}\n").into_bytes().repeat(4096))
}

/// What a target asks for: its kind, and the id. `None`: it is not of a test's client.
pub(crate) fn asked(target: &str) -> Option<(Kind, &str)> {
    let mut parts = target.strip_prefix('/')?.split('/');
    match parts.next()? {
        "stream" => {
            let (pieces, pause) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some((Kind::Stream { pieces, pause }, parts.next()?))
        }
        "large" => Some((Kind::Large(parts.next()?.parse().ok()?), parts.next()?)),
        "short" => Some((Kind::Short, parts.next()?)),
        _ => None,
    }
}
