//! What an answer, and the end of a response, show of the backend: told to the core.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::ctx::Ctx;
use super::pipe::Stop;
use crate::core::answer::Answer;
use crate::core::health::ErrorAnswer;
use crate::core::{Cause, Millis, Observation};
use crate::link::Cut;
use crate::metrics::BrokenCause;

/// Takes in an answer with this status, or an event that means it.
pub(super) fn answered(ctx: &Ctx, status: u16) {
    let Some(selection) = ctx.selection else { return };
    let seen = match Answer::of(status, ctx.kind.takes_slot()) {
        Answer::Good => Observation::TrafficOk,
        Answer::Neutral => Observation::TrafficAnswered,
        Answer::BadGateway => Observation::TrafficFailed(Cause::BadGateway),
        Answer::Error => error(ctx, selection.member),
        Answer::Busy => {
            let since = ctx.now().saturating_sub(BUSY_FOR);
            if !ctx.snapshot.others_produce(selection.member, since) {
                return;
            }
            error(ctx, selection.member)
        }
    };
    if matches!(seen, Observation::TrafficFailed(_) | Observation::TrafficError(_)) {
        ctx.snapshot.links[selection.member].note_error(format!("answered {status}"));
    }
    observe(ctx, seen);
}

fn error(ctx: &Ctx, member: usize) -> Observation {
    let has_alternative = ctx.snapshot.pool.has_alternative(member);
    Observation::TrafficError(ErrorAnswer { origin: origin(ctx), has_alternative })
}

/// Stands for the request's session, or else for its client. Many clients share an address, so it is the connection.
fn origin(ctx: &Ctx) -> u64 {
    let mut hasher = DefaultHasher::new();
    match ctx.key {
        Some(key) => key.bits().hash(&mut hasher),
        None => (ctx.connection.number, ctx.asker.address).hash(&mut hasher),
    }
    hasher.finish()
}

/// Takes in that a response came to its end.
pub(super) fn completed(ctx: &Ctx) {
    if ctx.kind.takes_slot() {
        observe(ctx, Observation::Completed);
    }
}

/// Takes in that a response which had started broke off. Its client has not left.
pub(super) fn broken(ctx: &Ctx, stop: &Stop) {
    let is_failure = match stop {
        Stop::Closed | Stop::Failed(_) | Stop::Malformed(_) => true,
        Stop::Cut(Cut::Idle) => {
            let since = ctx.now().saturating_sub(ctx.snapshot.deadlines.idle.unwrap_or_default());
            ctx.selection.is_some_and(|selection| ctx.snapshot.others_produce(selection.member, since))
        }
        _ => false,
    };
    if is_failure {
        observe(ctx, Observation::Broken);
    }
}

/// What ends a response that stopped in this way, if its client did not.
pub(super) fn cause(stop: &Stop) -> Option<BrokenCause> {
    match stop {
        Stop::Closed | Stop::Ended | Stop::ErrorEvent(_) => Some(BrokenCause::Closed),
        Stop::Failed(_) => Some(BrokenCause::Reset),
        Stop::Malformed(_) => Some(BrokenCause::Framing),
        Stop::Cut(Cut::Idle | Cut::Unhealthy) => Some(BrokenCause::Idle),
        Stop::Cut(Cut::Total) => Some(BrokenCause::Total),
        Stop::Cut(Cut::FirstByte | Cut::FirstToken) => Some(BrokenCause::Limit),
        Stop::Cut(Cut::Upload) | Stop::Gone | Stop::Stuck(_) | Stop::Refused(_) => None,
    }
}

fn observe(ctx: &Ctx, seen: Observation) {
    if let Some(selection) = ctx.selection {
        ctx.snapshot.observe(selection.member, seen, &ctx.gateway().metrics, ctx.now());
    }
}

/// A backend that refuses requests and has produced nothing for this long, while others have, is not busy.
const BUSY_FOR: Millis = 10_000;
