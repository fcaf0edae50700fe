//! After a failure: [`core::retry`](crate::core::retry) says what counts against the backend, and whether another attempt
//! can help.

use pingora::{Error, ErrorType};

use super::attempt::Failed;
use super::ctx::Ctx;
use super::pipe::Stop;
use super::refusal::{Refusal, Refused};
use crate::core::retry::{Again, Failure, RetryReason, Standing, is_not_now};
use crate::core::{Observation, State};
use crate::link::{self, Cut, describe};
use crate::metrics::Shed;

/// Where the next attempt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// To the same backend, over a fresh connection.
    SameBackend,
    /// To another backend.
    Elsewhere,
}

/// Why there is no further attempt.
pub(super) enum Over {
    /// The gateway answers.
    Refused(Refused),
    /// The client has left, or reads nothing.
    Gone(String),
    /// The response had started, and can't be continued.
    Broken(String),
}

/// Decides about another attempt after one that failed.
pub(super) fn after(ctx: &mut Ctx, failed: Failed) -> Result<Next, Over> {
    match failed {
        Failed::Connect(error, address) => after_connect(ctx, &error, address),
        Failed::TurnedAway => {
            let status = ctx.turned_away.as_ref().map_or(0, |turned_away| turned_away.status);
            blame(ctx, Failure::TurnedAway(status), || format!("answered {status}"));
            leave(ctx, None);
            // It was allowed, and counted, before the answer was given up.
            Ok(Next::Elsewhere)
        }
        Failed::Before { stop, reused, after } => {
            let cut = stop.cut();
            let failure = match &stop {
                Stop::Gone | Stop::Stuck => return Err(Over::Gone(stop.to_string())),
                Stop::Refused(refusal) => return Err((*refusal).into()),
                Stop::Cut(Cut::Unhealthy) => Failure::Unhealthy,
                Stop::Cut(Cut::FirstByte) => Failure::FirstByte,
                Stop::Cut(Cut::Idle | Cut::Total | Cut::Upload) => Failure::Over,
                Stop::Closed | Stop::Failed(_) => Failure::Closed { reused, after },
                Stop::Malformed(_) => Failure::Broken,
            };
            blame(ctx, failure, || match failure {
                Failure::FirstByte => stop.to_string(),
                _ => format!("before the first byte: {stop}"),
            });
            let next = failure.reason().and_then(|reason| again(ctx, reason));
            leave(ctx, cut);
            next.ok_or_else(|| over(ctx, stop.to_string(), false))
        }
        Failed::Broken(stop @ (Stop::Gone | Stop::Stuck)) => Err(Over::Gone(stop.to_string())),
        Failed::Broken(stop) => {
            leave(ctx, stop.cut());
            Err(Over::Broken(stop.to_string()))
        }
    }
}

fn after_connect(ctx: &mut Ctx, error: &Error, address: Option<std::net::SocketAddr>) -> Result<Next, Over> {
    if link::is_ours(error) {
        ctx.gateway().metrics.limits.shed(Shed::Descriptors);
        leave(ctx, None);
        // The next backend would need a descriptor as well.
        return Err(Refusal::NO_DESCRIPTORS.into());
    }
    let why = || match error.etype() {
        ErrorType::ConnectNoRoute if address.is_none() => "the name can't be resolved".to_owned(),
        _ => format!("connect: {}", describe(error)),
    };
    blame(ctx, Failure::Connect, why);
    if let Some(link) = ctx.link() {
        link.address.failed(address);
    }
    leave(ctx, None);
    let timed_out = *error.etype() == ErrorType::ConnectTimedout;
    again(ctx, RetryReason::Connect).ok_or_else(|| over(ctx, why(), timed_out))
}

/// The request is no longer at its backend.
fn leave(ctx: &mut Ctx, cut: Option<Cut>) {
    ctx.cut = cut;
    ctx.seat = None;
}

/// The answer of the gateway after the last attempt.
fn over(ctx: &mut Ctx, why: String, timed_out: bool) -> Over {
    ctx.record.error(why);
    let turned_away = ctx.turned_away.as_ref().map(|turned_away| turned_away.status);
    match (ctx.cut, turned_away) {
        (Some(Cut::Upload), _) => Refusal::SLOW_BODY,
        (Some(Cut::FirstByte | Cut::Idle | Cut::Total), _) => Refusal::TIMEOUT,
        (_, Some(429)) => Refusal::BUSY,
        (_, Some(503)) => Refusal::NONE_AVAILABLE,
        _ if timed_out => Refusal::TIMEOUT,
        _ => Refusal::FAILED,
    }
    .into()
}

/// Where the request is sent again, if it is. Then the retry is counted.
fn again(ctx: &Ctx, reason: RetryReason) -> Option<Next> {
    let down = ctx.link().is_some_and(|link| link.backend.state() == State::Unhealthy);
    let standing = Standing { replayable: ctx.body.is_replayable(), another: has_another(ctx), down };
    let next = match reason.again(standing, || ctx.snapshot.budget.retry(ctx.now())) {
        Again::No => None,
        Again::There => Some(Next::SameBackend),
        Again::Elsewhere => Some(Next::Elsewhere),
    };
    if next.is_some() {
        ctx.snapshot.metrics.retry(reason);
    }
    let backend = ctx.link().map(|link| link.backend.name());
    tracing::debug!(backend, reason = reason.as_str(), allowed = next.is_some(), "another attempt");
    next
}

/// Whether another backend is left to go to.
pub(super) fn has_another(ctx: &Ctx) -> bool {
    ctx.record.attempts() < ctx.snapshot.config.pool().retry.max_attempts && ctx.snapshot.pool.has_another(&ctx.tried)
}

/// Whether an answer with this status is given up, since it means "not now" and another backend can do better. If so, the
/// retry is counted: the answer is lost, so nothing can stand in the way any more.
pub(super) fn is_given_up(ctx: &Ctx, status: u16) -> bool {
    is_not_now(status) && again(ctx, RetryReason::Status).is_some()
}

/// Counts a failure against the backend if it is the backend's; `why` describes it.
fn blame(ctx: &Ctx, failure: Failure, why: impl FnOnce() -> String) {
    let (Some(cause), Some(selection), Some(link)) = (failure.blame(), ctx.selection, ctx.link()) else { return };
    link.note_error(why());
    ctx.snapshot.observe(selection.member, Observation::TrafficFailed(cause), &ctx.gateway().metrics, ctx.now());
}

impl From<Refused> for Over {
    fn from(refused: Refused) -> Over {
        match refused {
            Refused::Gone => Over::Gone(Stop::Gone.to_string()),
            refused => Over::Refused(refused),
        }
    }
}

impl From<Refusal> for Over {
    fn from(refusal: Refusal) -> Over {
        Over::Refused(refusal.into())
    }
}
