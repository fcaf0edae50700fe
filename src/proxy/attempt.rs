//! One attempt at one backend.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use pingora::http::RequestHeader;
use pingora::protocols::{Digest, TcpKeepalive};
use pingora::proxy::Session;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora::{Error, ErrorType, Result};

use super::ctx::Ctx;
use super::form;
use super::head;
use super::retry;
use super::wait;
use crate::core::{Affinity, Selection, Verdict};
use crate::link::{Socket, Terms};
use crate::snapshot::Snapshot;

/// Selects a backend, counts the request there, and says how to connect.
pub(super) async fn begin(session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
    ctx.leave();
    let again = ctx.again.take();
    let selection = match (again, ctx.selection) {
        (Some(member), Some(selection)) if selection.member == member => selection,
        _ => next(session, ctx).await?,
    };
    let link = Arc::clone(&ctx.snapshot.links[selection.member]);
    ctx.seat = Some(link.queue.seat(ctx.snapshot.pool.enter(&selection, ctx.now())));
    let fresh = again.is_some() || ctx.body.needs_fresh_connection();
    let connect = ctx.snapshot.config.pool().timeouts.connect;
    match link.address.get_within(connect).await {
        Ok(address) => match ctx.gateway().certificates.peer(address, link.address.origin()) {
            Ok(peer) => {
                let mut peer = tuned(peer, &ctx.snapshot, if fresh { link.fresh_group() } else { 0 });
                if !ctx.form.hop_by_hop {
                    // There is nothing to strip, so Pingora need not look for each header that it would strip.
                    peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
                }
                Ok(Box::new(peer))
            }
            Err(error) => Err(retry::after_connect(ctx, None, error)),
        },
        Err(error) => {
            let error = Error::because(ErrorType::ConnectNoRoute, "can't resolve the backend's name", error);
            Err(retry::after_connect(ctx, None, error))
        }
    }
}

async fn next(session: &mut Session, ctx: &mut Ctx) -> Result<Selection> {
    wait::for_first_probes(ctx).await;
    let mut verdict = ctx.select(wait::patience(ctx));
    if let Verdict::Wait { member, .. } = verdict {
        verdict = wait::for_room(session, ctx, member).await?;
    }
    let selection = match verdict {
        Verdict::Go(selection) => selection,
        Verdict::Full | Verdict::Wait { .. } => return Err(Error::new_in(FULL)),
        Verdict::Nobody => return Err(Error::new_in(NO_BACKEND)),
    };
    if let (Affinity::Spilled, Some(reason)) = (selection.affinity, selection.reason) {
        ctx.snapshot.metrics.spill(reason);
    }
    ctx.tried.push(selection.member);
    ctx.selection = Some(selection);
    ctx.record.attempt(selection);
    Ok(selection)
}

fn tuned(mut peer: HttpPeer, snapshot: &Snapshot, group: u64) -> HttpPeer {
    let timeouts = &snapshot.config.pool().timeouts;
    peer.group_key = group;
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.idle_timeout = Some(if group == 0 { timeouts.keep_alive } else { Duration::from_millis(1) });
    peer.options.tcp_keepalive = Some(TCP_KEEPALIVE);
    peer
}

/// The connection is there: from now on it can be cut.
pub(super) fn connected(session: &Session, fd: RawFd, digest: Option<&Digest>, ctx: &mut Ctx) {
    let (Some(link), Some(socket)) = (ctx.link(), socket(fd, digest)) else { return };
    let movable = ctx.body.replayable(session) && retry::another(ctx);
    let (now, grace) = (ctx.now(), ctx.snapshot.config.limits.header_timeout);
    let due = ctx.body.upload_due(session, grace, ctx.begun, now);
    let terms = Terms { movable, begun: ctx.begun, deadlines: ctx.snapshot.deadlines };
    ctx.attempt = Some(link.attempts.enter(socket, terms, now, due, ctx.busy.cut()));
}

/// The ends of a connection, which Pingora asks the kernel for once in the connection's life.
fn socket(number: RawFd, digest: Option<&Digest>) -> Option<Socket> {
    let digest = digest?.socket_digest.as_ref()?;
    Some(Socket { number, local: *digest.local_addr()?.as_inet()?, peer: *digest.peer_addr()?.as_inet()? })
}

/// Makes the head one for this backend. It is Pingora's copy for this attempt; the client's own stays as it came.
pub(super) fn adapt(session: &Session, upstream: &mut RequestHeader, ctx: &mut Ctx) -> Result<()> {
    head::add_headers(session, upstream, ctx)?;
    form::to_origin_form(upstream)
}

/// No backend is left that could take the request.
pub(super) const NO_BACKEND: ErrorType = ErrorType::new("no backend available");
/// Whoever could take the request has as many as it may have.
pub(super) const FULL: ErrorType = ErrorType::new("every backend is full");
/// A backend that vanishes without a FIN (power, cable, kernel) is noticed after about a minute: by keep-alive probes
/// while it should be answering, by the user timeout (RFC 5482) while it should be acknowledging a request.
const TCP_KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(30),
    interval: Duration::from_secs(10),
    count: 3,
    user_timeout: Duration::from_secs(30),
};
