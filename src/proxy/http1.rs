//! HTTP/1.1 towards clients: one connection, its requests one after another.
//!
//! Pingora reads and validates the head of each request. What follows the head is read here, so that a body can be read
//! while a response is written, and so that a connection without a request holds no buffer.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{StatusCode, Version, header};
use memchr::{memchr, memchr_iter};
use pingora::protocols::Stream;
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::http::v1::server::HttpSession;
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::task::unconstrained;

use super::client::{Added, BodyError, Client, Coding, Connection};
use super::ctx::Ctx;
use super::head::{self, write_field};
use super::refusal::{Refusal, Refused};
use super::{exchange, scratch};
use crate::gateway::{ClientConnection, Gateway};
use crate::http1::{Body, Framing, LAST_CHUNK, ResponseHead, is_token};

/// A client that sent a request over HTTP/1.1 or HTTP/1.0.
pub(super) struct Http1 {
    stream: Stream,
    /// Bytes that came and were not taken yet: the body's, then what follows it.
    unread: BytesMut,
    body: Body,
    received: u64,
    is_http10: bool,
    /// Whether the connection can be used again.
    keeps: bool,
    coding: Coding,
}

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
        let Some((mut client, accepted)) = Http1::open(stream, bytes, &mut ctx) else { return };
        if *shutdown.borrow() {
            client.close_after();
        }
        exchange::serve(&mut client, &mut ctx, accepted).await;
        drop(ctx);
        if !client.keeps || !client.unread.is_empty() {
            return;
        }
        entry.set_idle(gateway.clock.now());
        (stream, unread) = (client.stream, BytesMut::new());
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
    memchr_iter(b'\n', bytes).any(|at| matches!(bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

/// Bytes of empty lines before the request line, which servers should ignore (RFC 9112, section 2.2).
fn empty_lines(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
}

impl Http1 {
    /// The client of a request with this head, and whether the request is accepted. Pingora parses and validates the head.
    /// `None` if it does not give the connection back.
    fn open(stream: Stream, bytes: BytesMut, ctx: &mut Ctx) -> Option<(Http1, Result<(), Refused>)> {
        if !is_head(&bytes) && can_be_head(&bytes) {
            return Some((Http1::new(stream, BytesMut::new(), ctx), Err(Refusal::HEAD_TOO_LARGE.into())));
        }
        let mut session = HttpSession::new(stream);
        session.set_pipelined_prefix(bytes);
        if !matches!(at_once(session.read_request()), Some(Ok(Some(_)))) {
            return Some((Http1::new(session.into_inner(), BytesMut::new(), ctx), Err(Refusal::MALFORMED.into())));
        }
        let accepted = head::accept(session.req_header(), Some(&session.get_headers_raw_bytes()), ctx);
        let is_http10 = session.req_header().version == Version::HTTP_10;
        let (stream, unread) = take_apart(session)?;
        Some((Http1 { is_http10, ..Http1::new(stream, unread, ctx) }, accepted))
    }

    fn new(stream: Stream, unread: BytesMut, ctx: &Ctx) -> Http1 {
        let form = &ctx.form;
        let framing = match form.length {
            // Where it ends is not clear.
            _ if !form.is_valid => Framing::UntilClose,
            _ if form.chunked => Framing::Chunked,
            length => Framing::Length(length.unwrap_or(0)),
        };
        let (body, keeps) = (Body::new(framing), form.is_valid && form.keeps);
        Http1 { stream, unread, body, received: 0, is_http10: false, keeps, coding: Coding::Verbatim }
    }

    /// Reads the next bytes of a body whose length is known straight into `into`.
    fn poll_length(
        &mut self,
        context: &mut Context<'_>,
        remaining: u64,
        into: &mut BytesMut,
    ) -> Poll<Result<usize, BodyError>> {
        let limit = usize::try_from(remaining).unwrap_or(usize::MAX).min(MAX_READ);
        if into.capacity() - into.len() < limit.min(MIN_READ) {
            into.reserve(limit);
        }
        let mut room = into.limit(limit);
        let read = ready!(pin!(self.stream.read_buf(&mut room)).poll(context));
        match read {
            Ok(read) if read > 0 => {
                self.body = Body::Length(remaining - read as u64);
                Poll::Ready(Ok(read))
            }
            _ => Poll::Ready(Err(BodyError::Gone)),
        }
    }

    /// Reads the next bytes of a body in chunks.
    fn poll_chunks(&mut self, context: &mut Context<'_>, into: &mut BytesMut) -> Poll<Result<(), BodyError>> {
        let Http1 { stream, body, unread, .. } = self;
        let read = scratch::poll_read(stream, context, |_, bytes| match bytes {
            [] => Err(BodyError::Gone),
            bytes => {
                let scanned = body.scan(bytes, |piece| into.extend_from_slice(piece));
                unread.extend_from_slice(&bytes[scanned.map_err(|_| malformed())?.used..]);
                Ok(())
            }
        });
        read.map(|read| read.unwrap_or(Err(BodyError::Gone)))
    }
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

impl Client for Http1 {
    type Head = Vec<u8>;

    fn poll_body(&mut self, context: &mut Context<'_>, into: &mut BytesMut) -> Poll<Result<usize, BodyError>> {
        let before = into.len();
        while !self.body.is_complete() {
            match self.body {
                _ if !self.unread.is_empty() => {
                    let scanned = self.body.scan(&self.unread, |piece| into.extend_from_slice(piece));
                    self.unread.advance(scanned.map_err(|_| malformed())?.used);
                }
                Body::Length(remaining) => drop(ready!(self.poll_length(context, remaining, into))?),
                _ => ready!(self.poll_chunks(context, into))?,
            }
            if into.len() > before {
                break;
            }
        }
        self.received += (into.len() - before) as u64;
        Poll::Ready(Ok(into.len() - before))
    }

    fn body_at_hand(&mut self, length: usize) -> Option<Bytes> {
        if !matches!(self.body, Body::Length(_)) || self.unread.len() < length {
            return None;
        }
        let bytes = self.unread.split_to(length).freeze();
        if self.unread.is_empty() {
            // Otherwise it would keep the buffer.
            self.unread = BytesMut::new();
        }
        self.body = Body::Length(0);
        self.received = length as u64;
        Some(bytes)
    }

    fn is_body_complete(&self) -> bool {
        self.body.is_complete()
    }

    fn body_received(&self) -> u64 {
        self.received
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.body.is_complete() || !self.unread.is_empty() {
            return Poll::Pending;
        }
        let unread = &mut self.unread;
        let read = scratch::poll_read(&mut self.stream, context, |_, bytes| {
            // The next request, before it has seen this one's response. It is not served: the connection closes.
            unread.extend_from_slice(&bytes[..bytes.len().min(MAX_EARLY)]);
            !bytes.is_empty()
        });
        if matches!(ready!(read), Ok(true)) { Poll::Pending } else { Poll::Ready(()) }
    }

    fn head(&mut self, response: &ResponseHead<'_, '_>, added: &Added<'_>) -> Vec<u8> {
        self.coding = self.coding(response.framing);
        let is_delimited = matches!(response.framing, Framing::Length(_)) || !self.is_http10;
        self.keeps &= is_delimited && self.body.is_complete() && self.unread.is_empty();
        let mut out = Vec::with_capacity(ROOM_FOR_HEAD);
        write_status_line(&mut out, response.status, response.reason);
        let mut has_date = false;
        for field in response.forwarded().filter(|field| !is_own(field.name)) {
            has_date |= field.name.eq_ignore_ascii_case("date");
            write_field(&mut out, field.name.as_bytes(), field.value);
        }
        if !has_date {
            write_field(&mut out, b"Date", get_cached_date().as_bytes());
        }
        if self.coding == Coding::Chunked || response.framing == Framing::Chunked && self.coding == Coding::Verbatim {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS.as_u16() {
            self.keeps = false;
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        } else if !self.keeps {
            out.extend_from_slice(b"Connection: close\r\n");
        } else {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        if let Some((backend, affinity)) = added.placement {
            write_field(&mut out, b"X-Ingle-Backend", backend.as_bytes());
            write_field(&mut out, b"X-Ingle-Affinity", affinity.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    fn send_head(&mut self, mut head: Vec<u8>, out: &mut Vec<u8>) -> io::Result<()> {
        head.extend_from_slice(out);
        *out = head;
        Ok(())
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn push_end(&self, trailers: Option<&[u8]>, out: &mut Vec<u8>) {
        match (self.coding, trailers) {
            (Coding::Chunked, _) => out.extend_from_slice(LAST_CHUNK),
            (Coding::Verbatim, Some(trailers)) => out.extend_from_slice(trailers),
            (Coding::Verbatim, None) | (Coding::Payload, _) => {}
        }
    }

    fn finish(&mut self, _trailers: Option<&[u8]>) -> io::Result<()> {
        Ok(())
    }

    fn coding(&self, framing: Framing) -> Coding {
        match framing {
            Framing::UntilClose if !self.is_http10 => Coding::Chunked,
            Framing::Chunked if self.is_http10 => Coding::Payload,
            _ => Coding::Verbatim,
        }
    }

    fn write_interim(&mut self, response: &ResponseHead<'_, '_>, out: &mut Vec<u8>) {
        if !self.is_http10 {
            write_status_line(out, response.status, response.reason);
            for field in response.forwarded() {
                write_field(out, field.name.as_bytes(), field.value);
            }
            out.extend_from_slice(b"\r\n");
        }
    }

    fn poll_read_upgraded<R>(
        &mut self,
        context: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Poll<io::Result<R>> {
        if !self.unread.is_empty() {
            return Poll::Ready(Ok(take(&std::mem::take(&mut self.unread))));
        }
        scratch::poll_read(&mut self.stream, context, |_, bytes| take(bytes))
    }

    fn lingers(&self) -> bool {
        !self.body.is_complete()
    }

    /// The connection closes, before the end of the body.
    async fn break_off(&mut self) {
        self.keeps = false;
    }

    fn close_after(&mut self) {
        self.keeps = false;
    }
}

fn write_status_line(out: &mut Vec<u8>, status: u16, reason: &str) {
    let mut digits = itoa::Buffer::new();
    for part in ["HTTP/1.1 ", digits.format(status), " ", reason, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Whether a field is the gateway's to set.
pub(super) fn is_own(name: &str) -> bool {
    name.eq_ignore_ascii_case("x-ingle-backend") || name.eq_ignore_ascii_case("x-ingle-affinity")
}

fn malformed() -> BodyError {
    BodyError::Refused(Refusal::MALFORMED)
}

/// What a head has besides what `limits.max_header_bytes` counts: its version, line ends, whitespace.
const HEAD_OVERHEAD: usize = 1 << 10;
/// Bytes of a next request that are read while this one is served.
const MAX_EARLY: usize = 256;
/// Bytes of a body that are read at once.
const MAX_READ: usize = 64 << 10;
/// Room for the next read that is not worth growing the buffer for.
const MIN_READ: usize = 4 << 10;
const ROOM_FOR_HEAD: usize = 512;
