//! The response on its way to the client: noted, never held back or altered but for two headers.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::body::Body;
use super::ctx::{Ctx, TurnedAway};
use super::retry;
use crate::core::usage::Tail;
use crate::core::{Cause, Observation};

/// The head of a response.
pub(super) fn head(session: &Session, response: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        // Pingora takes one that nobody asked for as interim, and waits for an answer that never comes.
        if !session.is_upgrade_req() {
            return Err(Error::new_up(ErrorType::InvalidHTTPHeader));
        }
    } else if response.status.is_informational() {
        return Ok(());
    }
    if retry::turned_away(session, ctx, response.status) {
        let retry_after = response.headers.get(header::RETRY_AFTER).cloned();
        return Err(retry::turn_away(ctx, TurnedAway { status: response.status, retry_after }));
    }
    let Some(selection) = ctx.selection else { return Ok(()) };
    let now = ctx.now();
    match &ctx.attempt {
        // No body will come that could say that it is over.
        Some(attempt) if has_no_body(session, response.status) => attempt.over(now),
        Some(attempt) => attempt.progress(now),
        None => {}
    }
    ctx.record.first_byte(response.status.as_u16());
    observe(ctx, selection.member, response.status);
    if let Some(key) = ctx.key
        && !response.status.is_server_error()
        && response.status != StatusCode::TOO_MANY_REQUESTS
    {
        ctx.record.turn(ctx.snapshot.pool.landed(key, selection, now));
        ctx.landed = true;
    }
    ctx.streams = response.status == StatusCode::OK && is_event_stream(response);
    if may_have_usage(response) {
        ctx.tail = Some(Tail::default());
    }
    // It will not be sent again: its memory is free for others.
    if ctx.body.is_complete() {
        ctx.body = Body::Sent;
    }
    strip_nominated(response);
    if let Some(link) = ctx.link() {
        response.insert_header(BACKEND, link.header.clone())?;
    }
    response.insert_header(AFFINITY, HeaderValue::from_static(selection.affinity.as_str()))
}

/// A client of a gateway that is about to end is told that the connection closes, so that it sends nothing more there.
///
/// An HTTP/1.0 client can't read chunks (RFC 9112, section 6.1): what has no length ends with its connection.
pub(super) fn frame(session: &mut Session, response: &mut ResponseHeader, ctx: &Ctx) {
    if ctx.gateway().stopping() {
        session.set_keepalive(None);
    }
    if session.req_header().version == Version::HTTP_10 {
        response.remove_header(&header::TRANSFER_ENCODING);
    }
}

/// A piece of the response's body.
pub(super) fn body(piece: Option<&Bytes>, end: bool, ctx: &mut Ctx) {
    if let Some(piece) = piece {
        ctx.record.bytes_out(piece.len());
        let now = ctx.now();
        if let Some(attempt) = &ctx.attempt {
            attempt.progress(now);
        }
        if let Some(seat) = ctx.seat.as_ref().filter(|_| !piece.is_empty()) {
            if ctx.streams { seat.there.first_token(now) } else { seat.there.answered() }
        }
        if let Some(tail) = &mut ctx.tail {
            tail.push(piece);
        }
    }
    if end && let Some(attempt) = &ctx.attempt {
        attempt.over(ctx.now());
    }
}

/// The response is over: what it said of the prompt counts, and its session was active until now.
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

/// Removes the headers that `Connection` names: they were meant for us alone (RFC 9110, section 7.6.1).
fn strip_nominated(response: &mut ResponseHeader) {
    if !response.headers.contains_key(header::CONNECTION) {
        return;
    }
    let values = response.headers.get_all(header::CONNECTION).iter();
    let nominated = values.filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
    for name in nominated.split(',').map(str::trim) {
        if !KEPT_NOMINATED.iter().any(|kept| name.eq_ignore_ascii_case(kept)) {
            response.remove_header(name);
        }
    }
}

/// RFC 9110, section 6.4.1.
fn has_no_body(session: &Session, status: StatusCode) -> bool {
    session.req_header().method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn observe(ctx: &Ctx, member: usize, status: StatusCode) {
    let seen = match status {
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Observation::TrafficFailed(Cause::BadGateway),
        StatusCode::SERVICE_UNAVAILABLE => return,
        _ => Observation::TrafficOk,
    };
    if seen != Observation::TrafficOk {
        ctx.snapshot.links[member].note_error(format!("answered {}", status.as_u16()));
    }
    ctx.snapshot.observe(member, seen, &ctx.gateway().metrics, ctx.now());
}

/// JSON and event streams of a success, not compressed.
fn may_have_usage(response: &ResponseHeader) -> bool {
    let json_or_events = |value: &HeaderValue| {
        let value = value.as_bytes();
        value.starts_with(b"application/json") || value.starts_with(b"text/event-stream")
    };
    response.status == StatusCode::OK
        && !response.headers.contains_key(header::CONTENT_ENCODING)
        && response.headers.get(header::CONTENT_TYPE).is_some_and(json_or_events)
}

fn is_event_stream(response: &ResponseHeader) -> bool {
    let kind = response.headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// What `Connection` may name and Pingora has use for: options of the connection, and what delimits the body.
const KEPT_NOMINATED: [&str; 5] = ["close", "keep-alive", "upgrade", "content-length", "transfer-encoding"];
const BACKEND: &str = "X-Ingle-Backend";
const AFFINITY: &str = "X-Ingle-Affinity";
