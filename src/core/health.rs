//! One backend's health: what was seen of it becomes its state.
//!
//! ```text
//!   warming ──probe ok──▶ healthy ──failures in a row──▶ unhealthy
//!      ▲                   ▲  │                            │   ▲
//!      │        good enough│  └─────── 503 to a probe ──┐  │   │first failure
//!      │                   │                            │  │   │
//!      │              probation ◀───good probes in a row┼──┘   │
//!      │                   └────────────────────────────┼──────┘
//!      └────────────────────────────────────────────────┘
//! ```

/// Where a backend stands. It serves in [`State::Healthy`] and [`State::Probation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Not known yet, or loading a model (503 to probes): nothing is wrong, but it can't serve yet.
    Warming,
    /// Serves.
    Healthy,
    /// Failed too often in a row.
    Unhealthy,
    /// Was unhealthy and answers probes again: serves, but the first failure ends it.
    Probation,
}

impl State {
    /// All states, in the order in which metrics and pages list them.
    pub const ALL: [State; 4] = [State::Warming, State::Healthy, State::Unhealthy, State::Probation];

    /// Whether a backend in this state takes requests.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(self, State::Healthy | State::Probation)
    }

    /// The name in metrics, pages and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Warming => "warming",
            State::Healthy => "healthy",
            State::Unhealthy => "unhealthy",
            State::Probation => "probation",
        }
    }
}

/// What caused an observation; the label `cause` of `ingle_health_transitions_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A probe was answered as it should be.
    Probe,
    /// A probe was answered with 503: loading.
    Loading,
    /// A probe failed: refused, timed out, wrong status.
    ProbeFailed,
    /// A request was answered.
    Response,
    /// A connection for a request was refused or timed out.
    Connect,
    /// A connection was closed or reset before the first output.
    Closed,
    /// No byte of a response within `timeouts.first_byte`.
    FirstByte,
    /// No output of a response within `timeouts.first_token`.
    FirstToken,
    /// A request was answered with 502 or 504.
    BadGateway,
}

impl Cause {
    /// All causes, in the order in which metrics list them.
    pub const ALL: [Cause; 9] = [
        Cause::Probe,
        Cause::Loading,
        Cause::ProbeFailed,
        Cause::Response,
        Cause::Connect,
        Cause::Closed,
        Cause::FirstByte,
        Cause::FirstToken,
        Cause::BadGateway,
    ];

    /// The name in metrics, pages and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Probe => "probe",
            Cause::Loading => "loading",
            Cause::ProbeFailed => "probe_failed",
            Cause::Response => "response",
            Cause::Connect => "connect",
            Cause::Closed => "closed",
            Cause::FirstByte => "first_byte",
            Cause::FirstToken => "first_token",
            Cause::BadGateway => "bad_gateway",
        }
    }
}

/// One thing seen of a backend, by a probe or by traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A probe was answered as it should be.
    ProbeOk,
    /// A probe was answered with 503.
    ProbeLoading,
    /// A probe failed.
    ProbeFailed,
    /// A request got a response that does not speak against the backend.
    TrafficOk,
    /// A request failed through the backend's fault.
    TrafficFailed(Cause),
}

impl Observation {
    fn cause(self) -> Cause {
        match self {
            Observation::ProbeOk => Cause::Probe,
            Observation::ProbeLoading => Cause::Loading,
            Observation::ProbeFailed => Cause::ProbeFailed,
            Observation::TrafficOk => Cause::Response,
            Observation::TrafficFailed(cause) => cause,
        }
    }
}

/// How many observations in a row change a state; both at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Good probes in a row after which an unhealthy backend serves again.
    pub healthy: u32,
    /// Failures in a row after which a healthy backend is unhealthy.
    pub unhealthy: u32,
}

/// A change of state, reported once, by the observation that caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// What was seen.
    pub cause: Cause,
}

/// The state machine of one backend.
///
/// Probes and traffic have a count of failures each, so that a server whose `/health` answers while its requests
/// fail is noticed, and so is one whose probes fail while old streams still trickle.
#[derive(Clone, Debug)]
pub struct Health {
    state: State,
    good: u32,
    probe_failures: u32,
    traffic_failures: u32,
}

impl Default for Health {
    fn default() -> Self {
        Health { state: State::Warming, good: 0, probe_failures: 0, traffic_failures: 0 }
    }
}

impl Health {
    /// The current state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether the backend is healthy and no failure is counted against it.
    #[must_use]
    pub fn spotless(&self) -> bool {
        self.state == State::Healthy && self.probe_failures == 0 && self.traffic_failures == 0
    }

    /// Takes in one observation. Returns the change of state that it caused, if any.
    pub fn observe(&mut self, seen: Observation, thresholds: Thresholds) -> Option<Transition> {
        self.count(seen);
        let from = self.state;
        let to = self.next(seen, thresholds);
        if to == from {
            return None;
        }
        *self = Health { state: to, ..Health::default() };
        Some(Transition { from, to, cause: seen.cause() })
    }

    fn count(&mut self, seen: Observation) {
        match seen {
            Observation::ProbeOk => {
                self.probe_failures = 0;
                self.good = self.good.saturating_add(1);
            }
            Observation::TrafficOk => {
                self.traffic_failures = 0;
                if self.state == State::Probation {
                    self.good = self.good.saturating_add(1);
                }
            }
            Observation::ProbeLoading => {
                self.probe_failures = 0;
                self.good = 0;
            }
            Observation::ProbeFailed => {
                self.good = 0;
                self.probe_failures = self.probe_failures.saturating_add(1);
            }
            Observation::TrafficFailed(_) => {
                self.good = 0;
                self.traffic_failures = self.traffic_failures.saturating_add(1);
            }
        }
    }

    fn next(&self, seen: Observation, thresholds: Thresholds) -> State {
        let failed = matches!(seen, Observation::ProbeFailed | Observation::TrafficFailed(_));
        let too_often = self.probe_failures.max(self.traffic_failures) >= thresholds.unhealthy;
        match self.state {
            _ if seen == Observation::ProbeLoading => State::Warming,
            State::Warming if seen == Observation::ProbeOk => State::Healthy,
            State::Warming | State::Healthy if failed && too_often => State::Unhealthy,
            State::Unhealthy if seen == Observation::ProbeOk && self.good >= thresholds.healthy => State::Probation,
            State::Probation if failed => State::Unhealthy,
            State::Probation if self.good >= thresholds.healthy => State::Healthy,
            state => state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Observation::{ProbeFailed, ProbeLoading, ProbeOk, TrafficFailed, TrafficOk};
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { healthy: 2, unhealthy: 3 };
    const CLOSED: Observation = TrafficFailed(Cause::Closed);

    /// The states after each of the observations.
    fn states(seen: &[Observation]) -> Vec<&'static str> {
        let mut health = Health::default();
        seen.iter()
            .map(|seen| {
                let before = health.state();
                let transition = health.observe(*seen, THRESHOLDS);
                assert_eq!(transition.is_some(), health.state() != before, "a change is reported, and only a change");
                health.state().as_str()
            })
            .collect()
    }

    #[test]
    fn the_first_good_probe_makes_a_new_backend_serve() {
        assert_eq!(states(&[ProbeLoading, ProbeLoading, ProbeOk]), ["warming", "warming", "healthy"]);
    }

    #[test]
    fn a_backend_that_never_answered_becomes_unhealthy() {
        assert_eq!(states(&[ProbeFailed; 3]), ["warming", "warming", "unhealthy"]);
    }

    #[test]
    fn failures_count_only_in_a_row() {
        let seen = [ProbeOk, ProbeFailed, ProbeFailed, ProbeOk, ProbeFailed, ProbeFailed, ProbeFailed];
        assert_eq!(states(&seen)[5..], ["healthy", "unhealthy"]);
        let seen = [ProbeOk, CLOSED, CLOSED, TrafficOk, CLOSED, CLOSED, CLOSED];
        assert_eq!(states(&seen)[5..], ["healthy", "unhealthy"]);
    }

    #[test]
    fn good_probes_do_not_hide_failing_requests() {
        assert_eq!(states(&[ProbeOk, CLOSED, ProbeOk, CLOSED, ProbeOk, CLOSED])[4..], ["healthy", "unhealthy"]);
    }

    #[test]
    fn the_way_back_leads_through_probation() {
        let down = [ProbeFailed; 3];
        let good = [&down[..], &[ProbeOk, ProbeOk, TrafficOk, TrafficOk]].concat();
        assert_eq!(states(&good)[3..], ["unhealthy", "probation", "probation", "healthy"]);
        let bad = [&down[..], &[ProbeOk, ProbeOk, CLOSED]].concat();
        assert_eq!(states(&bad)[4..], ["probation", "unhealthy"]);
    }

    #[test]
    fn traffic_alone_does_not_bring_a_backend_back() {
        assert_eq!(states(&[ProbeFailed, ProbeFailed, ProbeFailed, TrafficOk, TrafficOk])[4], "unhealthy");
    }

    #[test]
    fn loading_is_not_failing() {
        let seen = [ProbeOk, ProbeLoading, ProbeLoading, ProbeLoading, ProbeLoading, ProbeOk];
        assert_eq!(states(&seen), ["healthy", "warming", "warming", "warming", "warming", "healthy"]);
        let seen = [ProbeFailed, ProbeFailed, ProbeLoading, ProbeFailed, ProbeFailed];
        assert_eq!(states(&seen), ["warming"; 5], "an answer, if not yet a good one: the failures are not in a row");
    }
}
