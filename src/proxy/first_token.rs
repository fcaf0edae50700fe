//! Streams before their first output: held, given up, continued.
//!
//! Current servers send the head of a stream at once and work on the prompt for seconds afterwards. Until the first event
//! with output nothing but the head and comments reaches the client, so the request can still go to another backend.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use http::StatusCode;

use super::client::Client;
use super::ctx::Ctx;
use super::pipe::{Pipe, Stop};
use super::response::{self, Reply};
use crate::core::Millis;
use crate::gauge::Share;
use crate::sse::{FirstOutput, MAX_HELD, Verdict};

/// How much of a stream has reached the client, over all attempts.
#[derive(Default)]
pub(super) struct Opening {
    /// When the head is sent even without output; set by the first head of any attempt.
    pub(super) due: Option<Millis>,
    /// Whether the head was sent.
    pub(super) is_sent: bool,
    /// What the client did not take yet of what was sent.
    pub(super) unwritten: Vec<u8>,
    /// Whether a backend has sent the head of a stream, or an error event.
    pub(super) has_answered: bool,
    /// Whether the request was sent again after a failure of the server itself.
    pub(super) server_failed: bool,
}

/// A stream without output.
pub(super) struct Held {
    first: FirstOutput,
    /// For what is held beyond [`COVERED`].
    memory: Option<Share>,
}

impl Held {
    /// A stream of which nothing has come yet; `continues` if the client has the head of another one.
    pub(super) fn new(continues: bool) -> Held {
        let first = if continues { FirstOutput::continuing() } else { FirstOutput::default() };
        Held { first, memory: None }
    }

    /// Takes payload of the stream.
    pub(super) fn push(&mut self, payload: &[u8]) {
        self.first.push(payload);
    }

    /// Whether there is memory for what is held.
    fn has_memory(&mut self, ctx: &Ctx) -> bool {
        if self.memory.is_none() && self.first.held() > COVERED {
            let limits = &ctx.snapshot.config.limits;
            let memory = ctx.gateway().bodies.take(MAX_HELD, limits.memory_for_retry_bodies);
            self.memory = memory.filter(|_| ctx.gateway().has_memory(limits));
            return self.memory.is_some();
        }
        true
    }
}

/// Waits for the first output of a stream, which its flow holds then.
///
/// # Errors
///
/// Why there is none. What the client did not take yet is in [`Opening::unwritten`] then.
pub(super) async fn wait<C: Client>(
    pipe: &mut Pipe<'_, C>,
    ctx: &mut Ctx,
    reply: &mut Reply<C::Head>,
) -> Result<(), Stop> {
    let waited = poll_fn(|context| poll_output(context, pipe, ctx, reply)).await;
    if waited.is_err() {
        ctx.opening.unwritten = reply.flow.take_unwritten();
    }
    waited
}

fn poll_output<C: Client>(
    context: &mut Context<'_>,
    pipe: &mut Pipe<'_, C>,
    ctx: &mut Ctx,
    reply: &mut Reply<C::Head>,
) -> Poll<Result<(), Stop>> {
    loop {
        let Some(held) = &mut reply.held else { return Poll::Ready(Ok(())) };
        if reply.flow.is_complete() {
            held.first.end();
        }
        match held.first.verdict() {
            Verdict::Error(error) => return Poll::Ready(Err(Stop::ErrorEvent(Box::new(error.clone())))),
            Verdict::Output => return Poll::Ready(start(pipe, ctx, reply)),
            Verdict::Wait if reply.flow.is_complete() => return Poll::Ready(Err(Stop::Ended)),
            Verdict::Wait => {}
        }
        if !held.has_memory(ctx) {
            return Poll::Ready(start(pipe, ctx, reply));
        }
        if !ctx.opening.is_sent && ctx.opening.due.is_some_and(|due| pipe.clock.now() >= due) {
            send_head(pipe, ctx, reply)?;
        }
        if ctx.opening.is_sent {
            pass(context, pipe, ctx, reply)?;
        }
        let Reply { flow, held, .. } = &mut *reply;
        let Some(held) = held else { return Poll::Ready(Ok(())) };
        ready!(pipe.poll_read(context, |_, _, bytes| flow.hold(bytes, |payload| held.push(payload))))??;
    }
}

/// Sends the comments that have come. A client that does not take them does not keep the stream from being read: what is
/// held has a bound of its own.
fn pass<C: Client>(
    context: &mut Context<'_>,
    pipe: &mut Pipe<'_, C>,
    ctx: &mut Ctx,
    reply: &mut Reply<C::Head>,
) -> Result<(), Stop> {
    if let Some(held) = reply.held.as_mut().filter(|_| reply.flow.unwritten() < MAX_UNWRITTEN) {
        let passable = held.first.take_passable();
        ctx.record.bytes_out(passable.len());
        reply.flow.push_payload(&passable);
    }
    match reply.flow.poll_write(context, pipe.client) {
        Poll::Ready(written) => written,
        Poll::Pending => Ok(()),
    }
}

/// The first output came: the response has started.
fn start<C: Client>(pipe: &mut Pipe<'_, C>, ctx: &mut Ctx, reply: &mut Reply<C::Head>) -> Result<(), Stop> {
    if ctx.opening.is_sent && reply.continues {
        ctx.snapshot.metrics.retries.resumed();
    }
    if !ctx.opening.is_sent {
        send_head(pipe, ctx, reply)?;
    }
    let is_error = reply.held.as_ref().is_some_and(|held| held.first.is_error());
    let meaning = if is_error { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    response::start(ctx, pipe.attempt, StatusCode::OK.as_u16(), meaning.as_u16());
    if let Some(mut held) = reply.held.take() {
        let payload = held.first.take_all();
        response::note_body(ctx, &payload);
        reply.flow.push_payload(&payload);
    }
    Ok(())
}

fn send_head<C: Client>(pipe: &mut Pipe<'_, C>, ctx: &mut Ctx, reply: &mut Reply<C::Head>) -> Result<(), Stop> {
    ctx.opening.is_sent = true;
    ctx.record.head_sent(StatusCode::OK.as_u16());
    match reply.head.take() {
        Some(head) => reply.flow.send_head(pipe.client, head).map_err(|_| Stop::Gone),
        None => Ok(()),
    }
}

/// Bytes that wait for the client beyond which comments stay among what is held.
const MAX_UNWRITTEN: usize = 8 << 10;
/// Bytes that a request can hold within what is counted for each one anyway.
const COVERED: usize = 64 << 10;
