//! How a connection begins: with a TLS handshake, or without; and which HTTP it speaks.

use pingora::listeners::tls::Acceptor;
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::protocols::{ALPN, Ssl, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::limits::GLANCE;
use crate::certificates::Meeting;

/// The connection as its requests come, and whether they come over HTTP/2. `None`: it is over.
pub(super) async fn begin(stream: Stream, meeting: Meeting) -> Option<(Stream, bool)> {
    let tcp = stream.into_any().downcast::<TcpStream>().ok()?;
    match meeting {
        Meeting::Plain => peek(tcp).await,
        Meeting::Tls(acceptor) => tls(tcp, &acceptor).await,
    }
}

/// Over TLS, the client says in the handshake what it speaks (ALPN); who says nothing speaks HTTP/1.1.
async fn tls(mut tcp: Box<TcpStream>, acceptor: &Acceptor) -> Option<(Stream, bool)> {
    let mut first = [0];
    if tcp.read(&mut first).await.ok()? == 0 {
        return None;
    }
    if first != [HANDSHAKE] {
        not_tls(tcp).await;
        return None;
    }
    tcp.rewind(&first);
    match acceptor.tls_handshake(*tcp).await {
        Ok(stream) => {
            let http2 = stream.selected_alpn_proto() == Some(ALPN::H2);
            Some((Box::new(stream), http2))
        }
        Err(error) => {
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
    }
}

/// Says to a client that speaks plain HTTP what is wrong. What it has sent is read first: a connection that is closed
/// with bytes unread is reset, and a reset may overtake the answer.
async fn not_tls(mut tcp: Box<TcpStream>) {
    let _ = tokio::time::timeout(GLANCE, tcp.read(&mut [0; 4096])).await;
    // An error says that nobody wants to know.
    let _ = tcp.write_all(NOT_TLS).await;
    let _ = tcp.shutdown().await;
}

/// Whether the client speaks HTTP/2 without being asked (RFC 9113, section 3.3). Pingora's own look waits for 24 bytes,
/// which a short HTTP/1.0 request never sends; this one stops at the first byte that differs.
async fn peek(mut tcp: Box<TcpStream>) -> Option<(Stream, bool)> {
    let mut seen = [0; PREFACE.len()];
    let mut len = 0;
    while len < seen.len() && seen[..len] == PREFACE[..len] {
        match tcp.read(&mut seen[len..]).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => len += n,
        }
    }
    tcp.rewind(&seen[..len]);
    Some((tcp, seen == *PREFACE))
}

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first byte of every TLS connection: the type of its first record (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 112\r\n\
Connection: close\r\n\r\n\
{\"error\":{\"message\":\"This port speaks TLS: use https://.\",\"type\":\"invalid_request_error\",\"code\":\"tls_required\"}}";
