//! What a backend answers, as bytes.

use std::iter::once;

use crate::asked::{Kind, ROLE, asked, large, piece, short};
use crate::strict::Request;

/// The right answer, in the parts in which it is sent: a head, and the events of a stream. As from the servers of today, the
/// head comes before the first event, and the first event has no output.
pub(crate) fn right(name: &str, request: &Request) -> Box<dyn Iterator<Item = Vec<u8>> + Send> {
    match asked(&request.target) {
        Some((Kind::Stream { pieces, .. }, id)) => {
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            let (name, id) = (name.to_owned(), id.to_owned());
            let pieces = (0..pieces).map(move |i| chunk(&piece(&name, &id, i)));
            Box::new(once(head.to_vec()).chain(once(chunk(ROLE))).chain(pieces).chain(once(chunk(b""))))
        }
        Some((Kind::Large(size), _)) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", size << 20);
            Box::new(once(head.into_bytes()).chain(large(size)))
        }
        Some((Kind::Short, id)) => Box::new(once(plain(200, &short(name, id)))),
        None => {
            let mut answer = plain(200, request.target.as_bytes());
            if request.method == "HEAD" {
                answer.truncate(answer.len() - request.target.len());
            }
            Box::new(once(answer))
        }
    }
}

/// One chunk of a body.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A response with this body and its length.
pub(crate) fn plain(status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} So\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
