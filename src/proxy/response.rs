//! The response on its way to the client: noted, never held back or altered except for two headers.

use http::StatusCode;

use super::body::Body;
use super::client::{Added, Client};
use super::ctx::{Ctx, TurnedAway};
use super::pipe::Stop;
use super::relay::Flow;
use super::retry;
use crate::core::usage::Tail;
use crate::core::{Cause, Observation};
use crate::http1::{Malformed, ResponseHead};
use crate::link::Attempt;

/// A response that goes to the client.
pub(super) struct Reply<H> {
    /// Its head, for this client.
    pub(super) head: H,
    /// Its body.
    pub(super) flow: Flow,
    /// Whether both sides speak another protocol from now on.
    pub(super) switches: bool,
    /// Whether the connection to the backend can be used again after it.
    pub(super) keep_alive: bool,
}

/// Takes the head of a final response, and what came of its body with it. `None` if the answer is given up for another
/// attempt.
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
) -> Result<Option<Reply<C::Head>>, Stop> {
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS.as_u16();
    if switches && !ctx.form.upgrades {
        return Err(Stop::Malformed(Malformed("101 without a request for it")));
    }
    if retry::is_given_up(ctx, head.status) {
        let retry_after = head.field("retry-after").map(<[u8]>::to_vec);
        ctx.turned_away = Some(TurnedAway { status: head.status, retry_after });
        return Ok(None);
    }
    let Some(selection) = ctx.selection else { return Ok(None) };
    note_kind(head, ctx);
    let mut flow = Flow::new(head.framing, client.coding(head.framing));
    flow.push(rest, |piece| note_body(ctx, piece)).map_err(Stop::Malformed)?;
    let now = ctx.now();
    attempt.progress(now);
    ctx.record.first_byte(head.status);
    observe(ctx, selection.member, head.status);
    if let Some(key) = ctx.key
        && head.status < 500
        && head.status != StatusCode::TOO_MANY_REQUESTS.as_u16()
    {
        ctx.record.turn(ctx.snapshot.pool.landed(key, selection, now));
        ctx.landed = true;
    }
    // It will not be sent again: its memory is free for others.
    ctx.body = Body::Sent;
    if ctx.gateway().stopping() {
        client.close_after();
    }
    let backend = ctx.link().map(|link| (&link.header, selection.affinity.as_str()));
    let (head, keep_alive) = (client.head(head, &Added { placement: backend }), head.keep_alive);
    Ok(Some(Reply { head, flow, switches, keep_alive }))
}

/// Notes bytes of the response's body.
pub(super) fn note_body(ctx: &mut Ctx, piece: &[u8]) {
    ctx.record.bytes_out(piece.len());
    if let Some(seat) = &ctx.seat {
        if ctx.streams { seat.there.first_token(ctx.now()) } else { seat.there.answered() }
    }
    if let Some(tail) = &mut ctx.tail {
        tail.push(piece);
    }
}

/// Notes the end of the response: its usage figures count, and its session was active until now.
pub(super) fn end(ctx: &mut Ctx) {
    let usage = ctx.tail.as_ref().and_then(Tail::usage);
    if let (Some(seat), Some(usage)) = (&ctx.seat, usage) {
        seat.there.learn(usage);
    }
    ctx.record.usage(usage);
    if let (Some(key), Some(selection), true) = (ctx.key, ctx.selection, ctx.landed) {
        ctx.snapshot.pool.active(key, selection, ctx.now());
    }
}

fn observe(ctx: &Ctx, member: usize, status: u16) {
    let seen = match status {
        502 | 504 => Observation::TrafficFailed(Cause::BadGateway),
        503 => return,
        _ => Observation::TrafficOk,
    };
    if seen != Observation::TrafficOk {
        ctx.snapshot.links[member].note_error(format!("answered {status}"));
    }
    ctx.snapshot.observe(member, seen, &ctx.gateway().metrics, ctx.now());
}

/// Notes whether it is a stream of events, and whether it can have usage figures: JSON and event streams of a success,
/// not compressed.
fn note_kind(head: &ResponseHead<'_, '_>, ctx: &mut Ctx) {
    (ctx.streams, ctx.tail) = (false, None);
    ctx.record.start_body();
    if head.status != StatusCode::OK.as_u16() {
        return;
    }
    let kind = head.field("content-type").unwrap_or_default();
    ctx.streams = kind.starts_with(b"text/event-stream");
    let readable = ctx.streams || kind.starts_with(b"application/json");
    if readable && head.field("content-encoding").is_none() {
        ctx.tail = Some(Tail::default());
    }
}
