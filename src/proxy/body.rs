//! The request's body: read before a backend is chosen, and kept so that it can be sent again.
//!
//! Reading first means that a slow client holds no place at a backend, and that a malformed body never reaches one. A
//! body that is too large to hold is sent while it comes.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::prelude::timeout;

use super::client::{BodyError, Client};
use super::ctx::Ctx;
use super::head::BodyFraming;
use super::refusal::{Refusal, Refused};
use crate::clock::Clock;
use crate::core::Millis;
use crate::gauge::Share;

/// A request's body.
pub(super) enum Body {
    /// There is none.
    Empty,
    /// All of it is here.
    Held { bytes: Bytes, _memory: Share },
    /// It is too large to hold, or the memory for bodies is used up: what came of it, if none of it was sent yet. The rest
    /// is sent as it comes.
    Streamed { start: BytesMut, _memory: Option<Share> },
    /// It was sent to a backend that has started to answer, or in part to one that failed.
    Sent,
}

/// Reads the body as far as it can be held.
pub(super) async fn hold<C: Client>(client: &mut C, ctx: &mut Ctx) -> Result<(), Refused> {
    if client.is_body_complete() {
        return Ok(());
    }
    let length = ctx.form.length;
    let limits = &ctx.snapshot.config.limits;
    if length.is_some_and(|length| length > limits.max_body) {
        return Err(Refusal::BODY_TOO_LARGE.into());
    }
    ctx.bytes = length.unwrap_or(0);
    // Memory for a body of unknown length is taken as it comes.
    let wanted = length.map_or(FIRST_RESERVATION, |length| usize::try_from(length).unwrap_or(usize::MAX));
    let fits = wanted <= ctx.snapshot.config.pool().retry.max_body.max(1);
    let Some(memory) = fits.then(|| reserve(ctx, wanted)).flatten() else {
        ctx.body = Body::Streamed { start: BytesMut::new(), _memory: None };
        return Ok(());
    };
    if let Some(bytes) = length.and_then(|_| client.body_at_hand(wanted)) {
        ctx.body = Body::Held { bytes, _memory: memory };
        return Ok(());
    }
    if ctx.form.expects_continue {
        write_continue(client).await?;
    }
    // In a box: most bodies come with their head.
    ctx.body = Box::pin(read(client, ctx, wanted, memory)).await?;
    let received = client.body_received();
    if let Body::Held { .. } = ctx.body {
        ctx.bytes = received;
    }
    if received > ctx.snapshot.config.limits.max_body { Err(Refusal::BODY_TOO_LARGE.into()) } else { Ok(()) }
}

/// Memory for a body, if the bound of bodies and that of everything have room for it.
fn reserve(ctx: &Ctx, bytes: usize) -> Option<Share> {
    let (gateway, limits) = (ctx.gateway(), &ctx.snapshot.config.limits);
    gateway.bodies.take(bytes, limits.memory_for_retry_bodies).filter(|_| gateway.has_memory(limits))
}

async fn write_continue<C: Client>(client: &mut C) -> Result<(), Refused> {
    let mut rest = CONTINUE;
    poll_fn(|context| {
        while !rest.is_empty() {
            match client.poll_write(context, rest) {
                Poll::Ready(Ok(written)) if written > 0 => rest = &rest[written..],
                Poll::Ready(_) => return Poll::Ready(Err(Refused::Gone)),
                Poll::Pending => return Poll::Pending,
            }
        }
        client.poll_flush(context).map_err(|_| Refused::Gone)
    })
    .await
}

async fn read<C: Client>(client: &mut C, ctx: &Ctx, wanted: usize, mut memory: Share) -> Result<Body, Refused> {
    let (gateway, config) = (ctx.gateway(), &ctx.snapshot.config);
    let limits = &config.limits;
    let max = config.pool().retry.max_body.min(usize::try_from(limits.max_body).unwrap_or(usize::MAX));
    let mut pace = Pace::new(limits.header_timeout, ctx);
    let mut bytes = BytesMut::with_capacity(wanted.min(MAX_AT_ONCE));
    let mut reserved = wanted;
    while pace.read(client, &mut bytes).await? > 0 {
        let more = bytes.len().saturating_sub(reserved);
        reserved += more;
        let fits = more == 0 || memory.grow(more, limits.memory_for_retry_bodies) && gateway.has_memory(limits);
        if bytes.len() > max || !fits {
            return Ok(Body::Streamed { start: bytes, _memory: Some(memory) });
        }
    }
    Ok(Body::Held { bytes: bytes.freeze(), _memory: memory })
}

impl Body {
    /// Whether another attempt can send the same bytes again.
    pub(super) fn is_replayable(&self) -> bool {
        !matches!(self, Body::Sent)
    }

    /// Whether nothing more of it has to come from the client.
    pub(super) fn is_here(&self) -> bool {
        !matches!(self, Body::Streamed { .. })
    }

    /// How it is framed for a backend.
    pub(super) fn framing(&self, declared: Option<u64>) -> BodyFraming {
        match (self, declared) {
            (Body::Held { bytes, .. }, _) => BodyFraming::Length(bytes.len() as u64),
            (Body::Streamed { .. }, None) => BodyFraming::Chunked,
            (_, Some(length)) => BodyFraming::Length(length),
            (Body::Empty | Body::Sent, None) => BodyFraming::Absent,
        }
    }
}

/// How fast a client must send: a byte within `grace`, and [`MIN_RATE`] on average after a first `grace`, so that a byte
/// now and then, which keeps a timeout between two bytes from firing, does not hold memory or a backend for ever.
struct Pace {
    grace: Duration,
    clock: Clock,
    started: Millis,
}

impl Pace {
    fn new(grace: Duration, ctx: &Ctx) -> Pace {
        Pace { grace, clock: ctx.gateway().clock, started: ctx.started }
    }

    /// The next piece; its timeout costs nothing if it is there already.
    async fn read<C: Client>(&mut self, client: &mut C, bytes: &mut BytesMut) -> Result<usize, Refused> {
        let now = self.clock.now();
        let due = upload_due(self.grace, self.started, now, client.body_received());
        let read = poll_fn(|context: &mut Context<'_>| client.poll_body(context, bytes));
        match timeout(Duration::from_millis(due.saturating_sub(now)), read).await {
            Ok(read) => read.map_err(Refused::from),
            Err(_) => Err(Refusal::SLOW_BODY.into()),
        }
    }
}

/// Until when more of a body must come, of which `received` bytes have come by `now` since `started`.
pub(super) fn upload_due(grace: Duration, started: Millis, now: Millis, received: u64) -> Millis {
    let grace = Millis::try_from(grace.as_millis()).unwrap_or(Millis::MAX);
    let on_average = started.saturating_add(grace).saturating_add(received.saturating_mul(1000) / MIN_RATE);
    on_average.min(now.saturating_add(grace))
}

impl From<BodyError> for Refused {
    fn from(error: BodyError) -> Refused {
        match error {
            BodyError::Gone => Refused::Gone,
            BodyError::Refused(refusal) => refusal.into(),
        }
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Bytes that are reserved for a body of unknown length.
const FIRST_RESERVATION: usize = 64 << 10;
/// A declared length is only a promise: no more than this is allocated before anything came.
const MAX_AT_ONCE: usize = 1 << 20;
/// Bytes a second; Apache's mod_reqtimeout has 500.
const MIN_RATE: u64 = 1024;
