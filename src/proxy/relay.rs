//! The body of a response on its way to the client.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use super::client::{Client, Coding};
use super::pipe::{Pipe, Stop};
use crate::http1::{Body, Framing, LAST_CHUNK, Malformed, chunk_size_line};

/// A response on its way to a client. While nothing waits to be written, it holds no buffer.
pub(super) struct Flow {
    body: Body,
    coding: Coding,
    /// Whether the bytes pass unchanged from the next chunk on.
    becomes_verbatim: bool,
    /// What the client did not take yet.
    out: Vec<u8>,
    written: usize,
    /// Whether the backend sent something after the end of the response.
    has_rest: bool,
}

impl Flow {
    /// A response of whose body nothing has come yet.
    pub(super) fn new(framing: Framing, coding: Coding) -> Flow {
        Flow { body: Body::new(framing), coding, becomes_verbatim: false, out: Vec::new(), written: 0, has_rest: false }
    }

    /// A stream whose start is held: its payload is framed anew, until a chunk starts whose bytes can pass. `unwritten` are
    /// bytes of the response that the client did not take yet.
    pub(super) fn held<C: Client>(framing: Framing, client: &C, unwritten: Vec<u8>) -> Flow {
        let coding = match client.coding(Framing::UntilClose) {
            Coding::Verbatim => Coding::Payload,
            coding => coding,
        };
        let becomes_verbatim = coding == Coding::Chunked && framing == Framing::Chunked;
        Flow { becomes_verbatim, out: unwritten, ..Flow::new(framing, coding) }
    }

    /// Puts the head before what has come of the body.
    pub(super) fn send_head<C: Client>(&mut self, client: &mut C, head: C::Head) -> io::Result<()> {
        client.send_head(head, &mut self.out)
    }

    /// Takes the bytes that were not written yet.
    pub(super) fn take_unwritten(&mut self) -> Vec<u8> {
        self.out.drain(..std::mem::take(&mut self.written));
        std::mem::take(&mut self.out)
    }

    /// Whether the backend sent all of the response.
    pub(super) fn is_complete(&self) -> bool {
        self.body.is_complete()
    }

    /// Bytes that were not written yet.
    pub(super) fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }

    /// Whether the backend sent the response, and nothing else.
    pub(super) fn is_clean(&self) -> bool {
        self.is_complete() && !self.has_rest
    }

    /// Takes bytes of the backend that are not written yet: `payload` gets what they carry. Returns whether the response has
    /// ended; no bytes are the end of the connection.
    pub(super) fn hold(&mut self, bytes: &[u8], payload: impl FnMut(&[u8])) -> Result<bool, Stop> {
        match (bytes, &self.body) {
            ([], Body::UntilClose) => self.end_with_connection(),
            ([], _) => return Err(Stop::Closed),
            (bytes, _) => {
                let scanned = self.body.scan(bytes, payload).map_err(Stop::Malformed)?;
                self.has_rest |= scanned.used < bytes.len();
            }
        }
        Ok(self.body.is_complete())
    }

    /// Takes payload to be written.
    pub(super) fn push_payload(&mut self, payload: &[u8]) {
        match self.coding {
            _ if payload.is_empty() => {}
            Coding::Chunked => push_chunk(&mut self.out, payload),
            Coding::Verbatim | Coding::Payload => self.out.extend_from_slice(payload),
        }
    }

    /// Takes bytes of the backend to be written; `payload` gets what they carry.
    pub(super) fn push(&mut self, bytes: &[u8], mut payload: impl FnMut(&[u8])) -> Result<(), Malformed> {
        self.settle_coding();
        let Flow { body, coding, out, has_rest, .. } = self;
        let scanned = body.scan(bytes, |piece| {
            payload(piece);
            match coding {
                Coding::Verbatim => {}
                Coding::Payload => out.extend_from_slice(piece),
                Coding::Chunked => push_chunk(out, piece),
            }
        })?;
        *has_rest |= scanned.used < bytes.len();
        if *coding == Coding::Verbatim {
            out.extend_from_slice(&bytes[..scanned.verbatim]);
        }
        Ok(())
    }

    /// [`Flow::push`], but writes what the client takes at once.
    fn pass<C: Client>(
        &mut self,
        context: &mut Context<'_>,
        client: &mut C,
        bytes: &[u8],
        payload: impl FnMut(&[u8]),
    ) -> Result<(), Stop> {
        self.settle_coding();
        if self.coding != Coding::Verbatim || !self.out.is_empty() {
            return self.push(bytes, payload).map_err(Stop::Malformed);
        }
        let scanned = self.body.scan(bytes, payload).map_err(Stop::Malformed)?;
        self.has_rest |= scanned.used < bytes.len();
        let mut rest = &bytes[..scanned.verbatim];
        while !rest.is_empty() {
            match client.poll_write(context, rest) {
                Poll::Ready(Ok(written)) if written > 0 => rest = &rest[written..],
                Poll::Ready(_) => return Err(Stop::Gone),
                Poll::Pending => break,
            }
        }
        self.out.extend_from_slice(rest);
        Ok(())
    }

    fn settle_coding(&mut self) {
        if self.becomes_verbatim && self.body.is_between_chunks() {
            (self.coding, self.becomes_verbatim) = (Coding::Verbatim, false);
        }
    }

    fn end_with_connection(&mut self) {
        self.body = Body::Length(0);
        self.has_rest = true;
    }

    /// Takes the end of the body to be written.
    fn push_end(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        match (self.coding, self.trailers()) {
            (Coding::Chunked, None) => out.extend_from_slice(LAST_CHUNK),
            (Coding::Chunked, Some(trailers)) => {
                out.extend_from_slice(b"0\r\n");
                out.extend_from_slice(trailers);
            }
            (Coding::Verbatim, Some(trailers)) => out.extend_from_slice(trailers),
            (Coding::Verbatim, None) | (Coding::Payload, _) => {}
        }
        self.out = out;
    }

    fn trailers(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Chunked(scanner) => scanner.trailers(),
            Body::Length(_) | Body::UntilClose => None,
        }
    }

    /// Ready when everything was written.
    fn poll_drain<C: Client>(&mut self, context: &mut Context<'_>, pipe: &mut Pipe<'_, C>) -> Poll<Result<(), Stop>> {
        match self.poll_write(context, pipe.client) {
            Poll::Ready(Ok(())) => pipe.poll_flush(context),
            Poll::Ready(Err(stop)) => Poll::Ready(Err(stop)),
            Poll::Pending => pipe.poll_blocked(context),
        }
    }

    /// Writes what the client takes. Ready when that was everything.
    pub(super) fn poll_write<C: Client>(
        &mut self,
        context: &mut Context<'_>,
        client: &mut C,
    ) -> Poll<Result<(), Stop>> {
        while self.written < self.out.len() {
            match ready!(client.poll_write(context, &self.out[self.written..])) {
                Ok(written) if written > 0 => self.written += written,
                _ => return Poll::Ready(Err(Stop::Gone)),
            }
        }
        if self.written > 0 {
            (self.out, self.written) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

/// Relays what is left of a response; `payload` gets the bytes that it carries, before they are written.
///
/// # Errors
///
/// Why it did not come to its end.
pub(super) async fn relay<C: Client>(
    pipe: &mut Pipe<'_, C>,
    flow: &mut Flow,
    mut payload: impl FnMut(&[u8]),
) -> Result<(), Stop> {
    let mut ended = false;
    poll_fn(|context| {
        loop {
            if !ended && flow.body.is_complete() {
                ended = true;
                flow.push_end();
            }
            ready!(flow.poll_drain(context, pipe))?;
            if ended {
                return Poll::Ready(pipe.client.finish(flow.trailers()).map_err(|_| Stop::Gone));
            }
            let clock = pipe.clock;
            let attempt = pipe.attempt;
            let step = pipe.poll_read(context, |client, context, bytes| {
                attempt.progress(clock.now());
                match (bytes, &flow.body) {
                    ([], Body::UntilClose) => {
                        flow.end_with_connection();
                        Ok(())
                    }
                    ([], _) => Err(Stop::Closed),
                    (bytes, _) => flow.pass(context, client, bytes, &mut payload),
                }
            });
            ready!(step)??;
        }
    })
    .await
}

fn push_chunk(out: &mut Vec<u8>, piece: &[u8]) {
    let (line, length) = chunk_size_line(piece.len());
    out.extend_from_slice(&line[..length]);
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\r\n");
}
