//! The request's head: what is refused, and whose session it is.

use http::{HeaderName, HeaderValue, Version, header};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{ErrorType, OrErr, Result};

use super::body;
use super::connections;
use super::ctx::Ctx;
use super::errors::Refusal;
use super::form;
use crate::config::{Affinity, SessionHeader};
use crate::core::SessionKey;
use crate::metrics::PoolMetrics;
use crate::snapshot::Snapshot;

/// Refuses what no backend should see; finds the session of what may pass.
pub(super) fn accept(session: &mut Session, ctx: &mut Ctx) -> std::result::Result<(), Refusal> {
    ctx.record.request(session);
    let limits = &ctx.snapshot.config.limits;
    // A client that stops reading stops the reading from the backend, too. Over HTTP/1.1 the sweep notices and the
    // connection ends (`connections.rs`); over HTTP/2 there may be others on it, so each write has a limit.
    if session.is_http2() {
        session.set_write_timeout(ctx.snapshot.config.pool().timeouts.idle);
    }
    let head = session.req_header();
    if head_bytes(head) > limits.max_header_bytes {
        return Err(Refusal::HEAD_TOO_LARGE);
    }
    form::check(head)?;
    if form::is_framed_twice(session) {
        return Err(Refusal::BAD_FRAMING);
    }
    ctx.key = session_key(session, &ctx.snapshot);
    ctx.record.session(ctx.key);
    ctx.snapshot.budget.request(ctx.begun);
    Ok(())
}

/// Adds what every backend is told besides what the client said. Once for all attempts, and before Pingora copies the
/// head for each: here its tables still have room.
pub(super) fn add_headers(session: &mut Session, ctx: &mut Ctx) -> Result<()> {
    let client = connections::client(session, &ctx.busy);
    let request_id = ctx.record.request_id(session);
    let answered_expect = ctx.body.was_read() && body::expects_continue(session);
    let scheme = if session.digest().is_some_and(|digest| digest.ssl_digest.is_some()) { "https" } else { "http" };
    let head = session.req_header_mut();
    if answered_expect {
        head.remove_header(&header::EXPECT);
    }
    if let Some(client) = client {
        let chain = forwarded_for(head, client)?;
        head.insert_header("X-Forwarded-For", chain)?;
    }
    head.insert_header("X-Forwarded-Proto", HeaderValue::from_static(scheme))?;
    let host = match head.version {
        Version::HTTP_2 => head.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()),
        _ => None,
    };
    match host.or_else(|| head.headers.get(header::HOST).cloned()) {
        Some(host) => head.insert_header("X-Forwarded-Host", host)?,
        None => drop(head.remove_header("X-Forwarded-Host")),
    }
    if !head.headers.contains_key(&REQUEST_ID) {
        head.insert_header("X-Request-Id", request_id)?;
    }
    Ok(())
}

/// The proxies that a request came through, and who asked us.
fn forwarded_for(head: &RequestHeader, client: HeaderValue) -> Result<HeaderValue> {
    if !head.headers.contains_key(&FORWARDED_FOR) {
        return Ok(client);
    }
    let before = head.headers.get_all(&FORWARDED_FOR).iter();
    let chain: Vec<&[u8]> = before.chain([&client]).map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&chain.join(&b", "[..])).or_err(ErrorType::InvalidHTTPHeader, "X-Forwarded-For")
}

fn head_bytes(head: &RequestHeader) -> usize {
    let line = head.method.as_str().len() + head.raw_path().len();
    head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() + line
}

/// The session in the first of the configured headers that is present and not empty. A value that is none, or several
/// that differ, make it a request without a session: a shared fallback would put strangers on one backend.
fn session_key(session: &Session, snapshot: &Snapshot) -> Option<SessionKey> {
    let (affinity, metrics) = (&snapshot.config.affinity, &snapshot.metrics);
    for (index, header) in affinity.headers.iter().enumerate() {
        match value_of(session, header, affinity, snapshot) {
            Ok(Some(key)) => {
                metrics.session_header(index);
                return Some(key);
            }
            Ok(None) => {}
            Err(()) => return invalid(metrics),
        }
    }
    metrics.session_none.inc();
    None
}

fn invalid(metrics: &PoolMetrics) -> Option<SessionKey> {
    metrics.session_invalid.inc();
    None
}

fn value_of(
    session: &Session,
    header: &SessionHeader,
    affinity: &Affinity,
    snapshot: &Snapshot,
) -> std::result::Result<Option<SessionKey>, ()> {
    let seed = snapshot.pool.settings().seed;
    let mut found = None;
    for value in session.req_header().headers.get_all(&header.name) {
        let key = SessionKey::parse(value.as_bytes(), affinity.max_length, seed).map_err(|_| ())?;
        match (found, key) {
            (Some(one), Some(other)) if one != other => return Err(()),
            (_, Some(key)) => found = Some(key),
            (_, None) => {}
        }
    }
    Ok(found)
}

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
