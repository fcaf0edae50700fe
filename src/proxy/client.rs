//! A client with one request: how its body is read, how its response is written, and when it has left.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use pingora::protocols::Stream;

use super::http2::Streams;
use super::refusal::Refusal;
use crate::access;
use crate::http1::{Framing, ResponseHead};

/// A client with one request. One implementation for each version of HTTP.
pub(super) trait Client: Send {
    /// The head of a response, ready to be sent.
    type Head: Send;

    /// Reads more of the request's body and appends it to `into`. Ready with its length; 0 at the end of the body.
    fn poll_body(&mut self, context: &mut Context<'_>, into: &mut BytesMut) -> Poll<Result<usize, BodyError>>;

    /// The body, if it has this length and all of it came with the head.
    fn body_at_hand(&mut self, length: usize) -> Option<Bytes>;

    /// Whether all of the request was read.
    fn is_body_complete(&self) -> bool;

    /// Bytes of the body that were read.
    fn body_received(&self) -> u64;

    /// Ready when the client has left. Pending for as long as it has more to say, since then it is not watched.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Makes the head of a response for this client, and decides whether its connection can be used again.
    fn head(&mut self, response: &ResponseHead<'_, '_>, added: &Added<'_>) -> Self::Head;

    /// Sends the head, or puts it before what is in `out`, which is written next.
    ///
    /// # Errors
    ///
    /// The client has left.
    fn send_head(&mut self, head: Self::Head, out: &mut Vec<u8>) -> io::Result<()>;

    /// Writes body bytes as they are on the wire, or payload, as [`Client::coding`] says. Ready with how many were taken.
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Ready when what was written is on its way.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends a response of which everything was written; `trailers` is a trailer section with its final CRLF.
    ///
    /// # Errors
    ///
    /// The client has left.
    fn finish(&mut self, trailers: Option<&[u8]>) -> io::Result<()>;

    /// How a body that comes in this framing is written to the client.
    fn coding(&self, framing: Framing) -> Coding;

    /// Appends an interim response, if the client can take one.
    fn write_interim(&mut self, response: &ResponseHead<'_, '_>, out: &mut Vec<u8>);

    /// Reads what the client sends after an upgrade; `take` gets it, nothing at the end of the connection.
    fn poll_read_upgraded<R>(
        &mut self,
        context: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Poll<io::Result<R>>;

    /// Whether the rest of the request must be read before the connection is closed: a connection that is closed with
    /// bytes unread is reset, and a reset can overtake the answer (RFC 9112, section 9.6).
    fn lingers(&self) -> bool;

    /// Ends a response that has started so that the client sees that it is broken, after what was written.
    fn break_off(&mut self) -> impl Future<Output = ()> + Send;

    /// From now on the connection is closed after the response.
    fn close_after(&mut self);
}

/// How the body of a response is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// The bytes of the backend pass unchanged, framing included.
    Verbatim,
    /// The payload alone.
    Payload,
    /// The payload in chunks of our own.
    Chunked,
}

/// What the gateway adds to the head of a response.
#[derive(Default)]
pub(super) struct Added<'a> {
    /// The name of the backend, and the affinity outcome.
    pub(super) placement: Option<(&'a HeaderValue, &'static str)>,
    /// Whether a proxy before the gateway must be kept from buffering the response, as nginx does if nothing says otherwise.
    pub(super) unbuffered: bool,
}

/// Why the body of a request ended too early.
#[derive(Debug)]
pub(super) enum BodyError {
    /// The client closed its connection or reset its stream.
    Gone,
    /// The answer that it gets.
    Refused(Refusal),
}

/// What all requests of one client connection have in common.
pub(super) struct Connection {
    /// The address of whoever connected; `None` only if the system does not know it.
    pub(super) peer: Option<IpAddr>,
    /// The same as text, for `X-Forwarded-For`.
    pub(super) peer_text: HeaderValue,
    /// The listener that accepted it, by its address in the config.
    pub(super) listener: SocketAddr,
    /// Whether it speaks TLS.
    pub(super) is_tls: bool,
    /// Its number, which no other connection has.
    pub(super) number: u64,
    /// The streams of an HTTP/2 connection.
    pub(super) streams: Option<Arc<Streams>>,
}

impl Connection {
    pub(super) fn new(stream: &Stream, listener: SocketAddr, streams: Option<Arc<Streams>>) -> Connection {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let peer = access::peer(stream);
        let text = peer.and_then(|peer| HeaderValue::from_str(&peer.to_string()).ok());
        Connection {
            peer,
            listener,
            peer_text: text.unwrap_or(HeaderValue::from_static("unknown")),
            is_tls: stream.get_ssl_digest().is_some(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            streams,
        }
    }
}
