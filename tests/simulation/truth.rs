//! What is really the matter with a backend, and what the gateway has seen of it.

use ingle::core::{Millis, Observation, State, Thresholds, Transition};

/// One backend, as it is.
#[derive(Default)]
pub(crate) struct Truth {
    pub(crate) condition: Condition,
    pub(crate) drains_since: Option<Millis>,
    pub(crate) in_flight: usize,
    /// Requests that wait for room.
    pub(crate) queued: usize,
    /// How many requests it works on at once, if it has said so.
    pub(crate) slots: Option<u32>,
    pub(crate) serves: bool,
    /// Since when it warms up, if it ever did.
    pub(crate) warms_since: Option<Millis>,
    /// When it last lost its cache.
    pub(crate) cold_since: Option<Millis>,
    /// It came later than the gateway, or something bad was seen of it.
    late: bool,
    history: History,
}

#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) enum Condition {
    #[default]
    Fine,
    Loading,
    Dead,
    /// Probes are answered, requests are not.
    HalfDead,
    /// Now this, now that.
    Flaky,
}

impl Truth {
    pub(crate) fn new(draining: bool, joins: bool) -> Truth {
        Truth { drains_since: draining.then_some(0), late: joins, ..Truth::default() }
    }

    /// Takes in what was seen, and judges what the gateway made of it.
    pub(crate) fn observe(
        &mut self,
        seen: Observation,
        (before, after): (State, State),
        transition: Option<Transition>,
        thresholds: Thresholds,
        now: Millis,
    ) {
        self.history.check(before, seen, transition, after, thresholds);
        self.late |= !matches!(seen, Observation::ProbeOk | Observation::TrafficOk);
        let serves = matches!(after, State::Healthy | State::Probation);
        match (self.serves, serves) {
            (false, true) if self.late => self.warms_since = Some(now),
            (true, false) => self.cold_since = Some(now),
            _ => {}
        }
        self.serves = serves;
    }

    /// It takes what is new.
    pub(crate) fn available(&self) -> bool {
        self.serves && self.drains_since.is_none()
    }

    /// What newcomers find there.
    pub(crate) fn load(&self) -> usize {
        self.in_flight + self.queued
    }
}

/// What was seen of one backend since its last change of state.
#[derive(Default)]
struct History(Vec<Observation>);

impl History {
    /// Judges what an observation did: no change without a cause, no change withheld.
    fn check(
        &mut self,
        before: State,
        seen: Observation,
        transition: Option<Transition>,
        after: State,
        thresholds: Thresholds,
    ) {
        self.0.push(seen);
        let expected = self.expected(before, seen, thresholds);
        assert_eq!(after, expected, "{before:?} after {:?}", self.0);
        assert_eq!(transition.map(|t| (t.from, t.to)), (before != after).then_some((before, after)));
        if before != after {
            self.0.clear();
        }
    }

    fn expected(&self, before: State, seen: Observation, thresholds: Thresholds) -> State {
        use Observation::{ProbeFailed, ProbeLoading, ProbeOk, TrafficFailed, TrafficOk};
        let failed = matches!(seen, ProbeFailed | TrafficFailed(_));
        // In a row means: among those of one kind, the last n without anything else of that kind between them.
        let row = |kind: fn(&Observation) -> bool, one: fn(&Observation) -> bool, n: u32| {
            self.0.iter().rev().filter(|seen| kind(seen)).take_while(|seen| one(seen)).count() >= n as usize
        };
        let probe = |seen: &Observation| matches!(seen, ProbeOk | ProbeLoading | ProbeFailed);
        let traffic = |seen: &Observation| matches!(seen, TrafficOk | TrafficFailed(_));
        let broken = row(probe, |seen| matches!(seen, ProbeFailed), thresholds.unhealthy)
            || row(traffic, |seen| matches!(seen, TrafficFailed(_)), thresholds.unhealthy);
        let good_probes = || row(|seen| !matches!(seen, TrafficOk), |seen| matches!(seen, ProbeOk), thresholds.healthy);
        let good = || row(|_| true, |seen| matches!(seen, ProbeOk | TrafficOk), thresholds.healthy);
        match before {
            _ if seen == ProbeLoading => State::Warming,
            State::Warming if seen == ProbeOk => State::Healthy,
            State::Warming | State::Healthy if failed && broken => State::Unhealthy,
            State::Unhealthy if seen == ProbeOk && good_probes() => State::Probation,
            State::Probation if failed => State::Unhealthy,
            State::Probation if good() => State::Healthy,
            state => state,
        }
    }
}
