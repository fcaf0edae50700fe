//! After a failure: [`core::retry`](crate::core::retry) says whose fault it was, and whether another attempt may help.

use std::net::SocketAddr;

use http::StatusCode;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};

use super::ctx::{Ctx, TurnedAway};
use crate::core::retry::{Again, Failure, RetryReason, Standing, is_not_now};
use crate::core::{Observation, State};
use crate::link::{self, Attempt, Cut, describe};
use crate::metrics::Shed;

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
    blame(ctx, Failure::Connect, || match e.etype() {
        ErrorType::ConnectNoRoute if address.is_none() => "the name can't be resolved".to_owned(),
        _ => format!("connect: {}", describe(&e)),
    });
    if let Some(link) = ctx.link() {
        link.address.failed(address);
    }
    ctx.leave();
    // Nothing of the body was sent.
    let again = again(ctx, RetryReason::Connect, true);
    e.set_retry(again);
    e
}

/// A request that was on its way to a backend, or its response, failed.
pub(super) fn after_send(session: &Session, ctx: &mut Ctx, mut e: Box<Error>, reused: bool) -> Box<Error> {
    let again = *e.esource() == ErrorSource::Upstream && !response_begun(session) && {
        let failure = failure(ctx, &e, reused);
        blame(ctx, failure, || match failure {
            Failure::TurnedAway(status) => format!("answered {status}"),
            Failure::FirstByte => "no first byte in time".to_owned(),
            _ => format!("before the first byte: {}", e.root_etype().as_str()),
        });
        let replayable = ctx.body.replayable(session);
        match failure.reason() {
            // It was allowed, and counted, before the answer was given up.
            Some(RetryReason::Status) => replayable,
            Some(reason) => again(ctx, reason, replayable),
            None => false,
        }
    };
    ctx.leave();
    e.set_retry(again);
    e
}

/// What failed, before any byte of the response reached the client.
fn failure(ctx: &Ctx, e: &Error, reused: bool) -> Failure {
    if let Some(turned_away) = &ctx.turned_away
        && *e.etype() == TURNED_AWAY
    {
        return Failure::TurnedAway(turned_away.status.as_u16());
    }
    let closed = matches!(e.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError);
    match ctx.attempt.as_ref().and_then(Attempt::cut) {
        Some(Cut::Unhealthy) => Failure::Unhealthy,
        Some(Cut::FirstByte) => Failure::FirstByte,
        Some(Cut::Idle | Cut::Total | Cut::Upload) => Failure::Over,
        None if closed => {
            let after = ctx.attempt.as_ref().map_or(0, |attempt| ctx.now().saturating_sub(attempt.begun()));
            Failure::Closed { reused, after }
        }
        None => Failure::Broken,
    }
}

/// Whether the request is sent again. If so, the retry is counted.
fn again(ctx: &mut Ctx, reason: RetryReason, replayable: bool) -> bool {
    let down = ctx.link().is_some_and(|link| link.backend.state() == State::Unhealthy);
    let standing = Standing { replayable, another: another(ctx), down };
    let again = reason.again(standing, || ctx.snapshot.budget.retry(ctx.now()));
    let allowed = match (again, ctx.selection) {
        (Again::There, Some(selection)) => {
            ctx.again = Some(selection.member);
            true
        }
        (Again::There, None) | (Again::No, _) => false,
        (Again::Elsewhere, _) => true,
    };
    if allowed {
        ctx.snapshot.metrics.retry(reason);
    }
    let backend = ctx.link().map(|link| link.backend.name());
    tracing::debug!(backend, reason = reason.as_str(), allowed, "another attempt");
    allowed
}

/// Whether there is somebody else to go to.
pub(super) fn another(ctx: &Ctx) -> bool {
    ctx.record.attempts() < ctx.snapshot.config.pool().retry.max_attempts && ctx.snapshot.pool.has_another(&ctx.tried)
}

/// Whether a status says "not now", and somebody else may be asked for something better. If so, the retry is counted: an
/// answer that is given up is lost, so nothing may stand in the way any more.
pub(super) fn turned_away(session: &Session, ctx: &mut Ctx, status: StatusCode) -> bool {
    is_not_now(status.as_u16()) && again(ctx, RetryReason::Status, ctx.body.replayable(session))
}

/// The error with which the response filter hands over to [`after_send`].
pub(super) fn turn_away(ctx: &mut Ctx, turned_away: TurnedAway) -> Box<Error> {
    ctx.turned_away = Some(turned_away);
    Error::new_up(TURNED_AWAY)
}

/// Holds against the backend what is its fault; `what` says it in words.
fn blame(ctx: &Ctx, failure: Failure, what: impl FnOnce() -> String) {
    let (Some(cause), Some(selection), Some(link)) = (failure.blame(), ctx.selection, ctx.link()) else { return };
    link.note_error(what());
    ctx.snapshot.observe(selection.member, Observation::TrafficFailed(cause), &ctx.gateway().metrics, ctx.now());
}

/// Whether any byte of the final response reached the client. Informational ones (1xx) are not it.
pub(super) fn response_begun(session: &Session) -> bool {
    session
        .response_written()
        .is_some_and(|head| !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS)
}

const TURNED_AWAY: ErrorType = ErrorType::new("turned away");
