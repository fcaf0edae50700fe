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
//!
//! A backend whose answers are errors, or break off, is unhealthy although its probes are good. Good probes do not bring
//! it back then: good answers to trials do (`health/trials.rs`).

mod seen;
mod trials;

pub use seen::{Cause, ErrorAnswer, Observation};
pub use trials::{FIRST_TRIAL, MAX_TRIAL_INTERVAL, Streak, Suspicion, Trials};

use super::Millis;

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

/// How many observations in a row change a state; each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Good probes in a row, or good trials, after which an unhealthy backend serves again.
    pub healthy: u32,
    /// Failures in a row after which a healthy backend is unhealthy.
    pub unhealthy: u32,
    /// The same for errors of the server as answers.
    pub errors: u32,
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
/// Probes, requests, answers and started responses have a count of failures each, so that a server whose `/health` answers
/// while its requests fail is noticed, and so is one whose probes fail while old streams still trickle.
#[derive(Clone, Debug)]
pub struct Health {
    state: State,
    good: u32,
    probe_failures: u32,
    traffic_failures: u32,
    broken: u32,
    errors: Streak,
    trials: Option<Trials>,
    is_lost: bool,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            state: State::Warming,
            good: 0,
            probe_failures: 0,
            traffic_failures: 0,
            broken: 0,
            errors: Streak::default(),
            trials: None,
            is_lost: false,
        }
    }
}

impl Health {
    /// The current state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether the backend is healthy and nothing is counted against it.
    #[must_use]
    pub fn spotless(&self) -> bool {
        let failures = [self.probe_failures, self.traffic_failures, self.broken, self.errors.count];
        self.state == State::Healthy && failures == [0; 4] && self.trials.is_none()
    }

    /// Its trials, if its answers have to prove something. While its probes fail it gets none.
    #[must_use]
    pub fn trials(&self) -> Option<Trials> {
        self.trials.filter(|_| self.state != State::Probation && self.probe_failures == 0)
    }

    /// Errors of the server since the last good answer.
    #[must_use]
    pub fn errors(&self) -> u32 {
        self.errors.count
    }

    /// Whether what waits there can't be expected to be answered.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// A trial goes there now. Sent again over a fresh connection it is still the same one.
    pub fn start_trial(&mut self, now: Millis) {
        if let Some(trials) = self.trials.as_mut().filter(|trials| now >= trials.due()) {
            trials.start(now);
        }
    }

    /// Takes in one observation. Returns the change of state that it caused, if any.
    pub fn observe(&mut self, seen: Observation, thresholds: Thresholds, now: Millis) -> Option<Transition> {
        self.count(seen);
        self.judge(seen, thresholds, now);
        let from = self.state;
        let to = self.next(seen, thresholds);
        if to == from {
            return None;
        }
        let trials = match to {
            State::Unhealthy => Suspicion::of(seen).map(|suspicion| Trials::new(suspicion, self.trials, now)),
            State::Probation => self.trials,
            State::Warming | State::Healthy => None,
        };
        let is_lost = to == State::Unhealthy && seen.cause().is_loss();
        *self = Health { state: to, trials, is_lost, ..Health::default() };
        Some(Transition { from, to, cause: seen.cause() })
    }

    fn count(&mut self, seen: Observation) {
        let on_probation = self.state == State::Probation && self.suspicion().is_none();
        match seen {
            Observation::ProbeOk => {
                self.probe_failures = 0;
                self.good = self.good.saturating_add(u32::from(self.suspicion().is_none()));
            }
            Observation::TrafficOk | Observation::TrafficAnswered => {
                self.traffic_failures = 0;
                if seen == Observation::TrafficOk {
                    self.errors = Streak::default();
                }
                self.good = self.good.saturating_add(u32::from(on_probation));
            }
            Observation::TrafficError(ErrorAnswer { origin, .. }) => {
                self.traffic_failures = 0;
                self.errors.push(origin);
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
            Observation::Completed => self.broken = 0,
            Observation::Broken => self.broken = self.broken.saturating_add(1),
            Observation::Stalled => {}
        }
    }

    /// What is seen of a backend that is suspected, or that starts to be.
    fn judge(&mut self, seen: Observation, thresholds: Thresholds, now: Millis) {
        if seen == Observation::Stalled && self.state.serves() && self.trials.is_none() {
            self.trials = Some(Trials::new(Suspicion::Stalled, None, now));
        }
        self.is_lost |= self.state == State::Unhealthy && self.probe_failures >= thresholds.unhealthy;
        let Some(trials) = &mut self.trials else { return };
        match trials.suspicion {
            Suspicion::Stalled if seen == Observation::TrafficOk => self.trials = None,
            Suspicion::Stalled => {}
            suspicion if suspicion.is_refuted_by(seen) => {
                self.good = self.good.saturating_add(1);
                trials.succeed(now);
            }
            _ if matches!(seen, Observation::TrafficError(_) | Observation::Broken) => self.good = 0,
            _ if seen == Observation::ProbeFailed => trials.restart(now),
            _ => {}
        }
    }

    /// Why it has to prove something before it serves again.
    fn suspicion(&self) -> Option<Suspicion> {
        self.trials.map(|trials| trials.suspicion).filter(|suspicion| *suspicion != Suspicion::Stalled)
    }

    fn next(&self, seen: Observation, thresholds: Thresholds) -> State {
        let failed = matches!(seen, Observation::ProbeFailed | Observation::TrafficFailed(_));
        let too_often = self.probe_failures.max(self.traffic_failures) >= thresholds.unhealthy;
        let is_error = matches!(seen, Observation::TrafficError(error) if error.has_alternative);
        let fails = failed && too_often
            || is_error && self.errors.is_failure(thresholds.errors)
            || seen == Observation::Broken && self.broken >= thresholds.unhealthy;
        let relapses = self.suspicion().is_some() && (is_error || seen == Observation::Broken);
        let is_good = self.good >= thresholds.healthy;
        match self.state {
            _ if seen == Observation::ProbeLoading => State::Warming,
            State::Warming if seen == Observation::ProbeOk => State::Healthy,
            State::Warming | State::Healthy if fails => State::Unhealthy,
            State::Unhealthy if is_good && (seen == Observation::ProbeOk || self.suspicion().is_some()) => {
                State::Probation
            }
            State::Probation if failed || fails || relapses => State::Unhealthy,
            State::Probation if is_good => State::Healthy,
            state => state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Observation::{
        Broken, Completed, ProbeFailed, ProbeLoading, ProbeOk, TrafficAnswered, TrafficError, TrafficFailed, TrafficOk,
    };
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { healthy: 2, unhealthy: 3, errors: 4 };
    const CLOSED: Observation = TrafficFailed(Cause::Closed);

    /// The states after each of the observations.
    fn states(seen: &[Observation]) -> Vec<&'static str> {
        let mut health = Health::default();
        seen.iter()
            .map(|seen| {
                let before = health.state();
                let transition = health.observe(*seen, THRESHOLDS, 0);
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

    fn error(origin: u64) -> Observation {
        TrafficError(ErrorAnswer { origin, has_alternative: true })
    }

    /// Whether errors of these sessions make a healthy backend unhealthy.
    fn fails(errors: &[Observation]) -> bool {
        states(&[&[ProbeOk], errors].concat()).contains(&"unhealthy")
    }

    #[test]
    fn errors_in_a_row_of_two_sessions_are_a_failure() {
        let mixed = [error(1), error(2), error(1), error(1)];
        assert!(fails(&mixed));
        assert!(!fails(&mixed[..3]));
        assert!(!fails(&[error(1); 50]), "one bad prompt");
        assert!(!fails(&[error(1), error(2), error(1), TrafficOk, error(1), error(2), error(1)]));
        assert!(
            fails(&[error(1), TrafficAnswered, ProbeOk, error(2), error(1), Completed, error(1)]),
            "none is better"
        );
    }

    #[test]
    fn errors_count_only_beside_an_alternative() {
        let alone = |origin| TrafficError(ErrorAnswer { origin, has_alternative: false });
        let all = [alone(1), alone(2), alone(1), alone(2), alone(1)];
        assert!(!fails(&all));
        assert!(fails(&[&all[..], &[error(2)]].concat()), "as soon as there is one");
    }

    #[test]
    fn only_good_answers_bring_a_failing_backend_back() {
        let down = [ProbeOk, error(1), error(2), error(1), error(2)];
        let by_probes = [&down[..], &[ProbeOk; 9]].concat();
        assert_eq!(states(&by_probes)[13], "unhealthy");
        let by_answers =
            [&down[..], &[TrafficOk, TrafficAnswered, TrafficOk, ProbeOk, TrafficOk, ProbeOk, TrafficOk]].concat();
        assert_eq!(
            states(&by_answers)[5..],
            ["unhealthy", "unhealthy", "probation", "probation", "probation", "probation", "healthy"]
        );
        let relapsed = [&down[..], &[TrafficOk, error(1), TrafficOk, TrafficOk, error(3)]].concat();
        assert_eq!(states(&relapsed)[5..], ["unhealthy", "unhealthy", "unhealthy", "probation", "unhealthy"]);
        let reloaded = [&down[..], &[ProbeLoading, ProbeOk]].concat();
        assert_eq!(states(&reloaded)[6], "healthy", "another process");
    }

    #[test]
    fn broken_responses_in_a_row_are_a_failure() {
        let broken = [ProbeOk, TrafficOk, Broken, TrafficOk, Broken, TrafficOk, Broken];
        assert_eq!(states(&broken)[5..], ["healthy", "unhealthy"]);
        let whole = [&broken[..5], &[Completed], &broken[5..]].concat();
        assert_eq!(states(&whole)[7], "healthy");
        let back =
            [&broken[..], &[ProbeOk, ProbeOk, ProbeOk, TrafficOk, TrafficOk, Completed, Completed, Broken]].concat();
        assert_eq!(states(&back)[11..], ["unhealthy", "unhealthy", "probation", "unhealthy"]);
    }

    #[test]
    fn trials_come_at_growing_intervals() {
        let mut health = Health::default();
        for seen in [ProbeOk, error(1), error(2), error(1), error(2)] {
            health.observe(seen, THRESHOLDS, 1000);
        }
        let mut due = Vec::new();
        for _ in 0..9 {
            let now = health.trials().unwrap().due();
            due.push(now);
            health.start_trial(now);
            health.observe(error(3), THRESHOLDS, now);
        }
        let intervals: Vec<Millis> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!((due[0], &intervals[..]), (2000, &[2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000][..]));
        health.observe(ProbeFailed, THRESHOLDS, 500_000);
        assert_eq!(health.trials(), None, "nothing is there to be tried");
        health.observe(ProbeOk, THRESHOLDS, 500_100);
        assert_eq!(health.trials().unwrap().due(), 501_000);
        health.observe(TrafficOk, THRESHOLDS, 501_000);
        assert_eq!(health.trials().unwrap().due(), 501_000, "a good one is followed by the next");
    }

    #[test]
    fn stalled_backend_serves_and_proves_itself() {
        let mut health = Health::default();
        for seen in [ProbeOk, Observation::Stalled, Observation::Stalled] {
            health.observe(seen, THRESHOLDS, 5000);
        }
        assert_eq!((health.state(), health.trials().unwrap().due()), (State::Healthy, 6000));
        health.observe(ProbeOk, THRESHOLDS, 6000);
        assert!(!health.spotless());
        health.observe(TrafficOk, THRESHOLDS, 6000);
        assert!(health.spotless());
    }

    #[test]
    fn slow_backend_is_not_lost() {
        let is_lost = |seen: Observation| {
            let mut health = Health::default();
            health.observe(ProbeOk, THRESHOLDS, 0);
            (0..3).for_each(|_| _ = health.observe(seen, THRESHOLDS, 0));
            assert_eq!(health.state(), State::Unhealthy, "{seen:?}");
            let before = health.is_lost();
            (0..3).for_each(|_| _ = health.observe(ProbeFailed, THRESHOLDS, 0));
            assert!(health.is_lost(), "{seen:?}: its probes fail");
            before
        };
        for cause in [Cause::FirstByte, Cause::FirstToken, Cause::BadGateway] {
            assert!(!is_lost(TrafficFailed(cause)), "{cause:?}");
        }
        assert!(!is_lost(Broken));
        for seen in [ProbeFailed, TrafficFailed(Cause::Connect), CLOSED] {
            assert!(is_lost(seen), "{seen:?}");
        }
    }
}
