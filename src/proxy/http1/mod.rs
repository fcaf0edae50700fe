//! HTTP/1.1 towards clients: one connection, its requests one after another.
//!
//! Heads are read here, so that a connection without a request holds no buffer; Pingora parses and validates them. What
//! follows a head is the client's (`client.rs`), so that a body can be read while a response is written.

mod client;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use http::{Version, header};
use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter};
use pingora::protocols::Stream;
use pingora::protocols::http::v1::server::HttpSession;
use pingora::server::ShutdownWatch;
use tokio::task::unconstrained;

use super::client::{Client, Connection};
use super::cors::Cors;
use super::ctx::Ctx;
use super::refusal::{Refusal, Refused};
use super::{exchange, head, scratch};
use crate::gateway::{ClientConnection, Gateway};
use crate::http1::is_token;
use client::Http1;
pub(super) use client::is_own;

/// Serves the requests of a connection, of the first of which some bytes came already. After `shutdown` it serves one more.
pub(super) async fn serve(
    gateway: Arc<Gateway>,
    connection: Arc<Connection>,
    entry: ClientConnection,
    (mut stream, mut unread): (Stream, BytesMut),
    shutdown: &ShutdownWatch,
) {
    loop {
        let max = gateway.snapshot.load().config.limits.max_header_bytes.saturating_add(HEAD_OVERHEAD);
        let Some(bytes) = read_head(&mut stream, unread, &entry, max).await else { return };
        if !entry.set_busy() {
            return;
        }
        let mut ctx = Box::new(Ctx::new(&gateway, &connection));
        let Some((mut client, accepted)) = open(stream, bytes, &mut ctx) else { return };
        if *shutdown.borrow() {
            client.close_after();
        }
        exchange::serve(&mut client, &mut ctx, accepted).await;
        drop(ctx);
        (stream, unread) = match client.next() {
            Ok(next) => next,
            Err(client) => return client.close().await,
        };
        entry.set_idle(gateway.clock.now());
    }
}

/// Reads a head, at most about `max` bytes of it. `None` if the connection is over.
async fn read_head(stream: &mut Stream, mut bytes: BytesMut, entry: &ClientConnection, max: usize) -> Option<BytesMut> {
    poll_fn(|context| {
        while !is_head(&bytes) && can_be_head(&bytes) && bytes.len() <= max {
            let read = scratch::poll_read(stream, context, |_, read| {
                bytes.extend_from_slice(read);
                !read.is_empty()
            });
            match read {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(None),
                Poll::Pending => return entry.poll_closed(context).map(|()| None),
            }
        }
        Poll::Ready(Some(()))
    })
    .await?;
    Some(bytes)
}

/// Whether the bytes are the start of a head, as far as the request line shows. Otherwise a client that speaks another
/// protocol, such as TLS, would wait for an answer.
fn can_be_head(bytes: &[u8]) -> bool {
    let line = &bytes[empty_lines(bytes)..];
    let (line, is_whole) = memchr(b'\n', line).map_or((line, false), |end| (&line[..end], true));
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let has_version = || [&b" HTTP/1.1"[..], b" HTTP/1.0"].iter().any(|version| line.ends_with(version));
    line.first().is_none_or(|first| is_token(*first)) && memchr(b'\r', line).is_none() && (!is_whole || has_version())
}

/// Whether there is a whole head: an empty line after the request line.
fn is_head(bytes: &[u8]) -> bool {
    let bytes = &bytes[empty_lines(bytes)..];
    let is_end = |at: usize| matches!(bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]);
    // Nearly all lines end with CRLF, and one search for four bytes is faster.
    HEAD_END.find(bytes).is_some() || memchr_iter(b'\n', bytes).any(is_end)
}

/// Whether the request line has a control character, which Pingora would percent-encode.
fn has_control(bytes: &[u8]) -> bool {
    let bytes = &bytes[empty_lines(bytes)..];
    let line = &bytes[..memchr(b'\n', bytes).unwrap_or(bytes.len())];
    line.strip_suffix(b"\r").unwrap_or(line).iter().any(u8::is_ascii_control)
}

/// Bytes of empty lines before the request line, which servers should ignore (RFC 9112, section 2.2).
fn empty_lines(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
}

/// The client of a request with this head, and whether the request is accepted. Pingora parses and validates the head.
/// `None` if it does not give the connection back.
fn open(stream: Stream, bytes: BytesMut, ctx: &mut Ctx) -> Option<(Http1, Result<(), Refused>)> {
    if !is_head(&bytes) && can_be_head(&bytes) {
        ctx.cors = Cors::of_start(&bytes, &ctx.connection, &ctx.snapshot);
        return Some((Http1::new(stream, BytesMut::new(), &ctx.form, false), Err(Refusal::HEAD_TOO_LARGE.into())));
    }
    let has_control = has_control(&bytes);
    let mut session = HttpSession::new(stream);
    session.set_pipelined_prefix(bytes);
    if !matches!(at_once(session.read_request()), Some(Ok(Some(_)))) {
        return Some((
            Http1::new(session.into_inner(), BytesMut::new(), &ctx.form, false),
            Err(Refusal::MALFORMED.into()),
        ));
    }
    let accepted = match has_control {
        true => Err(Refusal::BAD_TARGET_BYTE.into()),
        false => head::accept(session.req_header(), Some(&session.get_headers_raw_bytes()), ctx),
    };
    let is_http10 = session.req_header().version == Version::HTTP_10;
    let (stream, unread) = take_apart(session)?;
    Some((Http1::new(stream, unread, &ctx.form, is_http10), accepted))
}

/// The connection behind a session, and what came after the head. Pingora gives both away once the request is over, which
/// it is at once for a head that announces no body.
fn take_apart(mut session: HttpSession) -> Option<(Stream, BytesMut)> {
    let head = session.req_header_mut();
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
        head.remove_header(&name);
    }
    session.set_server_keepalive(Some(0));
    session.set_pipelining_enabled(true);
    let (stream, rest) = at_once(session.reuse())?.ok()??.into_parts();
    Some((stream, rest.unwrap_or_default()))
}

/// What a future is ready with that has nothing to wait for.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(unconstrained(future)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

static HEAD_END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));
/// What a head has besides what `limits.max_header_bytes` counts: its version, line ends, whitespace.
const HEAD_OVERHEAD: usize = 1 << 10;
