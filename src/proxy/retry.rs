//! After a failure: [`core::retry`](crate::core::retry) says what counts against the backend, and whether another attempt
//! can help.

use http::StatusCode;
use pingora::{Error, ErrorType};

use super::attempt::Failed;
use super::ctx::{Ctx, TurnedAway};
use super::judge;
use super::pipe::Stop;
use super::refusal::{Refusal, Refused};
use crate::core::retry::{Again, Failure, RetryReason, Standing, is_not_now};
use crate::core::{Millis, Observation, Patience};
use crate::link::{self, Cut, Limit, describe};
use crate::metrics::Shed;
use crate::sse::{ErrorClass, ErrorEvent};

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
    ctx.broken = match &failed {
        Failed::Before { stop, .. } | Failed::BeforeToken { stop, .. } | Failed::Broken(stop) => judge::cause(stop),
        Failed::Connect(..) | Failed::TurnedAway | Failed::Other => None,
    };
    match failed {
        Failed::Connect(error, address) => after_connect(ctx, &error, address),
        Failed::TurnedAway => {
            let status = ctx.turned_away.as_ref().map_or(0, |turned_away| turned_away.status);
            judge::answered(ctx, status);
            leave(ctx, None);
            // It was allowed, and counted, before the answer was given up.
            Ok(Next::Elsewhere)
        }
        Failed::Other => {
            judge::answered(ctx, ctx.turned_away.as_ref().map_or(0, |turned_away| turned_away.status));
            leave(ctx, None);
            ctx.record.error("the answer does not continue the stream".to_owned());
            Err(Refusal::NO_STREAM.into())
        }
        Failed::Before { stop, reused, after } => {
            let failure = match &stop {
                Stop::Cut(Cut::FirstByte) => Failure::FirstByte,
                Stop::Malformed(_) => Failure::Malformed,
                _ => Failure::Closed { reused, after },
            };
            after_stop(ctx, stop, failure, after)
        }
        Failed::BeforeToken { stop, after } => {
            let failure = match &stop {
                Stop::ErrorEvent(event) => after_event(ctx, event),
                _ => Failure::DiedBeforeToken,
            };
            ctx.opening.has_answered = true;
            after_stop(ctx, stop, failure, after)
        }
        Failed::Broken(stop @ (Stop::Gone | Stop::Stuck(_))) => Err(Over::Gone(stop.in_words(&ctx.snapshot.config))),
        Failed::Broken(stop) => {
            judge::broken(ctx, &stop);
            leave(ctx, stop.cut());
            Err(Over::Broken(stop.in_words(&ctx.snapshot.config)))
        }
    }
}

/// After an attempt that stopped before the response had started; `failure` is what it means, unless the attempt was cut or
/// stopped because of the client.
fn after_stop(ctx: &mut Ctx, stop: Stop, failure: Failure, after: Millis) -> Result<Next, Over> {
    let failure = match &stop {
        Stop::Gone | Stop::Stuck(_) => return Err(Over::Gone(stop.in_words(&ctx.snapshot.config))),
        Stop::Refused(refusal) => return Err((*refusal).into()),
        Stop::Cut(Cut::Unhealthy) => Failure::Unhealthy,
        Stop::Cut(Cut::FirstToken) => Failure::FirstToken,
        Stop::Cut(Cut::Idle | Cut::Total | Cut::Upload) => Failure::Over,
        _ => failure,
    };
    let why = stop.in_words(&ctx.snapshot.config);
    count(ctx, failure, after, || match failure {
        Failure::FirstByte | Failure::FirstToken => why.clone(),
        Failure::DiedBeforeToken => format!("before the first token: {why}"),
        _ => format!("before the first byte: {why}"),
    });
    let next = failure.reason().and_then(|reason| again(ctx, reason));
    leave(ctx, stop.cut());
    next.ok_or_else(|| over(ctx, why, false))
}

/// After an error event, which counts as an answer: it is what the client gets if no other backend does better.
fn after_event(ctx: &mut Ctx, event: &ErrorEvent) -> Failure {
    let (status, meaning) = match event.class {
        ErrorClass::RateLimited => (StatusCode::TOO_MANY_REQUESTS, StatusCode::TOO_MANY_REQUESTS),
        ErrorClass::Failed => (StatusCode::SERVICE_UNAVAILABLE, StatusCode::INTERNAL_SERVER_ERROR),
        ErrorClass::Unavailable | ErrorClass::Answer => {
            (StatusCode::SERVICE_UNAVAILABLE, StatusCode::SERVICE_UNAVAILABLE)
        }
    };
    judge::answered(ctx, meaning.as_u16());
    ctx.turned_away = Some(TurnedAway { status: status.as_u16(), retry_after: None, message: event.message.clone() });
    let again = event.class == ErrorClass::Failed && std::mem::replace(&mut ctx.opening.server_failed, true);
    Failure::ErrorEvent { class: event.class, again }
}

fn after_connect(ctx: &mut Ctx, error: &Error, address: Option<std::net::SocketAddr>) -> Result<Next, Over> {
    if link::is_ours(error) {
        ctx.gateway().metrics.limits.shed(Shed::Descriptors);
        leave(ctx, None);
        // The next backend would need a descriptor as well.
        return Err(Refusal::NO_DESCRIPTORS.into());
    }
    let limit = Limit { time: ctx.snapshot.config.pool().timeouts.connect, setting: "timeouts.connect" };
    let why = describe(error, limit);
    count(ctx, Failure::Connect, 0, || why.clone());
    if let Some(link) = ctx.link() {
        link.address.failed(address);
    }
    leave(ctx, None);
    let timed_out = *error.etype() == ErrorType::ConnectTimedout;
    again(ctx, RetryReason::Connect).ok_or_else(|| over(ctx, why, timed_out))
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
        (Some(Cut::FirstByte | Cut::FirstToken | Cut::Idle | Cut::Total), _) => Refusal::TIMEOUT,
        (_, Some(429)) => Refusal::BUSY,
        (_, Some(503)) => Refusal::NONE_AVAILABLE,
        _ if ctx.opening.has_answered => Refusal::ALL_FAILED,
        _ if timed_out => Refusal::TIMEOUT,
        _ => Refusal::FAILED,
    }
    .into()
}

/// Where the request is sent again, if it is. Then the retry is counted.
fn again(ctx: &Ctx, reason: RetryReason) -> Option<Next> {
    let standing = Standing { replayable: ctx.body.is_replayable(), another: has_another(ctx) };
    // A query costs a backend next to nothing, so it neither fills the budget nor draws on it.
    let is_free = !ctx.kind.takes_slot();
    let next = match reason.again(standing, || is_free || ctx.snapshot.budget.retry(ctx.now())) {
        Again::No => None,
        Again::There => Some(Next::SameBackend),
        Again::Elsewhere => Some(Next::Elsewhere),
    };
    if next.is_some() {
        ctx.snapshot.metrics.retries.count(reason);
    }
    let backend = ctx.link().map(|link| link.backend.name());
    tracing::debug!(backend, reason = reason.as_str(), allowed = next.is_some(), "another attempt");
    next
}

/// Whether another backend is left to go to.
pub(super) fn has_another(ctx: &Ctx) -> bool {
    let patience = if ctx.kind.takes_slot() { Patience::Spills } else { Patience::NeedsNoRoom };
    ctx.record.attempts() < ctx.snapshot.config.pool().retry.max_attempts
        && ctx.snapshot.pool.has_another(patience, &ctx.tried)
}

/// Whether an answer with this status is given up, since another backend can do better. If so, the retry is counted: the
/// answer is lost, so nothing can stand in the way any more.
pub(super) fn is_given_up(ctx: &Ctx, status: u16) -> bool {
    // The client of a stream whose head was sent can't get any status, and an error of a backend that is known to answer
    // with errors is no answer.
    let is_suspect = || ctx.link().is_some_and(|link| !link.backend.state().serves());
    let is_failure = is_not_now(status) || status >= 500 && (ctx.opening.is_sent || is_suspect());
    is_failure && again(ctx, RetryReason::Status).is_some()
}

/// Counts a failure against the backend if it is the backend's. The attempt took `after` milliseconds, and `why` describes
/// the failure.
fn count(ctx: &Ctx, failure: Failure, after: Millis, why: impl FnOnce() -> String) {
    let (Some(selection), Some(link)) = (ctx.selection, ctx.link()) else { return };
    if failure.is_backends() {
        link.note_error(why());
    }
    let since = ctx.now().saturating_sub(after);
    if let Some(cause) = failure.cause(|| ctx.snapshot.others_produce(selection.member, since)) {
        let seen = Observation::TrafficFailed(cause);
        ctx.snapshot.observe(selection.member, seen, &ctx.gateway().metrics, ctx.now());
    }
}

impl From<Refused> for Over {
    fn from(refused: Refused) -> Over {
        match refused {
            Refused::Gone => Over::Gone("the client left".to_owned()),
            refused => Over::Refused(refused),
        }
    }
}

impl From<Refusal> for Over {
    fn from(refusal: Refusal) -> Over {
        Over::Refused(refusal.into())
    }
}
