//! How a connection starts: with a TLS handshake, or without one; and which HTTP it speaks.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::BytesMut;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::{ALPN, Ssl, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connections::GLANCE;
use super::scratch;
use super::socket::ClientSocket;
use crate::certificates::Meeting;
use crate::gateway::ClientConnection;

/// A connection whose version of HTTP is known.
pub(super) enum Opened {
    /// HTTP/1.1, and what came already.
    Http1(Stream, BytesMut),
    /// HTTP/2.
    Http2(Stream),
}

/// Opens a connection, unless it takes longer than the entry allows. `None`: it is over.
pub(super) async fn open(stream: Stream, meeting: Meeting, entry: &ClientConnection) -> Option<Opened> {
    let tcp = stream.into_any().downcast::<ClientSocket>().ok()?;
    match meeting {
        Meeting::Plain => until_closed(entry, peek(tcp)).await,
        // In a box: a handshake needs much more room than what follows it.
        Meeting::Tls(acceptor) => Box::pin(until_closed(entry, tls(tcp, &acceptor))).await,
    }
}

async fn until_closed(entry: &ClientConnection, opening: impl Future<Output = Option<Opened>>) -> Option<Opened> {
    let mut opening = pin!(opening);
    poll_fn(|context| match opening.as_mut().poll(context) {
        Poll::Pending => entry.poll_closed(context).map(|()| None),
        ready => ready,
    })
    .await
}

/// Over TLS, the client says in the handshake what it speaks (ALPN); without ALPN it is HTTP/1.1.
async fn tls(mut tcp: Box<ClientSocket>, acceptor: &Acceptor) -> Option<Opened> {
    let mut first = [0];
    if tcp.read(&mut first).await.ok()? == 0 {
        return None;
    }
    if first != [HANDSHAKE] {
        not_tls(tcp).await;
        return None;
    }
    tcp.unread(BytesMut::from(&first[..]));
    match acceptor.tls_handshake(*tcp).await {
        Ok(stream) if stream.selected_alpn_proto() == Some(ALPN::H2) => Some(Opened::Http2(Box::new(stream))),
        Ok(stream) => Some(Opened::Http1(Box::new(stream), BytesMut::new())),
        Err(error) => {
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
    }
}

/// Answers a client that speaks plain HTTP. What it has sent is read first: a connection that is closed with bytes unread
/// is reset, and a reset can overtake the answer.
async fn not_tls(mut tcp: Box<ClientSocket>) {
    let _ = tokio::time::timeout(GLANCE, tcp.read(&mut [0; 4096])).await;
    // An error means that the client has left.
    let _ = tcp.write_all(NOT_TLS).await;
    let _ = tcp.shutdown().await;
}

/// Reads until it is clear whether the client speaks HTTP/2 with prior knowledge (RFC 9113, section 3.3). Pingora's own
/// look waits for 24 bytes, which a short HTTP/1.0 request never sends; this one stops at the first byte that differs.
async fn peek(mut tcp: Box<ClientSocket>) -> Option<Opened> {
    let mut seen = BytesMut::new();
    poll_fn(|context| {
        while PREFACE.starts_with(&seen) && seen.len() < PREFACE.len() {
            let read = scratch::poll_read(&mut *tcp, context, |_, bytes| {
                seen.extend_from_slice(bytes);
                bytes.len()
            });
            match read {
                Poll::Ready(Ok(read)) if read > 0 => {}
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Some(()))
    })
    .await?;
    if seen.starts_with(PREFACE) {
        tcp.unread(seen);
        return Some(Opened::Http2(tcp));
    }
    Some(Opened::Http1(tcp, seen))
}

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first byte of every TLS connection: the type of its first record (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 112\r\n\
Connection: close\r\n\r\n\
{\"error\":{\"message\":\"This port speaks TLS: use https://.\",\"type\":\"invalid_request_error\",\"code\":\"tls_required\"}}";
