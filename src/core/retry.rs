//! After a failure: whose fault it was, and whether the same request may be sent again.
//!
//! | stage | the backend's fault | another attempt |
//! |---|---|---|
//! | connect refused, timed out, TLS failed | yes | on the next backend; costs no budget |
//! | a reused connection had died | no: the stale pool race | at once, there, on a fresh connection; costs nothing |
//! | closed before any byte, on a fresh connection | yes | on the next backend |
//! | no first byte in time | yes | on the next backend |
//! | cut because the backend turned unhealthy | counted already | on the next backend |
//! | 503, 502, 429 while another is available | 502 | on the next backend |
//! | any byte reached the client | no | never |
//! | the client left, or sent a malformed body | no | never |
//!
//! The last two are the shell's to see: there, nobody asks here.

use super::Millis;
use super::health::Cause;

/// What became of an attempt, before any byte of a final response reached the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A connection could not be made.
    Connect,
    /// The answer was this status, which [`is_not_now`], and it was given up.
    TurnedAway(u16),
    /// Cut because the backend turned unhealthy while the request waited there.
    Unhealthy,
    /// Cut because no byte of the response came in time.
    FirstByte,
    /// Cut for what another backend would not do better: the client's fault, or the request's whole time is over.
    Over,
    /// The connection, one that had served others before or a fresh one, was closed or reset so long after the attempt
    /// began.
    Closed {
        /// Whether it had served others before.
        reused: bool,
        /// Milliseconds since the attempt began.
        after: Millis,
    },
    /// What came is no response.
    Broken,
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
    /// The backend turned unhealthy while the request waited there.
    Unhealthy,
}

/// What another attempt depends on, besides what failed.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Whether the whole body can be sent once more.
    pub replayable: bool,
    /// Whether attempts are left, and somebody is there who was not tried.
    pub another: bool,
    /// Whether the backend that failed is unhealthy by now.
    pub down: bool,
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
            Failure::Over => None,
            Failure::Closed { reused: true, after } if after < STALE_WITHIN => Some(RetryReason::Stale),
            Failure::Closed { .. } | Failure::Broken => Some(RetryReason::Closed),
        }
    }

    /// What the backend is blamed for, if it is its fault.
    #[must_use]
    pub fn blame(self) -> Option<Cause> {
        match self {
            Failure::TurnedAway(502) => Some(Cause::BadGateway),
            Failure::TurnedAway(_) | Failure::Unhealthy | Failure::Over => None,
            Failure::Connect => Some(Cause::Connect),
            Failure::FirstByte => Some(Cause::FirstByte),
            Failure::Closed { .. } | Failure::Broken => match self.reason() {
                Some(RetryReason::Stale) => None,
                _ => Some(Cause::Closed),
            },
        }
    }
}

impl RetryReason {
    /// All reasons, in the order in which metrics list them.
    pub const ALL: [RetryReason; 6] = [
        RetryReason::Connect,
        RetryReason::Stale,
        RetryReason::Closed,
        RetryReason::Status,
        RetryReason::FirstByte,
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
            RetryReason::Unhealthy => "unhealthy",
        }
    }

    /// Whether the request is sent again for this reason. `budget` is asked last, and only if the retry costs something:
    /// if it says yes, one retry has been taken from it.
    #[must_use]
    pub fn again(self, standing: Standing, budget: impl FnOnce() -> bool) -> Again {
        let Standing { replayable, another, down } = standing;
        match self {
            _ if !replayable => Again::No,
            // The server closed an idle connection just as it was used. That says nothing about the server, and it did
            // not see the request.
            RetryReason::Stale => Again::There,
            _ if another && (self.costs_nothing(down) || budget()) => Again::Elsewhere,
            _ => Again::No,
        }
    }

    /// A retry multiplies no load if the backend that failed takes none any more: of a dead one, each request moves once.
    fn costs_nothing(self, down: bool) -> bool {
        matches!(self, RetryReason::Connect | RetryReason::Unhealthy) || (down && self != RetryReason::Status)
    }
}

/// Whether a status says "not now", so that somebody else may be asked for something better.
#[must_use]
pub fn is_not_now(status: u16) -> bool {
    matches!(status, 429 | 502 | 503)
}

/// A server that closes an idle connection has done so before it sees the request: the news takes no longer than a
/// round trip. Who closes later has worked on it.
const STALE_WITHIN: Millis = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Standing = Standing { replayable: true, another: true, down: false };

    #[test]
    fn a_stale_connection_is_nobodys_fault_and_costs_nothing_but_only_within_a_second() {
        let closed = |reused, after| Failure::Closed { reused, after };
        assert_eq!((closed(true, 999).reason(), closed(true, 999).blame()), (Some(RetryReason::Stale), None));
        for failure in [closed(true, 1000), closed(false, 0), Failure::Broken] {
            assert_eq!((failure.reason(), failure.blame()), (Some(RetryReason::Closed), Some(Cause::Closed)));
        }
        let alone = Standing { another: false, ..WELL };
        assert_eq!(RetryReason::Stale.again(alone, || panic!("asked for budget")), Again::There);
    }

    #[test]
    fn who_is_dead_costs_no_budget_but_a_status_always_does() {
        let down = Standing { down: true, ..WELL };
        for reason in RetryReason::ALL.into_iter().filter(|reason| *reason != RetryReason::Stale) {
            let free = matches!(reason, RetryReason::Connect | RetryReason::Unhealthy);
            let broke = |standing| reason.again(standing, || false) == Again::Elsewhere;
            assert_eq!((broke(WELL), broke(down)), (free, reason != RetryReason::Status), "{reason:?}");
        }
    }

    #[test]
    fn nothing_is_taken_from_the_budget_for_a_retry_that_cannot_be() {
        for standing in [Standing { replayable: false, ..WELL }, Standing { another: false, ..WELL }] {
            assert_eq!(RetryReason::Status.again(standing, || panic!("asked for budget")), Again::No);
        }
    }
}
