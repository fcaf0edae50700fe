//! After a failure: whether it counts against the backend, and whether the same request is sent again.
//!
//! | stage | counts against the backend | another attempt | costs budget |
//! |---|---|---|---|
//! | connect refused, timed out, TLS failed | yes | on the next backend | no |
//! | a reused connection had died | no: it was closed while idle | at once, there, on a fresh connection | no |
//! | closed before any byte, on a fresh connection | yes | on the next backend | no |
//! | no first byte, or no first token, in time | while others of the pool produce output | on the next backend | yes |
//! | a stream ended, closed or was reset after its head and before its first output | yes | on the next backend | no |
//! | an error event before the first output | no | on the next backend; after a failure of the server itself once | yes |
//! | cut because the backend turned unhealthy by its probes or connections | counted already | on the next backend | no |
//! | 503, 502, 429 while another is available | 502 | on the next backend | yes |
//! | 500 and the like of a backend that is unhealthy for its answers | counted already | on the next backend | yes |
//! | any output reached the client | no | never | |
//! | the client left, or sent a malformed body | no | never | |
//!
//! The last two are the shell's to see and are not asked about here. One dead backend can strand many prefills at once,
//! so attempts that it loses cost no budget: each request leaves it once, and `max_attempts` bounds them.

use super::Millis;
use super::health::Cause;
use crate::sse::ErrorClass;

/// How an attempt ended before any output reached the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A connection could not be made.
    Connect,
    /// The response had this status, which [`is_not_now`], and was given up.
    TurnedAway(u16),
    /// Cut because the backend turned unhealthy while the request waited there.
    Unhealthy,
    /// Cut because no byte of the response came in time.
    FirstByte,
    /// Cut because no output of the response came in time.
    FirstToken,
    /// Cut for what another backend would not do better: the client's fault, or the request's whole time is over.
    Over,
    /// The connection was closed or reset so long after the attempt started, before any byte.
    Closed {
        /// Whether it had served others before.
        reused: bool,
        /// Milliseconds since the attempt started.
        after: Millis,
    },
    /// What came is no response.
    Malformed,
    /// The stream ended, closed or was reset after its head and before its first output.
    DiedBeforeToken,
    /// An error event came before the first output.
    ErrorEvent {
        /// What the event means.
        class: ErrorClass,
        /// Whether the request was sent again after [`ErrorClass::Failed`] already.
        again: bool,
    },
}

/// What made a retry necessary; the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    /// The connection was refused or timed out.
    Connect,
    /// A reused connection had died.
    Stale,
    /// A fresh connection was closed before any byte of the response.
    Closed,
    /// 502, 503 or 429 while another backend was available.
    Status,
    /// No byte of the response in time.
    FirstByte,
    /// No output of the response in time.
    FirstToken,
    /// An error event before the first output.
    ErrorEvent,
    /// The stream ended after its head and before its first output.
    DiedBeforeToken,
    /// The backend turned unhealthy while the request waited there.
    Unhealthy,
}

/// What another attempt depends on, besides what failed.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Whether the whole body can be sent once more.
    pub replayable: bool,
    /// Whether attempts are left, and a backend that was not tried.
    pub another: bool,
}

/// Whether the same request is sent again, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Not at all.
    No,
    /// At once, on the same backend, over a fresh connection.
    There,
    /// On the next backend.
    Elsewhere,
}

impl Failure {
    /// What a retry would be for; `None` if there is to be none.
    #[must_use]
    pub fn reason(self) -> Option<RetryReason> {
        match self {
            Failure::Connect => Some(RetryReason::Connect),
            Failure::TurnedAway(_) => Some(RetryReason::Status),
            Failure::Unhealthy => Some(RetryReason::Unhealthy),
            Failure::FirstByte => Some(RetryReason::FirstByte),
            Failure::FirstToken => Some(RetryReason::FirstToken),
            Failure::Over => None,
            Failure::Closed { reused: true, after } if after < STALE_WITHIN => Some(RetryReason::Stale),
            Failure::Closed { .. } | Failure::Malformed => Some(RetryReason::Closed),
            Failure::DiedBeforeToken => Some(RetryReason::DiedBeforeToken),
            Failure::ErrorEvent { class: ErrorClass::Answer, .. } => None,
            Failure::ErrorEvent { class: ErrorClass::Failed, again: true } => None,
            Failure::ErrorEvent { .. } => Some(RetryReason::ErrorEvent),
        }
    }

    /// Whether the backend did something that an operator can want to see.
    #[must_use]
    pub fn is_backends(self) -> bool {
        match self {
            // Both are normal for a backend that is busy, loads, or closes idle connections.
            Failure::TurnedAway(status) => status == 502,
            Failure::Closed { .. } => self.reason() != Some(RetryReason::Stale),
            Failure::Unhealthy | Failure::Over => false,
            _ => true,
        }
    }

    /// The cause under which it counts against the backend, if it does. `others_produce`: whether other backends of the
    /// pool have produced output meanwhile and this one has not; when all are slow, all are busy.
    #[must_use]
    pub fn cause(self, others_produce: impl FnOnce() -> bool) -> Option<Cause> {
        match self {
            Failure::TurnedAway(502) => Some(Cause::BadGateway),
            Failure::TurnedAway(_) | Failure::Unhealthy | Failure::Over | Failure::ErrorEvent { .. } => None,
            Failure::Connect => Some(Cause::Connect),
            Failure::FirstByte => others_produce().then_some(Cause::FirstByte),
            Failure::FirstToken => others_produce().then_some(Cause::FirstToken),
            Failure::Closed { .. } if self.reason() == Some(RetryReason::Stale) => None,
            Failure::Closed { .. } | Failure::Malformed | Failure::DiedBeforeToken => Some(Cause::Closed),
        }
    }
}

impl RetryReason {
    /// All reasons, in the order in which metrics list them.
    pub const ALL: [RetryReason; 9] = [
        RetryReason::Connect,
        RetryReason::Stale,
        RetryReason::Closed,
        RetryReason::Status,
        RetryReason::FirstByte,
        RetryReason::FirstToken,
        RetryReason::ErrorEvent,
        RetryReason::DiedBeforeToken,
        RetryReason::Unhealthy,
    ];

    /// The name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RetryReason::Connect => "connect",
            RetryReason::Stale => "stale",
            RetryReason::Closed => "closed",
            RetryReason::Status => "status",
            RetryReason::FirstByte => "first_byte",
            RetryReason::FirstToken => "first_token",
            RetryReason::ErrorEvent => "error_event",
            RetryReason::DiedBeforeToken => "died_before_token",
            RetryReason::Unhealthy => "unhealthy",
        }
    }

    /// Whether the request is sent again for this reason. `budget` is asked last, and only if the retry costs something:
    /// if it grants one, one retry has been taken from it.
    #[must_use]
    pub fn again(self, standing: Standing, budget: impl FnOnce() -> bool) -> Again {
        match self {
            _ if !standing.replayable => Again::No,
            // The server closed an idle connection just as it was used. That is no sign of trouble, and it did not see the
            // request.
            RetryReason::Stale => Again::There,
            _ if standing.another && (!self.costs_budget() || budget()) => Again::Elsewhere,
            _ => Again::No,
        }
    }

    /// Whether the backend may go on working on the request, or works and refuses it: then retries multiply the load of
    /// the pool.
    fn costs_budget(self) -> bool {
        matches!(self, RetryReason::Status | RetryReason::FirstByte | RetryReason::FirstToken | RetryReason::ErrorEvent)
    }
}

/// Whether a status means "not now", so that another backend can do better.
#[must_use]
pub fn is_not_now(status: u16) -> bool {
    matches!(status, 429 | 502 | 503)
}

/// A server that closes an idle connection has done so before it sees the request: that shows within a round trip. If it
/// closes later, it has worked on the request.
const STALE_WITHIN: Millis = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Standing = Standing { replayable: true, another: true };

    #[test]
    fn stale_connection_is_retried_there_within_a_second() {
        let closed = |reused, after| Failure::Closed { reused, after };
        assert_eq!((closed(true, 999).reason(), closed(true, 999).cause(|| true)), (Some(RetryReason::Stale), None));
        for failure in [closed(true, 1000), closed(false, 0), Failure::Malformed] {
            assert_eq!((failure.reason(), failure.cause(|| true)), (Some(RetryReason::Closed), Some(Cause::Closed)));
        }
        let alone = Standing { another: false, ..BOTH };
        assert_eq!(RetryReason::Stale.again(alone, || panic!("asked for budget")), Again::There);
    }

    #[test]
    fn budget_is_for_backends_that_may_go_on() {
        use RetryReason::{ErrorEvent, FirstByte, FirstToken, Stale, Status};
        for reason in RetryReason::ALL.into_iter().filter(|reason| *reason != Stale) {
            let is_free = !matches!(reason, Status | FirstByte | FirstToken | ErrorEvent);
            assert_eq!(reason.again(BOTH, || false) == Again::Elsewhere, is_free, "{reason:?}");
        }
    }

    #[test]
    fn impossible_retry_takes_no_budget() {
        for standing in [Standing { replayable: false, ..BOTH }, Standing { another: false, ..BOTH }] {
            assert_eq!(RetryReason::Status.again(standing, || panic!("asked for budget")), Again::No);
        }
    }

    #[test]
    fn server_failure_is_retried_once() {
        let event = |class, again| Failure::ErrorEvent { class, again }.reason();
        assert_eq!(event(ErrorClass::Failed, false), Some(RetryReason::ErrorEvent));
        assert_eq!(event(ErrorClass::Failed, true), None);
        assert_eq!(event(ErrorClass::Unavailable, true), Some(RetryReason::ErrorEvent));
        assert_eq!(event(ErrorClass::Answer, false), None);
    }

    #[test]
    fn time_limit_counts_only_while_others_produce() {
        for (failure, cause) in [(Failure::FirstByte, Cause::FirstByte), (Failure::FirstToken, Cause::FirstToken)] {
            assert_eq!((failure.cause(|| true), failure.cause(|| false)), (Some(cause), None));
        }
    }
}
