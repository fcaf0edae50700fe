//! The response on its way to the client: noted, and never altered except for a few headers.

use http::StatusCode;

use super::body::Body;
use super::client::{Added, Client};
use super::cors;
use super::ctx::{Ctx, TurnedAway};
use super::first_token::Held;
use super::judge;
use super::pipe::Stop;
use super::refusal::Refusal;
use super::relay::Flow;
use super::retry;
use crate::api::usage::UsageReader;
use crate::config::RetryUntil;
use crate::core::answer::Answer;
use crate::http1::{Malformed, ResponseHead};
use crate::link::Attempt;

/// A response that goes to the client.
pub(super) struct Reply<H> {
    /// Its head, for this client, until it is sent. `None` if the client has the head of an earlier attempt.
    pub(super) head: Option<H>,
    /// Its body.
    pub(super) flow: Flow,
    /// The start of the body, if it is a stream whose first output is awaited.
    pub(super) held: Option<Box<Held>>,
    /// Whether the client has the head of an earlier attempt.
    pub(super) continues: bool,
    /// Whether both sides speak another protocol from now on.
    pub(super) switches: bool,
    /// Whether the connection to the backend can be used again after it.
    pub(super) keep_alive: bool,
}

/// What becomes of a response.
pub(super) enum Accepted<H> {
    /// It goes to the client.
    Reply(Reply<H>),
    /// It is given up for another attempt.
    GivenUp,
    /// It can't continue the stream whose head the client has. Its body says why.
    Other(Flow, Vec<u8>),
}

/// Takes the head of a final response, and what came of its body with it.
///
/// # Errors
///
/// If it is no answer to this request, or its body is malformed already.
pub(super) fn accept<C: Client>(
    head: &ResponseHead<'_, '_>,
    rest: &[u8],
    client: &mut C,
    ctx: &mut Ctx,
    attempt: &Attempt,
) -> Result<Accepted<C::Head>, Stop> {
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS.as_u16();
    if switches && !ctx.form.upgrades {
        return Err(Stop::Malformed(Malformed("101 without a request for it")));
    }
    if retry::is_given_up(ctx, head.status) {
        ctx.turned_away = Some(TurnedAway::new(head));
        return Ok(Accepted::GivenUp);
    }
    if ctx.asker.needs_no_key && cors::is_no_answer(head) {
        return Err(Stop::Refused(Refusal::NO_PREFLIGHT));
    }
    note_kind(head, ctx);
    ctx.is_error = Answer::is_error(head.status);
    if is_held(head, ctx) {
        return hold(head, rest, client, ctx, attempt).map(Accepted::Reply);
    }
    let mut flow = Flow::new(head.framing, client.coding(head.framing));
    if ctx.opening.is_sent {
        let mut body = Vec::new();
        flow.hold(rest, |payload| body.extend_from_slice(payload))?;
        ctx.turned_away = Some(TurnedAway::new(head));
        return Ok(Accepted::Other(flow, body));
    }
    flow.push(rest, |piece| note_body(ctx, piece)).map_err(Stop::Malformed)?;
    ctx.record.first_byte();
    start(ctx, attempt, head.status, head.status);
    let (head, keep_alive) = (Some(head_for(client, ctx, head)), head.keep_alive);
    Ok(Accepted::Reply(Reply { head, flow, held: None, continues: false, switches, keep_alive }))
}

/// Whether the start of a response is held until its first output.
fn is_held(head: &ResponseHead<'_, '_>, ctx: &Ctx) -> bool {
    let is_plain = || head.field("content-encoding").is_none() && !ctx.form.is_head;
    ctx.streams && ctx.snapshot.config.pool().retry.until == RetryUntil::FirstToken && is_plain()
}

fn hold<C: Client>(
    head: &ResponseHead<'_, '_>,
    rest: &[u8],
    client: &mut C,
    ctx: &mut Ctx,
    attempt: &Attempt,
) -> Result<Reply<C::Head>, Stop> {
    let continues = ctx.opening.is_sent;
    let mut held = Box::new(Held::new(continues));
    let mut flow = Flow::held(head.framing, client, std::mem::take(&mut ctx.opening.unwritten));
    if !rest.is_empty() {
        flow.hold(rest, |payload| held.push(payload))?;
    }
    let due = ctx.now().saturating_add(ctx.snapshot.hold_head);
    attempt.await_output(*ctx.opening.due.get_or_insert(due));
    ctx.record.first_byte();
    let sent = (!continues).then(|| head_for(client, ctx, &head.without_length()));
    Ok(Reply { head: sent, flow, held: Some(held), continues, switches: false, keep_alive: head.keep_alive })
}

fn head_for<C: Client>(client: &mut C, ctx: &Ctx, head: &ResponseHead<'_, '_>) -> C::Head {
    if ctx.gateway().stopping() {
        client.close_after();
    }
    let affinity = ctx.selection.map(|selection| selection.affinity.as_str());
    let placement = ctx.link().zip(affinity).map(|(link, affinity)| (&link.header, affinity));
    let kind = head.field("content-type").unwrap_or_default();
    let unbuffered = is_media_type(kind, "text/event-stream") && head.field("x-accel-buffering").is_none();
    client.head(head, &Added { placement, unbuffered })
}

/// Notes that the response has started: its request will not be sent again, and the backend answers. `meaning` is what its
/// status would be if the backend had known the outcome before it sent the head.
pub(super) fn start(ctx: &mut Ctx, attempt: &Attempt, status: u16, meaning: u16) {
    let now = ctx.now();
    attempt.progress(now);
    ctx.record.start(status);
    let Some(selection) = ctx.selection else { return };
    judge::answered(ctx, meaning);
    ctx.is_error = Answer::is_error(meaning);
    if let Some(key) = ctx.key.filter(|_| ctx.kind.generates() && !ctx.is_error) {
        ctx.record.turn(ctx.snapshot.pool.landed(key, selection, now));
        ctx.landed = true;
    }
    // The memory of the body is free for others.
    ctx.body = Body::Sent;
}

/// Notes bytes of the response's body.
pub(super) fn note_body(ctx: &mut Ctx, piece: &[u8]) {
    ctx.record.body(piece.len(), ctx.is_error);
    if let Some(seat) = &ctx.seat {
        let is_first_token = ctx.streams && ctx.kind.generates() && !ctx.is_error;
        if is_first_token { seat.there.first_token(ctx.now()) } else { seat.there.answered() }
    }
    if let Some(usage) = &mut ctx.usage {
        usage.push(piece);
    }
}

/// Notes the end of the response: its usage figures count, and its session was active until now.
pub(super) fn end(ctx: &mut Ctx) {
    let usage = ctx.usage.as_ref().and_then(UsageReader::usage);
    if let (Some(seat), Some(usage)) = (&ctx.seat, usage) {
        seat.there.learn(usage);
    }
    ctx.record.usage(usage);
    if let (Some(key), Some(selection), true) = (ctx.key, ctx.selection, ctx.landed) {
        ctx.snapshot.pool.active(key, selection, ctx.now());
    }
}

/// Notes whether it is a stream of events, and whether it can have usage figures of a prompt: JSON and event streams of a
/// generation that succeeds, not compressed.
fn note_kind(head: &ResponseHead<'_, '_>, ctx: &mut Ctx) {
    (ctx.streams, ctx.usage) = (false, None);
    if head.status != StatusCode::OK.as_u16() {
        return;
    }
    let kind = head.field("content-type").unwrap_or_default();
    ctx.streams = is_media_type(kind, "text/event-stream");
    let readable = ctx.streams || is_media_type(kind, "application/json");
    if readable && ctx.kind.generates() && head.field("content-encoding").is_none() {
        ctx.usage = Some(UsageReader::default());
    }
}

/// Whether a `Content-Type` has this media type, whatever its parameters are.
fn is_media_type(value: &[u8], wanted: &str) -> bool {
    let media_type = value.split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes())
}

impl TurnedAway {
    fn new(head: &ResponseHead<'_, '_>) -> TurnedAway {
        let retry_after = head.field("retry-after").map(<[u8]>::to_vec);
        TurnedAway { status: head.status, retry_after, message: String::new() }
    }
}
