//! The request's head: what is refused, and whose session it is.

use http::{HeaderValue, Version, header};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{ErrorType, OrErr, Result};

use super::access::{self, Asker};
use super::connections;
use super::ctx::Ctx;
use super::refusal::Refused;
use super::{form, limits};
use crate::core::SessionKey;
use crate::core::session::Invalid;
use crate::snapshot::Snapshot;

/// Refuses what no backend should see; finds the session of what may pass.
pub(super) fn accept(session: &mut Session, ctx: &mut Ctx) -> std::result::Result<(), Refused> {
    ctx.record.request(session);
    ctx.asker = Asker::of(session, ctx);
    ctx.record.client(ctx.asker.address);
    let max_header_bytes = ctx.snapshot.config.limits.max_header_bytes;
    // A client that stops reading stops the reading from the backend, too. Over HTTP/1.1 the sweep notices and the
    // connection ends (`connections.rs`); over HTTP/2 there may be others on it, so each write has a limit.
    if session.is_http2() {
        session.set_write_timeout(ctx.snapshot.config.pool().timeouts.idle);
    }
    ctx.form = form::read(session, max_header_bytes)?;
    limits::admit(ctx)?;
    access::admit(session, ctx)?;
    ctx.key = session_key(session, &ctx.snapshot);
    ctx.record.session(ctx.key);
    ctx.snapshot.budget.request(ctx.begun);
    Ok(())
}

/// Adds what every backend is told besides what the client said.
pub(super) fn add_headers(session: &Session, upstream: &mut RequestHeader, ctx: &mut Ctx) -> Result<()> {
    if ctx.form.forwarded && !ctx.asker.trusted {
        forget_forwarded(upstream);
    }
    if let Some(client) = connections::client(session, &ctx.busy) {
        let chain = if ctx.form.forwarded { forwarded_for(upstream, client)? } else { client };
        upstream.insert_header("X-Forwarded-For", chain)?;
    }
    // What is still there, a trusted proxy has said.
    if !ctx.form.forwarded || !upstream.headers.contains_key("x-forwarded-proto") {
        upstream.insert_header("X-Forwarded-Proto", HeaderValue::from_static(scheme(session)))?;
    }
    match host(session.req_header()) {
        Some(_) if ctx.form.forwarded && upstream.headers.contains_key("x-forwarded-host") => {}
        Some(host) => upstream.insert_header("X-Forwarded-Host", host)?,
        None => add_host(upstream, ctx)?,
    }
    add_credentials(upstream, ctx)?;
    if !ctx.form.request_id {
        upstream.insert_header("X-Request-Id", ctx.record.made_up_id())?;
    }
    Ok(())
}

/// Anybody can say who he is and how he came.
fn forget_forwarded(upstream: &mut RequestHeader) {
    let told = upstream.headers.keys().filter(|name| access::tells_of_client(name.as_str()));
    for name in told.cloned().collect::<Vec<_>>() {
        upstream.remove_header(&name);
    }
}

/// Keys that were meant for the gateway end here; a backend that wants one gets its own.
fn add_credentials(upstream: &mut RequestHeader, ctx: &Ctx) -> Result<()> {
    let own = ctx.link().and_then(|link| link.authorization.load_full());
    if ctx.form.credentials && (own.is_some() || ctx.asker.admitted.is_some()) {
        upstream.remove_header(&header::AUTHORIZATION);
        upstream.remove_header(&access::API_KEY);
    }
    match own {
        Some(own) => upstream.insert_header("Authorization", own.as_ref()),
        None => Ok(()),
    }
}

/// How the client came.
fn scheme(session: &Session) -> &'static str {
    let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
    if tls { "https" } else { "http" }
}

/// The host that the client asked for, if it named one.
fn host(head: &RequestHeader) -> Option<HeaderValue> {
    let authority = match head.version {
        Version::HTTP_2 => head.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()),
        _ => None,
    };
    authority.or_else(|| head.headers.get(header::HOST).cloned())
}

/// HTTP/1.0 and HTTP/2 may do without a host; HTTP/1.1, which the backend gets, may not.
fn add_host(upstream: &mut RequestHeader, ctx: &Ctx) -> Result<()> {
    match ctx.link() {
        Some(link) if !upstream.headers.contains_key(header::HOST) => {
            upstream.insert_header(header::HOST, link.address.origin().authority())
        }
        _ => Ok(()),
    }
}

/// The proxies that a request came through, and who asked us.
fn forwarded_for(head: &RequestHeader, client: HeaderValue) -> Result<HeaderValue> {
    let before = head.headers.get_all(access::FORWARDED_FOR).iter();
    let chain: Vec<&[u8]> = before.chain([&client]).map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&chain.join(&b", "[..])).or_err(ErrorType::InvalidHTTPHeader, "X-Forwarded-For")
}

/// The session in the first of the configured headers that has one; counts where it came from.
fn session_key(session: &Session, snapshot: &Snapshot) -> Option<SessionKey> {
    let (affinity, metrics) = (&snapshot.config.affinity, &snapshot.metrics);
    let sent = &session.req_header().headers;
    let values = affinity.headers.iter().map(|header| sent.get_all(&header.name).iter().map(HeaderValue::as_bytes));
    match SessionKey::find(values, affinity.max_length, snapshot.pool.settings().seed) {
        Ok(Some((index, key))) => {
            metrics.session_header(index);
            return Some(key);
        }
        Ok(None) => metrics.session_none.inc(),
        Err(Invalid) => metrics.session_invalid.inc(),
    }
    None
}
