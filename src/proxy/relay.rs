//! The body of a response on its way to the client.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use super::client::{Client, Coding};
use super::pipe::{Pipe, Stop};
use crate::http1::{Body, Framing, Malformed, chunk_size_line};

/// A response on its way to a client. While nothing waits to be written, it holds no buffer.
pub(super) struct Flow {
    body: Body,
    coding: Coding,
    /// What the client did not take yet.
    out: Vec<u8>,
    written: usize,
    /// Whether the backend sent something after the end of the response.
    has_rest: bool,
}

impl Flow {
    /// A response of whose body nothing has come yet.
    pub(super) fn new(framing: Framing, coding: Coding) -> Flow {
        Flow { body: Body::new(framing), coding, out: Vec::new(), written: 0, has_rest: false }
    }

    /// Puts the head before what has come of the body.
    pub(super) fn send_head<C: Client>(&mut self, client: &mut C, head: C::Head) -> io::Result<()> {
        client.send_head(head, &mut self.out)
    }

    /// The bytes that were not written yet.
    pub(super) fn into_unwritten(self) -> Vec<u8> {
        self.out
    }

    /// Whether the backend sent the response, and nothing else.
    pub(super) fn is_clean(&self) -> bool {
        self.body.is_complete() && !self.has_rest
    }

    /// Takes bytes of the backend to be written; `payload` gets what they carry.
    pub(super) fn push(&mut self, bytes: &[u8], mut payload: impl FnMut(&[u8])) -> Result<(), Malformed> {
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

    fn trailers(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Chunked(scanner) => scanner.trailers(),
            Body::Length(_) | Body::UntilClose => None,
        }
    }

    /// Ready when everything was written.
    fn poll_drain<C: Client>(&mut self, context: &mut Context<'_>, pipe: &mut Pipe<'_, C>) -> Poll<Result<(), Stop>> {
        while self.written < self.out.len() {
            match pipe.client.poll_write(context, &self.out[self.written..]) {
                Poll::Ready(Ok(written)) if written > 0 => self.written += written,
                Poll::Ready(_) => return Poll::Ready(Err(Stop::Gone)),
                Poll::Pending => return pipe.poll_blocked(context),
            }
        }
        if self.written > 0 {
            (self.out, self.written) = (Vec::new(), 0);
        }
        pipe.poll_flush(context)
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
                let mut end = std::mem::take(&mut flow.out);
                pipe.client.push_end(flow.trailers(), &mut end);
                flow.out = end;
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
                        flow.body = Body::Length(0);
                        flow.has_rest = true;
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
