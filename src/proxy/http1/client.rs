//! A client that sent a request over HTTP/1.1.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::StatusCode;
use pingora::prelude::{sleep, timeout};
use pingora::protocols::Stream;
use pingora::protocols::http::date::get_cached_date;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::super::client::{Added, BodyError, Client, Coding};
use super::super::form::Form;
use super::super::head::write_field;
use super::super::refusal::Refusal;
use super::super::scratch;
use super::super::socket::ClientSocket;
use crate::http1::{Body, Framing, ResponseHead};

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
    /// Whether the client was told that it can.
    has_promised: bool,
    /// Whether a response did not come to its end.
    is_broken: bool,
}

impl Http1 {
    /// A client whose request has this form. `unread` came after the head.
    pub(super) fn new(stream: Stream, unread: BytesMut, form: &Form, is_http10: bool) -> Http1 {
        let framing = match form.length {
            // Where it ends is not clear.
            _ if !form.is_valid => Framing::UntilClose,
            _ if form.chunked => Framing::Chunked,
            length => Framing::Length(length.unwrap_or(0)),
        };
        let (body, keeps) = (Body::new(framing), form.is_valid && form.keeps);
        Http1 { stream, unread, body, received: 0, is_http10, keeps, has_promised: false, is_broken: false }
    }

    /// The connection, if another request can come on it, and the start of that request, as far as it came already.
    ///
    /// # Errors
    ///
    /// The client, whose connection must be closed.
    pub(super) fn next(self) -> Result<(Stream, BytesMut), Http1> {
        let keeps = self.keeps && (self.has_promised || self.unread.is_empty());
        if keeps { Ok((self.stream, self.unread)) } else { Err(self) }
    }

    /// Ends the connection. Over TLS, the client can tell a whole response from one that was cut by the alert that this sends.
    pub(super) async fn close(mut self) {
        if !self.is_broken && self.stream.get_ssl_digest().is_some() {
            let _ = timeout(MAX_CLOSE, self.stream.shutdown()).await;
        }
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
        if self.has_promised {
            // The next request comes while this one's response is on its way. What is not read here waits.
            let mut early = [0; MAX_EARLY];
            let mut buffer = ReadBuf::new(&mut early);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            self.unread.extend_from_slice(buffer.filled());
            return if read.is_ok() && !self.unread.is_empty() { Poll::Pending } else { Poll::Ready(()) };
        }
        let unread = &mut self.unread;
        let read = scratch::poll_read(&mut self.stream, context, |_, bytes| {
            // The next request, before this one's response. It is not served: the connection closes.
            unread.extend_from_slice(&bytes[..bytes.len().min(MAX_EARLY)]);
            !bytes.is_empty()
        });
        if matches!(ready!(read), Ok(true)) { Poll::Pending } else { Poll::Ready(()) }
    }

    fn head(&mut self, response: &ResponseHead<'_, '_>, added: &Added<'_>) -> Vec<u8> {
        let coding = self.coding(response.framing);
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
        if coding == Coding::Chunked || response.framing == Framing::Chunked && coding == Coding::Verbatim {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS.as_u16() {
            self.keeps = false;
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        } else if !self.keeps {
            out.extend_from_slice(b"Connection: close\r\n");
        } else {
            self.has_promised = true;
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        if let Some((backend, affinity)) = added.placement {
            write_field(&mut out, b"X-Ingle-Backend", backend.as_bytes());
            write_field(&mut out, b"X-Ingle-Affinity", affinity.as_bytes());
        }
        if added.unbuffered {
            out.extend_from_slice(b"X-Accel-Buffering: no\r\n");
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

    /// The connection closes before the end of the body. In HTTP/1.0 that can be the end, so it is reset, which drops what
    /// the system has not sent yet.
    async fn break_off(&mut self) {
        (self.keeps, self.is_broken) = (false, true);
        if let Some(socket) = self.stream.as_any().downcast_ref::<ClientSocket>().filter(|_| self.is_http10) {
            sleep(FLUSH).await;
            socket.reset_on_close();
        }
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
pub(in super::super) fn is_own(name: &str) -> bool {
    name.eq_ignore_ascii_case("x-ingle-backend") || name.eq_ignore_ascii_case("x-ingle-affinity")
}

fn malformed() -> BodyError {
    BodyError::Refused(Refusal::MALFORMED)
}

/// Bytes of a next request that are read while this one is served.
const MAX_EARLY: usize = 256;
/// Bytes of a body that are read at once.
const MAX_READ: usize = 64 << 10;
/// Room for the next read that is not worth growing the buffer for.
const MIN_READ: usize = 4 << 10;
const ROOM_FOR_HEAD: usize = 512;
/// How long what was written has to leave before the connection is reset.
const FLUSH: Duration = Duration::from_millis(20);
/// For a client that does not read the end of its connection.
const MAX_CLOSE: Duration = Duration::from_secs(1);
