//! After a failure: whose fault it was, and whether another attempt may help.
//!
//! | stage | the backend's fault | another attempt |
//! |---|---|---|
//! | connect refused, timed out, TLS failed | yes | on the next backend; costs no budget |
//! | the gateway has no descriptor or port left | no | never: the request is shed |
//! | a reused connection had died | no: the stale pool race | at once, there, on a fresh connection; costs nothing |
//! | closed before any byte, on a fresh connection | yes | on the next backend |
//! | no first byte in time | yes | on the next backend |
//! | cut because the backend turned unhealthy | counted already | on the next backend |
//! | 503, 502, 429 while another is available | 502 | on the next backend |
//! | any byte reached the client | no | never |
//! | the client left, or sent a malformed body | no | never |

use std::net::SocketAddr;

use http::StatusCode;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};

use super::ctx::{Ctx, TurnedAway};
use crate::core::{Cause, Millis, Observation, State};
use crate::link::{self, Attempt, Cut, describe};
use crate::metrics::{RetryReason, Shed};

/// A connection could not be made.
pub(super) fn after_connect(ctx: &mut Ctx, address: Option<SocketAddr>, mut e: Box<Error>) -> Box<Error> {
    e.as_up();
    if link::is_ours(&e) {
        ctx.gateway().metrics.limits.shed(Shed::Descriptors);
        ctx.leave();
        // The next backend would need one as well.
        e.set_retry(false);
        return e;
    }
    blame(ctx, Cause::Connect, || match e.etype() {
        ErrorType::ConnectNoRoute if address.is_none() => "the name can't be resolved".to_owned(),
        _ => format!("connect: {}", describe(&e)),
    });
    if let Some(link) = ctx.link() {
        link.address.failed(address);
    }
    ctx.leave();
    let again = allowed(ctx, RetryReason::Connect);
    e.set_retry(again);
    e
}

/// A request that was on its way to a backend, or its response, failed.
pub(super) fn after_send(session: &Session, ctx: &mut Ctx, mut e: Box<Error>, reused: bool) -> Box<Error> {
    let again = *e.esource() == ErrorSource::Upstream
        && !response_begun(session)
        && match reason(ctx, &e, reused) {
            Some(RetryReason::Stale) => stale(session, ctx),
            // It was allowed, and counted, before the answer was given up.
            Some(RetryReason::Status) => ctx.body.replayable(session),
            Some(reason) => ctx.body.replayable(session) && allowed(ctx, reason),
            None => false,
        };
    ctx.leave();
    e.set_retry(again);
    e
}

/// What failed, before any byte of the response reached the client. The backend is blamed for what is its fault.
fn reason(ctx: &mut Ctx, e: &Error, reused: bool) -> Option<RetryReason> {
    if let Some(turned_away) = &ctx.turned_away
        && *e.etype() == TURNED_AWAY
    {
        if turned_away.status == StatusCode::BAD_GATEWAY {
            blame(ctx, Cause::BadGateway, || "answered 502".to_owned());
        }
        return Some(RetryReason::Status);
    }
    match ctx.attempt.as_ref().and_then(Attempt::cut) {
        Some(Cut::Unhealthy) => return Some(RetryReason::Unhealthy),
        Some(Cut::FirstByte) => {
            blame(ctx, Cause::FirstByte, || "no first byte in time".to_owned());
            return Some(RetryReason::FirstByte);
        }
        Some(Cut::Idle | Cut::Total | Cut::Upload) => return None,
        None => {}
    }
    let closed = matches!(e.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError);
    let waited = ctx.attempt.as_ref().map_or(0, |attempt| ctx.now().saturating_sub(attempt.begun()));
    if reused && closed && waited < STALE_WITHIN {
        return Some(RetryReason::Stale);
    }
    blame(ctx, Cause::Closed, || format!("before the first byte: {}", e.root_etype().as_str()));
    Some(RetryReason::Closed)
}

/// The server closed an idle connection just as we used it. That says nothing about the server, and it did not see the
/// request, so the same backend gets it again, over a fresh connection.
fn stale(session: &Session, ctx: &mut Ctx) -> bool {
    let Some(selection) = ctx.selection.filter(|_| ctx.body.replayable(session)) else { return false };
    ctx.again = Some(selection.member);
    ctx.snapshot.metrics.retry(RetryReason::Stale);
    true
}

/// Whether there is somebody else to go to, and attempts and budget allow it. If so, the retry is counted.
fn allowed(ctx: &mut Ctx, reason: RetryReason) -> bool {
    let allowed = another(ctx) && (costs_nothing(ctx, reason) || ctx.snapshot.budget.retry(ctx.now()));
    if allowed {
        ctx.snapshot.metrics.retry(reason);
    }
    let backend = ctx.link().map(|link| link.backend.name());
    tracing::debug!(backend, reason = reason.as_str(), allowed, "another attempt");
    allowed
}

/// A retry multiplies no load if the backend that failed takes none any more: of a dead one, each request moves once.
fn costs_nothing(ctx: &Ctx, reason: RetryReason) -> bool {
    let down = ctx.link().is_some_and(|link| link.backend.state() == State::Unhealthy);
    matches!(reason, RetryReason::Connect | RetryReason::Unhealthy) || (down && reason != RetryReason::Status)
}

/// Whether there is somebody else to go to.
pub(super) fn another(ctx: &Ctx) -> bool {
    ctx.record.attempts() < ctx.snapshot.config.pool().retry.max_attempts && ctx.snapshot.pool.has_another(&ctx.tried)
}

/// Whether a status says "not now", and somebody else may be asked for something better. If so, the retry is counted: an
/// answer that is given up is lost, so nothing may stand in the way any more.
pub(super) fn turned_away(session: &Session, ctx: &mut Ctx, status: StatusCode) -> bool {
    let not_now =
        matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::TOO_MANY_REQUESTS);
    not_now && ctx.body.replayable(session) && allowed(ctx, RetryReason::Status)
}

/// The error with which the response filter hands over to [`after_send`].
pub(super) fn turn_away(ctx: &mut Ctx, turned_away: TurnedAway) -> Box<Error> {
    ctx.turned_away = Some(turned_away);
    Error::new_up(TURNED_AWAY)
}

fn blame(ctx: &Ctx, cause: Cause, what: impl FnOnce() -> String) {
    let (Some(selection), Some(link)) = (ctx.selection, ctx.link()) else { return };
    link.note_error(what());
    ctx.snapshot.observe(selection.member, Observation::TrafficFailed(cause), &ctx.gateway().metrics, ctx.now());
}

/// Whether any byte of the final response reached the client. Informational ones (1xx) are not it.
pub(super) fn response_begun(session: &Session) -> bool {
    session
        .response_written()
        .is_some_and(|head| !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS)
}

/// A server that closes an idle connection has done so before it sees the request: the news takes no longer than a
/// round trip. Who closes later has worked on it.
const STALE_WITHIN: Millis = 1000;
const TURNED_AWAY: ErrorType = ErrorType::new("turned away");
