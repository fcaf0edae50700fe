//! What is really the matter with a backend, and what the gateway has seen of it.

use ingle::core::{Cause, Millis, Observation, State, Thresholds, Transition};

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
    /// Errors since the last good answer, and when the last one came.
    pub(crate) errors: u32,
    pub(crate) erred_at: Millis,
    trial: Option<Trial>,
    failed_probes: u32,
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
    /// Probes are answered well, requests with errors.
    Erring,
    /// Answers start well and break off.
    Breaking,
    /// Probes are answered, requests wait.
    Stalling,
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
        let kind = self.trial.map(|trial| trial.kind).filter(|kind| *kind != Kind::Stalled);
        self.history.check((before, after), seen, transition, kind, thresholds);
        let is_good = matches!(seen, Observation::ProbeOk | Observation::TrafficOk | Observation::TrafficAnswered);
        self.late |= !is_good && seen != Observation::Completed;
        self.note(seen, before != after, after, now);
        let serves = matches!(after, State::Healthy | State::Probation);
        match (self.serves, serves) {
            (false, true) if self.late => self.warms_since = Some(now),
            (true, false) => self.cold_since = Some(now),
            _ => {}
        }
        self.serves = serves;
    }

    fn note(&mut self, seen: Observation, is_changed: bool, state: State, now: Millis) {
        match seen {
            Observation::TrafficOk => self.errors = 0,
            Observation::TrafficError(_) => (self.errors, self.erred_at) = (self.errors + 1, now),
            Observation::ProbeFailed => self.failed_probes += 1,
            Observation::ProbeOk | Observation::ProbeLoading => self.failed_probes = 0,
            _ => {}
        }
        if is_changed {
            (self.errors, self.failed_probes) = (0, 0);
            let interval = self.trial.map_or(1000, |trial| trial.interval);
            let new = |kind| Trial { kind, interval, due: now + interval };
            self.trial = match state {
                State::Unhealthy => Kind::of(seen).map(new),
                State::Probation => self.trial,
                State::Warming | State::Healthy => None,
            };
        } else if seen == Observation::Stalled && matches!(state, State::Healthy | State::Probation) {
            self.trial = self.trial.or(Some(Trial { kind: Kind::Stalled, interval: 1000, due: now + 1000 }));
        } else if let Some(trial) = &mut self.trial {
            match trial.kind {
                Kind::Stalled if seen == Observation::TrafficOk => self.trial = None,
                Kind::Stalled => {}
                kind if kind.is_refuted_by(&seen) => trial.due = now,
                _ if seen == Observation::ProbeFailed => (trial.interval, trial.due) = (1000, now + 1000),
                _ => {}
            }
        }
    }

    /// When it can be tried next, if it has something to prove and something is there.
    fn due(&self) -> Option<Millis> {
        let is_open = self.history.state != State::Probation && self.failed_probes == 0;
        self.trial.filter(|_| is_open).map(|trial| trial.due)
    }

    pub(crate) fn on_trial(&self) -> bool {
        self.due().is_some()
    }

    pub(crate) fn trial_due(&self, before: Millis, now: Millis) -> bool {
        self.due().is_some_and(|due| now >= due + before)
    }

    pub(crate) fn start_trial(&mut self, now: Millis) {
        if let Some(trial) = &mut self.trial {
            trial.interval = (trial.interval * 2).min(60_000);
            trial.due = now + trial.interval;
        }
    }

    /// Recent errors count as requests.
    pub(crate) fn error_load(&self, now: Millis) -> u32 {
        if now - self.erred_at < 10_000 { self.errors } else { 0 }
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

/// What it does wrong, and when it is tried next.
#[derive(Clone, Copy)]
struct Trial {
    kind: Kind,
    interval: Millis,
    due: Millis,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Errors,
    Broken,
    Stalled,
}

impl Kind {
    fn of(seen: Observation) -> Option<Kind> {
        match seen {
            Observation::TrafficError(_) | Observation::TrafficFailed(Cause::BadGateway) => Some(Kind::Errors),
            Observation::Broken => Some(Kind::Broken),
            _ => None,
        }
    }

    fn is_refuted_by(self, seen: &Observation) -> bool {
        *seen == if self == Kind::Broken { Observation::Completed } else { Observation::TrafficOk }
    }
}

/// What was seen of one backend since its last change of state.
struct History {
    seen: Vec<Observation>,
    state: State,
}

impl Default for History {
    fn default() -> Self {
        History { seen: Vec::new(), state: State::Warming }
    }
}

impl History {
    /// Judges what an observation did: no change without a cause, no change withheld.
    fn check(
        &mut self,
        (before, after): (State, State),
        seen: Observation,
        transition: Option<Transition>,
        kind: Option<Kind>,
        thresholds: Thresholds,
    ) {
        self.seen.push(seen);
        let expected = self.expected(before, seen, kind, thresholds);
        assert_eq!(after, expected, "{before:?} after {:?}", self.seen);
        assert_eq!(transition.map(|t| (t.from, t.to)), (before != after).then_some((before, after)));
        self.state = after;
        if before != after {
            self.seen.clear();
        }
    }

    fn expected(&self, before: State, seen: Observation, kind: Option<Kind>, thresholds: Thresholds) -> State {
        use Observation::{
            Broken, Completed, ProbeFailed, ProbeLoading, ProbeOk, TrafficAnswered, TrafficError, TrafficFailed,
            TrafficOk,
        };
        let failed = matches!(seen, ProbeFailed | TrafficFailed(_));
        // In a row means: among those of one kind, the last n without anything else of that kind between them.
        let row =
            |kind: fn(&Observation) -> bool, one: fn(&Observation) -> bool, n: u32| self.count(kind, one) >= n as usize;
        let probe = |seen: &Observation| matches!(seen, ProbeOk | ProbeLoading | ProbeFailed);
        let traffic =
            |seen: &Observation| matches!(seen, TrafficOk | TrafficAnswered | TrafficError(_) | TrafficFailed(_));
        let fails = failed
            && (row(probe, |seen| matches!(seen, ProbeFailed), thresholds.unhealthy)
                || row(traffic, |seen| matches!(seen, TrafficFailed(_)), thresholds.unhealthy));
        let breaks = seen == Broken
            && row(|seen| matches!(seen, Broken | Completed), |seen| *seen == Broken, thresholds.unhealthy);
        let is_error = matches!(seen, TrafficError(error) if error.has_alternative);
        let bad = fails || breaks || is_error && self.errs(thresholds.errors);
        let relapses = kind.is_some() && (is_error || seen == Broken);
        let good_probes = || {
            let counts = |seen: &Observation| matches!(seen, ProbeOk | ProbeLoading | ProbeFailed | TrafficFailed(_));
            row(counts, |seen| matches!(seen, ProbeOk), thresholds.healthy)
        };
        let good = || match kind {
            Some(kind) => {
                let spoils = |seen: &Observation| {
                    matches!(seen, ProbeFailed | ProbeLoading | TrafficFailed(_) | TrafficError(_) | Broken)
                };
                let refutes = |seen: &Observation| kind.is_refuted_by(seen);
                self.count(|seen| spoils(seen) || refutes(seen), refutes) >= thresholds.healthy as usize
            }
            None => {
                let counts =
                    |seen: &Observation| !matches!(seen, Completed | Broken | TrafficError(_) | Observation::Stalled);
                row(counts, |seen| matches!(seen, ProbeOk | TrafficOk | TrafficAnswered), thresholds.healthy)
            }
        };
        match before {
            _ if seen == ProbeLoading => State::Warming,
            State::Warming if seen == ProbeOk => State::Healthy,
            State::Warming | State::Healthy if bad => State::Unhealthy,
            State::Unhealthy if kind.is_some() && good() => State::Probation,
            State::Unhealthy if kind.is_none() && seen == ProbeOk && good_probes() => State::Probation,
            State::Probation if failed || bad || relapses => State::Unhealthy,
            State::Probation if good() => State::Healthy,
            state => state,
        }
    }

    /// How many of the last ones of a kind are such ones.
    fn count(&self, kind: impl Fn(&Observation) -> bool, one: impl Fn(&Observation) -> bool) -> usize {
        self.seen.iter().rev().filter(|seen| kind(seen)).take_while(|seen| one(seen)).count()
    }

    /// So many errors since the last good answer, and not all of one session.
    fn errs(&self, threshold: u32) -> bool {
        let since = self.seen.iter().rev().take_while(|seen| **seen != Observation::TrafficOk);
        let origins: Vec<u64> = since
            .filter_map(|seen| if let Observation::TrafficError(error) = seen { Some(error.origin) } else { None })
            .collect();
        origins.len() >= threshold as usize && origins.iter().any(|origin| *origin != origins[0])
    }
}
