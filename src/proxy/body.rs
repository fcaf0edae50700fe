//! The request's body: read before a backend is chosen, and kept so that it can be sent again.
//!
//! Reading first means that a slow client holds no place on a backend, and that a malformed body never reaches one.
//!
//! Pingora replays at most 64 KiB by itself ([`REPLAYED_BY_PINGORA`]). For more, its buffer is switched on only for the
//! last part: it is then never truncated, so on every attempt Pingora calls the body filter exactly once, with that
//! part and `end`, and the filter puts the whole body in its place. A chunked body, whose last part nobody knows before
//! it has come, is given a length afterwards (`reframe.rs`).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header;
use pingora::prelude::timeout;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::ctx::Ctx;
use super::reframe;
use super::refusal::{Refusal, Refused};
use crate::clock::Clock;
use crate::core::Millis;
use crate::gauge::Share;

/// A request's body.
pub(super) enum Body {
    /// There is none.
    Empty,
    /// Pingora's own buffer has it: all, or its beginning.
    Buffered { complete: bool, _memory: Share },
    /// We have all of it.
    Held { bytes: Bytes, _memory: Share },
    /// We have its beginning, which was longer than Pingora's buffer; the rest is still to come.
    Begun { prefix: Option<Bytes>, _memory: Share },
    /// It goes through as it comes: too large to hold, or the memory for bodies is used up.
    Streamed,
    /// It was held and is not needed any more: the response has begun.
    Sent,
}

/// Reads the body as far as it may be held.
pub(super) async fn hold(session: &mut Session, ctx: &mut Ctx) -> Result<(), Refused> {
    let (length, chunked) = (ctx.form.length, ctx.form.chunked);
    // Pingora must not look for the body of an upgrade: what comes after its head belongs to the other protocol.
    let upgrade = !chunked && length.is_none_or(|length| length == 0) && session.is_upgrade_req();
    if upgrade || session.as_downstream_mut().is_body_empty() {
        return Ok(());
    }
    let limits = &ctx.snapshot.config.limits;
    if length.is_some_and(|length| length > limits.max_body) {
        return Err(Refusal::BODY_TOO_LARGE.into());
    }
    ctx.bytes = length.unwrap_or(0);
    // Of an unknown length, more is taken as it comes.
    let wanted = length.map_or(REPLAYED_BY_PINGORA, |length| usize::try_from(length).unwrap_or(usize::MAX));
    let memory = match wanted <= ctx.snapshot.config.pool().retry.max_body.max(1) {
        true => held(ctx, wanted),
        false => None,
    };
    let Some(memory) = memory else {
        ctx.body = Body::Streamed;
        return Ok(());
    };
    if ctx.form.expects_continue {
        session.as_downstream_mut().write_continue_response().await?;
        session.req_header_mut().remove_header(&header::EXPECT);
    }
    let mut pace = Pace::new(limits.header_timeout, ctx);
    ctx.body = match length {
        Some(length) if wanted > REPLAYED_BY_PINGORA => read_large(session, length, memory, &mut pace).await?,
        Some(_) => read_small(session, memory, &mut pace).await?,
        None => read_unknown(session, ctx, memory, &mut pace).await?,
    };
    let received = reframe::received(session);
    if ctx.body.is_complete() {
        ctx.bytes = received;
    }
    if received > limits.max_body { Err(Refusal::BODY_TOO_LARGE.into()) } else { Ok(()) }
}

/// Memory for a body, if the bound of bodies and that of everything have room for it.
fn held(ctx: &Ctx, bytes: usize) -> Option<Share> {
    let (gateway, limits) = (ctx.gateway(), &ctx.snapshot.config.limits);
    gateway.bodies.take(bytes, limits.memory_for_retry_bodies).filter(|_| gateway.has_memory(limits))
}

async fn read_small(session: &mut Session, memory: Share, pace: &mut Pace) -> Result<Body, Refused> {
    session.as_downstream_mut().enable_retry_buffering();
    while !session.as_downstream_mut().is_body_done() {
        pace.read(session).await?;
    }
    Ok(Body::Buffered { complete: true, _memory: memory })
}

async fn read_large(session: &mut Session, length: u64, memory: Share, pace: &mut Pace) -> Result<Body, Refused> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let mut bytes = BytesMut::with_capacity(length.min(MOST_AT_ONCE));
    loop {
        if length.saturating_sub(bytes.len()) <= REPLAYED_BY_PINGORA {
            session.as_downstream_mut().enable_retry_buffering();
        }
        match pace.read(session).await? {
            Some(piece) => bytes.extend_from_slice(&piece),
            None => return Ok(Body::Held { bytes: bytes.freeze(), _memory: memory }),
        }
    }
}

/// A body of unknown length. Over HTTP/1.1 it is read to its end, as far as bodies are held; over HTTP/2, where its
/// length cannot be declared afterwards, until Pingora's buffer is nearly full.
async fn read_unknown(session: &mut Session, ctx: &Ctx, mut memory: Share, pace: &mut Pace) -> Result<Body, Refused> {
    session.as_downstream_mut().enable_retry_buffering();
    let (gateway, config) = (ctx.gateway(), &ctx.snapshot.config);
    let limits = &config.limits;
    let most = if session.is_http2() { UNKNOWN_READ_AHEAD - 1 } else { config.pool().retry.max_body };
    let most = most.min(usize::try_from(limits.max_body).unwrap_or(usize::MAX));
    let mut bytes = BytesMut::new();
    let mut accounted = REPLAYED_BY_PINGORA;
    loop {
        let Some(piece) = pace.read(session).await? else { break };
        bytes.extend_from_slice(&piece);
        let more = bytes.len().saturating_sub(accounted);
        accounted += more;
        let fits = more == 0 || memory.grow(more, limits.memory_for_retry_bodies) && gateway.has_memory(limits);
        if bytes.len() > most || !fits {
            break;
        }
    }
    let complete = session.as_downstream_mut().is_body_done();
    if !session.as_downstream().retry_buffer_truncated() {
        return Ok(Body::Buffered { complete, _memory: memory });
    }
    let bytes = bytes.freeze();
    if !complete {
        return Ok(Body::Begun { prefix: Some(bytes), _memory: memory });
    }
    reframe::with_length(session, bytes.len()).await?;
    Ok(Body::Held { bytes, _memory: memory })
}

/// Puts the held body where Pingora sends its own part of it; counts what is streamed.
pub(super) fn forward(session: &mut Session, body: &mut Option<Bytes>, end: bool, ctx: &mut Ctx) -> Result<()> {
    let max = ctx.snapshot.config.limits.max_body;
    match &mut ctx.body {
        Body::Held { bytes, .. } if end => *body = Some(bytes.clone()),
        Body::Begun { prefix, .. } => {
            if let Some(prefix) = prefix.take() {
                let mut joined = BytesMut::from(prefix);
                joined.extend_from_slice(body.as_deref().unwrap_or_default());
                *body = Some(joined.freeze());
            }
        }
        _ => {}
    }
    if ctx.body.is_complete() {
        return Ok(());
    }
    let received = session.as_downstream().body_bytes_read() as u64;
    let (now, grace) = (ctx.now(), ctx.snapshot.config.limits.header_timeout);
    match &ctx.attempt {
        // What the client says keeps the connection of another protocol alive, as what the backend says does.
        Some(attempt) if session.was_upgraded() => attempt.progress(now),
        Some(attempt) if end => attempt.sent(now),
        Some(attempt) => attempt.uploading(Pace::due(grace, ctx.begun, now, received)),
        None => {}
    }
    if received > max && !session.was_upgraded() {
        return Err(Error::new_down(BODY_TOO_LARGE));
    }
    Ok(())
}

impl Body {
    /// Whether another attempt can send the same bytes again.
    pub(super) fn replayable(&self, session: &Session) -> bool {
        match self {
            Body::Held { .. } => true,
            Body::Buffered { .. } => !session.as_downstream().retry_buffer_truncated(),
            Body::Begun { prefix, .. } => prefix.is_some(),
            Body::Empty | Body::Streamed => session.as_downstream().body_bytes_read() == 0,
            Body::Sent => false,
        }
    }

    /// Whether all of it was read before a backend was chosen.
    pub(super) fn is_complete(&self) -> bool {
        match self {
            Body::Buffered { complete, .. } => *complete,
            Body::Held { .. } | Body::Sent => true,
            Body::Empty | Body::Begun { .. } | Body::Streamed => false,
        }
    }

    /// Whether there is nothing more of it to come.
    pub(super) fn is_here(&self) -> bool {
        self.is_complete() || matches!(self, Body::Empty)
    }

    /// Until when more of it must come.
    pub(super) fn upload_due(&self, session: &Session, grace: Duration, begun: Millis, now: Millis) -> Option<Millis> {
        let received = session.as_downstream().body_bytes_read() as u64;
        self.needs_fresh_connection().then(|| Pace::due(grace, begun, now, received))
    }

    /// Whether it needs a fresh connection: it could not be sent again if a reused one had died.
    pub(super) fn needs_fresh_connection(&self) -> bool {
        !self.is_complete() && !matches!(self, Body::Empty)
    }
}

/// How fast a client must send: a byte within `grace`, and [`LEAST_RATE`] on average after a first `grace`, so that a byte
/// now and then, which keeps a timeout between two bytes from firing, does not hold memory or a backend for ever.
struct Pace {
    grace: Duration,
    clock: Clock,
    begun: Millis,
    received: u64,
}

impl Pace {
    fn new(grace: Duration, ctx: &Ctx) -> Pace {
        Pace { grace, clock: ctx.gateway().clock, begun: ctx.begun, received: 0 }
    }

    /// Until when more must come, `received` bytes having come by `now` since `begun`.
    fn due(grace: Duration, begun: Millis, now: Millis, received: u64) -> Millis {
        let grace = Millis::try_from(grace.as_millis()).unwrap_or(Millis::MAX);
        let on_average = begun.saturating_add(grace).saturating_add(received.saturating_mul(1000) / LEAST_RATE);
        on_average.min(now.saturating_add(grace))
    }

    /// The next piece. Pingora's timeout costs nothing if it is there already, as a small body is with its head.
    async fn read(&mut self, session: &mut Session) -> Result<Option<Bytes>, Refused> {
        let now = self.clock.now();
        let due = Pace::due(self.grace, self.begun, now, self.received);
        let read = session.as_downstream_mut().read_request_body();
        let piece = match timeout(Duration::from_millis(due.saturating_sub(now)), read).await {
            Ok(piece) => piece.map_err(Error::into_down)?,
            Err(_) => return Err(Refusal::SLOW_BODY.into()),
        };
        self.received += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Ok(piece)
    }
}

/// More than `limits.max_body` came of a body whose length was not declared.
pub(super) const BODY_TOO_LARGE: ErrorType = ErrorType::new("body too large");
/// `BODY_BUF_LIMIT` of Pingora 0.9.1.
const REPLAYED_BY_PINGORA: usize = 64 * 1024;
/// Leaves room for one HTTP/2 frame (16 KiB) in Pingora's buffer.
const UNKNOWN_READ_AHEAD: usize = 48 * 1024;
/// A declared length is only a promise: no more than this is set aside before anything came.
const MOST_AT_ONCE: usize = 1024 * 1024;
/// Bytes a second; Apache's mod_reqtimeout asks for 500.
const LEAST_RATE: u64 = 1024;
