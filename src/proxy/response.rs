//! The response on its way to the client: noted, never held back or altered but for two headers.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::body::Body;
use super::ctx::{Ctx, TurnedAway};
use super::retry;
use crate::core::usage::Tail;
use crate::core::{Affinity, Cause, Observation};

/// The head of a response.
pub(super) fn head(session: &Session, response: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
    if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    if retry::turned_away(session, ctx, response.status) {
        let retry_after = response.headers.get(header::RETRY_AFTER).cloned();
        return Err(retry::turn_away(ctx, TurnedAway { status: response.status, retry_after }));
    }
    let Some(selection) = ctx.selection else { return Ok(()) };
    let now = ctx.now();
    if let Some(attempt) = &ctx.attempt {
        attempt.progress(now);
    }
    ctx.record.first_byte(response.status.as_u16());
    observe(ctx, selection.member, response.status);
    if let Some(key) = ctx.key
        && !response.status.is_server_error()
        && response.status != StatusCode::TOO_MANY_REQUESTS
    {
        ctx.snapshot.pool.landed(key, selection, now);
    }
    if may_have_usage(response) {
        ctx.tail = Some(Tail::default());
    }
    // It will not be sent again: its memory is free for others.
    if matches!(ctx.body, Body::Held { .. } | Body::Buffered { .. }) {
        ctx.body = Body::Sent;
    }
    if let Some(link) = ctx.link() {
        response.insert_header(BACKEND, link.header.clone())?;
    }
    response.insert_header(AFFINITY, affinity_value(selection.affinity))
}

/// A piece of the response's body.
pub(super) fn body(piece: Option<&Bytes>, ctx: &mut Ctx) {
    let Some(piece) = piece else { return };
    ctx.record.bytes_out(piece.len());
    if let Some(attempt) = &ctx.attempt {
        attempt.progress(ctx.now());
    }
    if let Some(tail) = &mut ctx.tail {
        tail.push(piece);
    }
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
    ctx.snapshot.observe(member, seen, &ctx.gateway().metrics);
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

fn affinity_value(affinity: Affinity) -> HeaderValue {
    HeaderValue::from_static(affinity.as_str())
}

const BACKEND: HeaderName = HeaderName::from_static("x-ingle-backend");
const AFFINITY: HeaderName = HeaderName::from_static("x-ingle-affinity");
