//! One attempt at one backend.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use http::{HeaderValue, Version, header};
use pingora::http::RequestHeader;
use pingora::protocols::TcpKeepalive;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OrErr, Result};

use super::body;
use super::ctx::Ctx;
use crate::core::Selection;
use crate::snapshot::Snapshot;

/// Selects a backend, counts the request there, and says how to connect.
pub(super) async fn begin(ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
    ctx.leave();
    let again = ctx.again.take();
    let selection = match (again, ctx.selection) {
        (Some(member), Some(selection)) if selection.member == member => selection,
        _ => next(ctx)?,
    };
    let link = std::sync::Arc::clone(&ctx.snapshot.links[selection.member]);
    ctx.in_flight = Some(link.backend.enter());
    let fresh = again.is_some() || ctx.body.needs_fresh_connection();
    match link.address.get().await {
        Ok(address) => Ok(Box::new(peer(address, &ctx.snapshot, if fresh { link.fresh_group() } else { 0 }))),
        Err(error) => {
            let error = Error::because(ErrorType::ConnectNoRoute, "can't resolve the backend's name", error);
            Err(super::retry::after_connect(ctx, error))
        }
    }
}

fn next(ctx: &mut Ctx) -> Result<Selection> {
    let selection = ctx.snapshot.pool.select(ctx.key, &ctx.tried, ctx.now());
    let Some(selection) = selection else {
        return Err(Error::new_in(NO_BACKEND));
    };
    ctx.tried.push(selection.member);
    ctx.selection = Some(selection);
    ctx.record.attempt(selection);
    Ok(selection)
}

fn peer(address: SocketAddr, snapshot: &Snapshot, group: u64) -> HttpPeer {
    let timeouts = &snapshot.config.pool().timeouts;
    let mut peer = HttpPeer::new(address, false, String::new());
    peer.group_key = group;
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.idle_timeout = Some(if group == 0 { timeouts.keep_alive } else { Duration::from_millis(1) });
    peer.options.tcp_keepalive = Some(TCP_KEEPALIVE);
    peer
}

/// The connection is there: from now on it can be cut.
pub(super) fn connected(session: &Session, fd: RawFd, ctx: &mut Ctx) -> Result<()> {
    let (Some(link), now) = (ctx.link(), ctx.now()) else { return Ok(()) };
    let movable = ctx.body.replayable(session) && ctx.record.attempts() < ctx.snapshot.config.pool().retry.max_attempts;
    #[expect(unsafe_code, reason = "Pingora gives the connection's descriptor as a bare number")]
    // SAFETY: the connection belongs to Pingora's caller of this hook and is open while the hook runs.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    let attempt = link.attempts.enter(socket, movable, ctx.begun, now);
    ctx.attempt = Some(attempt.or_err(ErrorType::InternalError, "no file descriptor is left")?);
    Ok(())
}

/// What a backend is told besides what the client said.
pub(super) fn add_headers(session: &Session, upstream: &mut RequestHeader, ctx: &mut Ctx) -> Result<()> {
    if ctx.body.was_read() && body::expects_continue(session) {
        upstream.remove_header(&header::EXPECT);
    }
    if let Some(peer) = session.client_addr().and_then(|address| address.as_inet()) {
        let peer = peer.ip().to_string();
        let before = upstream.headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let chain = before.chain([peer.as_str()]).collect::<Vec<_>>().join(", ");
        upstream.insert_header(FORWARDED_FOR, chain)?;
    }
    upstream.insert_header("x-forwarded-proto", "http")?;
    let head = session.req_header();
    let host = match head.version {
        Version::HTTP_2 => head.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()),
        _ => head.headers.get(header::HOST).cloned(),
    };
    if let Some(host) = host {
        upstream.insert_header("x-forwarded-host", host)?;
    }
    if !upstream.headers.contains_key(REQUEST_ID) {
        upstream.insert_header(REQUEST_ID, ctx.record.request_id(session))?;
    }
    Ok(())
}

/// No backend is left that could take the request.
pub(super) const NO_BACKEND: ErrorType = ErrorType::new("no backend available");
/// A backend that vanishes without a FIN (power, cable, kernel) is noticed after about a minute: by keep-alive probes
/// while it should be answering, by the user timeout (RFC 5482) while it should be acknowledging a request.
const TCP_KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(30),
    interval: Duration::from_secs(10),
    count: 3,
    user_timeout: Duration::from_secs(30),
};
const FORWARDED_FOR: &str = "x-forwarded-for";
pub(super) const REQUEST_ID: &str = "x-request-id";
