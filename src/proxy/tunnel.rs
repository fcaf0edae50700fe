//! After an upgrade (RFC 9110, section 7.8): both sides send what they like until one of them ends it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

use super::client::Client;
use super::ctx::Ctx;
use super::pipe::{Pipe, Stop};
use super::relay::Flow;
use super::{response, scratch};

/// Relays both directions. `flow` has the head of the 101, and what the backend sent with it.
///
/// # Errors
///
/// Why it ended, if neither side closed its connection.
pub(super) async fn run<C: Client>(pipe: &mut Pipe<'_, C>, flow: &mut Flow, ctx: &mut Ctx) -> Result<(), Stop> {
    let (mut down, mut up) = (Direction::new(flow.take_unwritten()), Direction::new(Vec::new()));
    poll_fn(|context| {
        loop {
            let moved_down = poll_down(pipe, &mut down, ctx, context)?;
            let moved_up = poll_up(pipe, &mut up, context)?;
            if moved_down || moved_up {
                // What one side says keeps the connection alive, whichever it is.
                pipe.attempt.progress(pipe.clock.now());
            } else if down.is_over() || up.is_over() {
                return Poll::Ready(Ok(()));
            } else {
                return pipe.attempt.poll_cut(context).map(|cut| Err(Stop::Cut(cut)));
            }
        }
    })
    .await
}

/// What one side has sent and the other one has not taken yet.
struct Direction {
    bytes: Vec<u8>,
    written: usize,
    has_ended: bool,
}

impl Direction {
    fn new(bytes: Vec<u8>) -> Direction {
        Direction { bytes, written: 0, has_ended: false }
    }

    fn wants_more(&self) -> bool {
        self.bytes.is_empty() && !self.has_ended
    }

    fn is_over(&self) -> bool {
        self.bytes.is_empty() && self.has_ended
    }

    /// Takes what was read; nothing is the end.
    fn take(&mut self, read: &[u8]) {
        self.bytes.extend_from_slice(read);
        self.has_ended = read.is_empty();
    }

    /// Writes; whether anything was written.
    fn write(&mut self, mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>) -> io::Result<bool> {
        let before = self.written;
        while self.written < self.bytes.len() {
            match write(&self.bytes[self.written..])? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => self.written += written,
                Poll::Pending => return Ok(self.written > before),
            }
        }
        let moved = self.written > before;
        (self.bytes, self.written) = (Vec::new(), 0);
        Ok(moved)
    }
}

/// From the backend to the client; whether anything was moved.
fn poll_down<C: Client>(
    pipe: &mut Pipe<'_, C>,
    down: &mut Direction,
    ctx: &mut Ctx,
    context: &mut Context<'_>,
) -> Result<bool, Stop> {
    if down.wants_more() {
        let read = scratch::poll_read(&mut *pipe.backend, context, |_, bytes| {
            response::note_body(ctx, bytes);
            down.take(bytes);
        });
        if matches!(read, Poll::Ready(Err(_))) {
            down.has_ended = true;
        }
    }
    let moved = down.write(|bytes| pipe.client.poll_write(context, bytes)).map_err(|_| Stop::Gone)?;
    // An error shows with the next write.
    let _ = pipe.client.poll_flush(context);
    Ok(moved)
}

/// From the client to the backend; whether anything was moved.
fn poll_up<C: Client>(pipe: &mut Pipe<'_, C>, up: &mut Direction, context: &mut Context<'_>) -> Result<bool, Stop> {
    if up.wants_more() {
        let read = pipe.client.poll_read_upgraded(context, |bytes| up.take(bytes));
        if matches!(read, Poll::Ready(Err(_))) {
            up.has_ended = true;
        }
    }
    let backend = &mut *pipe.backend;
    let moved = up.write(|bytes| Pin::new(&mut *backend).poll_write(context, bytes)).map_err(Stop::Failed)?;
    let _ = Pin::new(backend).poll_flush(context);
    Ok(moved)
}
