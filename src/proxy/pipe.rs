//! The two connections of an attempt: the request goes one way while the response comes the other way.
//!
//! Whoever waits here is also woken when the client leaves and when the attempt is cut.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::protocols::Stream;
use tokio::io::AsyncWrite;

use super::body::upload_due;
use super::client::{BodyError, Client};
use super::refusal::Refusal;
use super::scratch;
use crate::clock::Clock;
use crate::config::{Config, duration};
use crate::core::Millis;
use crate::http1::{LAST_CHUNK, Malformed, chunk_size_line};
use crate::link::{Attempt, Cut, Limit, of_system};
use crate::sse::ErrorEvent;

/// An attempt's connections.
pub(super) struct Pipe<'a, C> {
    pub(super) client: &'a mut C,
    pub(super) backend: &'a mut Stream,
    pub(super) upload: Upload,
    pub(super) attempt: &'a Attempt,
    pub(super) clock: Clock,
}

/// Why an attempt came to an end before its response was complete.
#[derive(Debug)]
pub(super) enum Stop {
    /// The backend closed the connection.
    Closed,
    /// The stream ended without output.
    Ended,
    /// The backend sent an error event before any output.
    ErrorEvent(Box<ErrorEvent>),
    /// The connection to the backend failed.
    Failed(io::Error),
    /// What the backend sent is no response.
    Malformed(Malformed),
    /// The attempt was cut.
    Cut(Cut),
    /// The client has left.
    Gone,
    /// The attempt was cut while the client read nothing.
    Stuck(Cut),
    /// The client's request gets an answer of the gateway.
    Refused(Refusal),
}

impl Stop {
    /// Why the attempt was cut, if it was.
    pub(super) fn cut(&self) -> Option<Cut> {
        match self {
            Stop::Cut(cut) => Some(*cut),
            _ => None,
        }
    }

    /// What happened, in an operator's words.
    pub(super) fn in_words(&self, config: &Config) -> String {
        match self {
            Stop::Closed => "the backend closed the connection".to_owned(),
            Stop::Ended => "the stream ended without output".to_owned(),
            Stop::ErrorEvent(event) => format!("the backend sent an error event: {}", event.message),
            Stop::Failed(error) => format!("the connection to the backend failed: {}", of_system(error)),
            Stop::Malformed(Malformed(what)) => format!("malformed response: {what}"),
            Stop::Cut(cut) => in_words(*cut, config),
            Stop::Gone => "the client left".to_owned(),
            Stop::Stuck(Cut::Idle) => {
                let idle = config.pool().timeouts.idle.unwrap_or_default();
                format!("the client read nothing for {} (timeouts.idle)", duration(idle))
            }
            Stop::Stuck(cut) => format!("the client did not read: {}", in_words(*cut, config)),
            Stop::Refused(refusal) => refusal.code.to_owned(),
        }
    }
}

/// Why an attempt was cut, with the limit and its key.
fn in_words(cut: Cut, config: &Config) -> String {
    let timeouts = &config.pool().timeouts;
    let (what, time, setting) = match cut {
        Cut::Unhealthy => return "the backend turned unhealthy".to_owned(),
        Cut::Upload => return "the client sent its request too slowly (limits.header_timeout)".to_owned(),
        Cut::FirstByte => ("no first byte", timeouts.first_byte, "timeouts.first_byte"),
        Cut::FirstToken => ("no first token", timeouts.first_token, "timeouts.first_token"),
        Cut::Idle => ("no byte", timeouts.idle, "timeouts.idle"),
        Cut::Total => ("not complete", timeouts.total, "timeouts.total"),
    };
    match time {
        Some(time) => format!("{what} within {}", Limit { time, setting }),
        // The backend took no more of the request, which the client sent too slowly for.
        None => format!("{what} in time (limits.header_timeout)"),
    }
}

impl<C: Client> Pipe<'_, C> {
    /// Reads what the backend has sent; `take` gets it, nothing at the end of the connection. Sends more of the request
    /// before.
    pub(super) fn poll_read<R>(
        &mut self,
        context: &mut Context<'_>,
        take: impl FnOnce(&mut C, &mut Context<'_>, &[u8]) -> R,
    ) -> Poll<Result<R, Stop>> {
        if !self.upload.is_over() {
            self.poll_upload(context)?;
        }
        let Pipe { client, backend, .. } = self;
        match scratch::poll_read(&mut **backend, context, |context, bytes| take(client, context, bytes)) {
            Poll::Ready(read) => Poll::Ready(read.map_err(Stop::Failed)),
            Poll::Pending => self.poll_stop(context).map(Err),
        }
    }

    /// Waits for a client that does not read. It may still be sending.
    pub(super) fn poll_blocked<R>(&mut self, context: &mut Context<'_>) -> Poll<Result<R, Stop>> {
        if !self.upload.is_over() {
            self.poll_upload(context)?;
        }
        self.attempt.poll_cut(context).map(|cut| Err(Stop::Stuck(cut)))
    }

    /// Ready when everything that was written is on its way to the client.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        match self.client.poll_flush(context) {
            Poll::Ready(flushed) => Poll::Ready(flushed.map_err(|_| Stop::Gone)),
            Poll::Pending => self.poll_blocked(context),
        }
    }

    /// Writes to the client.
    pub(super) async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), Stop> {
        poll_fn(|context| {
            while !bytes.is_empty() {
                match self.client.poll_write(context, bytes) {
                    Poll::Ready(Ok(written)) if written > 0 => bytes = &bytes[written..],
                    Poll::Ready(_) => return Poll::Ready(Err(Stop::Gone)),
                    Poll::Pending => return self.poll_blocked(context),
                }
            }
            self.poll_flush(context)
        })
        .await
    }

    /// Ready when there is no use in waiting any longer.
    pub(super) fn poll_stop(&mut self, context: &mut Context<'_>) -> Poll<Stop> {
        if let Poll::Ready(cut) = self.attempt.poll_cut(context) {
            // The rest of the request is late because the backend takes no more of it.
            let is_backends = cut == Cut::Upload && self.upload.is_blocked;
            return Poll::Ready(Stop::Cut(if is_backends { Cut::FirstByte } else { cut }));
        }
        self.client.poll_gone(context).map(|()| Stop::Gone)
    }

    fn poll_upload(&mut self, context: &mut Context<'_>) -> Result<(), Stop> {
        let Pipe { client, backend, upload, attempt, clock } = self;
        upload.poll(context, &mut **client, backend, attempt, *clock)
    }
}

/// A request on its way to a backend.
pub(super) struct Upload {
    /// What is being written, first this, then `body`.
    head: Vec<u8>,
    body: Bytes,
    written: usize,
    rest: Rest,
    is_flushed: bool,
    /// Whether all of it was sent.
    is_complete: bool,
    /// Whether the backend takes no more at the moment.
    is_blocked: bool,
}

/// What follows what is being written.
enum Rest {
    Nothing,
    FromClient(FromClient),
}

/// A body that is sent while it comes.
pub(super) struct FromClient {
    /// Whether the backend gets it in chunks.
    pub(super) chunked: bool,
    /// The most bytes that it can have.
    pub(super) max: u64,
    /// How long the client can pause.
    pub(super) grace: Duration,
    /// When the request started.
    pub(super) started: Millis,
}

impl Upload {
    /// A request whose body is here.
    pub(super) fn whole(head: Vec<u8>, body: Bytes) -> Upload {
        Upload { head, body, written: 0, rest: Rest::Nothing, is_flushed: false, is_complete: false, is_blocked: false }
    }

    /// A request of whose body only the start is here.
    pub(super) fn streamed(mut head: Vec<u8>, start: BytesMut, source: FromClient) -> Upload {
        let body = start.freeze();
        if source.chunked && !body.is_empty() {
            head.extend_from_slice(size_line(body.len()).as_slice());
        }
        let mut upload = Upload::whole(head, Bytes::new());
        upload.set_body(body, source.chunked);
        upload.rest = Rest::FromClient(source);
        upload
    }

    /// Whether nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        self.is_flushed && matches!(self.rest, Rest::Nothing)
    }

    /// Whether all of the request was sent.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Gives the memory of what was sent back.
    pub(super) fn clear(&mut self) {
        if self.is_over() {
            (self.head, self.body) = (Vec::new(), Bytes::new());
        }
    }

    /// Sends as much as the backend takes now. A backend that takes no more may have answered already, so that is no error
    /// yet.
    fn poll<C: Client>(
        &mut self,
        context: &mut Context<'_>,
        client: &mut C,
        backend: &mut Stream,
        attempt: &Attempt,
        clock: Clock,
    ) -> Result<(), Stop> {
        loop {
            let wrote = self.poll_write(context, backend);
            self.is_blocked = wrote.is_pending();
            match wrote {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.give_up();
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
            let Rest::FromClient(source) = &self.rest else {
                self.is_complete = true;
                return Ok(());
            };
            let (chunked, max) = (source.chunked, source.max);
            let mut piece = BytesMut::new();
            match client.poll_body(context, &mut piece) {
                Poll::Ready(Ok(_)) if client.body_received() > max => {
                    return Err(Stop::Refused(Refusal::BODY_TOO_LARGE));
                }
                Poll::Ready(Ok(0)) => {
                    attempt.sent(clock.now());
                    self.rest = Rest::Nothing;
                    self.next(Vec::new(), Bytes::from_static(if chunked { LAST_CHUNK } else { b"" }));
                }
                Poll::Ready(Ok(length)) => {
                    let now = clock.now();
                    attempt.uploading(upload_due(source.grace, source.started, now, client.body_received()));
                    self.next(if chunked { size_line(length) } else { Vec::new() }, Bytes::new());
                    self.set_body(piece.freeze(), chunked);
                }
                Poll::Ready(Err(BodyError::Gone)) => return Err(Stop::Gone),
                Poll::Ready(Err(BodyError::Refused(refusal))) => return Err(Stop::Refused(refusal)),
                Poll::Pending => return Ok(()),
            }
        }
    }

    fn next(&mut self, head: Vec<u8>, body: Bytes) {
        (self.head, self.body, self.written, self.is_flushed) = (head, body, 0, false);
    }

    /// A chunk ends with CRLF.
    fn set_body(&mut self, body: Bytes, chunked: bool) {
        self.body = match chunked && !body.is_empty() {
            true => [&body[..], b"\r\n"].concat().into(),
            false => body,
        };
    }

    fn give_up(&mut self) {
        self.rest = Rest::Nothing;
        self.is_flushed = true;
        self.clear();
    }

    /// Writes head and body in one call, so that a small request is one packet.
    fn poll_write(&mut self, context: &mut Context<'_>, backend: &mut Stream) -> Poll<io::Result<()>> {
        loop {
            let head = self.head.get(self.written..).unwrap_or_default();
            let body = &self.body[self.written.saturating_sub(self.head.len())..];
            if head.is_empty() && body.is_empty() {
                break;
            }
            let slices = [IoSlice::new(head), IoSlice::new(body)];
            match Pin::new(&mut *backend).poll_write_vectored(context, &slices) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.written += written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Pin::new(&mut *backend).poll_flush(context).map_ok(|()| self.is_flushed = true)
    }
}

fn size_line(length: usize) -> Vec<u8> {
    let (line, length) = chunk_size_line(length);
    line[..length].to_vec()
}
