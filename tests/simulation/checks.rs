//! What must hold, whatever happens; and what must have happened.

use ingle::core::pool::{Balance, MaxInFlight, MemberSpec, Selection};
use ingle::core::{Affinity, Millis, Patience, Pool, Reason, SessionKey, State, Tried, Verdict};

use crate::model::{Asked, Expected, Model};
use crate::world::World;

/// What came up, so that a run can show that it was one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    affinities: [u64; 6],
    reasons: [u64; 8],
    pub(crate) turned_away: u64,
    pub(crate) full: u64,
    pub(crate) waited: u64,
    pub(crate) called: u64,
    pub(crate) transitions: u64,
    pub(crate) rebuilds: u64,
    pub(crate) retries: u64,
    pub(crate) evictions: u64,
    pub(crate) went_home_idle: u64,
    /// Sessions that went on at a backend that drains.
    pub(crate) drained: u64,
    pub(crate) trials: u64,
    /// Sessions that were at a backend that does not answer, and went on there.
    pub(crate) loyal: u64,
}

impl Totals {
    pub(crate) fn selected(&mut self, selection: Selection) {
        self.affinities[selection.affinity as usize] += 1;
        self.trials += u64::from(selection.is_trial);
        if let Some(reason) = selection.reason {
            self.reasons[reason as usize] += 1;
        }
    }

    pub(crate) fn add(&mut self, other: &Totals) {
        self.affinities.iter_mut().zip(other.affinities).for_each(|(sum, n)| *sum += n);
        self.reasons.iter_mut().zip(other.reasons).for_each(|(sum, n)| *sum += n);
        self.counts().into_iter().zip(other.clone().counts()).for_each(|(sum, n)| *sum += *n);
    }

    fn counts(&mut self) -> [&mut u64; 12] {
        [
            &mut self.turned_away,
            &mut self.full,
            &mut self.waited,
            &mut self.called,
            &mut self.transitions,
            &mut self.rebuilds,
            &mut self.retries,
            &mut self.evictions,
            &mut self.went_home_idle,
            &mut self.drained,
            &mut self.trials,
            &mut self.loyal,
        ]
    }

    pub(crate) fn assert_everything_happened(&self) {
        for (affinity, n) in Affinity::ALL.iter().zip(self.affinities) {
            assert!(n > 50, "{affinity:?}: {n}");
        }
        for (reason, n) in Reason::ALL.iter().zip(self.reasons) {
            assert!(n > 50, "{reason:?}: {n}");
        }
        assert!(self.clone().counts().iter().all(|n| **n > 50), "{self:?}");
    }
}

impl Model {
    /// With `least_ttft` the model does not say who it is, but who it may be, and what has to be said of it.
    pub(crate) fn check_score(&mut self, asked: &Asked, verdict: Verdict, specs: &[MemberSpec]) {
        let order = self.order(asked.key);
        let can: Vec<_> = order.iter().filter(|n| self.barred(asked, n).is_none() && !self.full(asked, n)).collect();
        let Verdict::Go(selection) = verdict else {
            assert!(can.is_empty(), "{can:?} could take it: {verdict:?}");
            let got = match verdict {
                Verdict::Wait { member, reason } => Expected::Wait(specs[member].name.clone(), reason),
                Verdict::Full => Expected::Full,
                _ => Expected::Nobody,
            };
            return assert_eq!(got, self.nobody(asked, &order));
        };
        let name = &specs[selection.member].name;
        if self.tries(asked, &order[0]) {
            assert_eq!((name, selection.affinity, selection.reason), (&order[0], Affinity::Home, None));
            return;
        }
        let Some(first) = can.iter().find(|name| self.ready(asked, name)).or(can.first()) else {
            let got = Expected::Go(name.clone(), selection.affinity, selection.reason);
            return assert_eq!(got, self.nobody(asked, &order));
        };
        assert_eq!(self.tier(name), self.tier(first), "{name} although {first} is in a lower tier");
        assert!(can.contains(&name) && (self.ready(asked, name) || !self.ready(asked, first)), "{name}");
        let left =
            self.last(asked.key, asked.now).map(|(place, _)| place.to_owned()).filter(|place| order.contains(place));
        let outcome = match left {
            _ if *name == order[0] => (Affinity::Home, None),
            Some(place) if place == *name => (Affinity::Stayed, None),
            left => {
                let reason = self.obstacle(asked, left.as_ref().unwrap_or(&order[0]));
                let reason = reason.filter(|reason| *reason != Reason::Balance).unwrap_or(Reason::Faster);
                (reason.affinity(), Some(reason))
            }
        };
        assert_eq!((selection.affinity, selection.reason), outcome, "{name}");
    }
}

impl World {
    /// A session whose backend is fine never moves, but for going home after a silence.
    pub(crate) fn check_settled(&mut self, key: u64, patience: Patience, selection: Selection, names: &[String]) {
        let Some(settled) = self.settled.get(&key) else { return };
        let chosen = self.name(selection.member);
        let called = self.line_of(patience);
        let (now, called_by) = (self.now, called.as_deref());
        let asked = Asked { key, tried: names, patience, called_by, now, world: &self.truth };
        if chosen == settled.name || self.model.obstacle(&asked, &settled.name).is_some() || selection.is_trial {
            return;
        }
        assert!(!settled.at_home, "{key:x} left home, which is fine");
        let order = self.model.order(key);
        let rank = |name: &String| order.iter().position(|other| other == name);
        assert!(rank(&chosen) < rank(&settled.name), "{key:x} went from {} to {chosen}: not homewards", settled.name);
        if self.settings.stay_put {
            let idle = self.now - settled.seen >= self.settings.idle_ttl;
            let tier = |name: &str| self.specs.iter().find(|spec| spec.name == name).map(|spec| spec.priority);
            let relieved = tier(&chosen) < tier(&settled.name);
            assert!(idle || relieved, "{key:x} was moved from {} to {chosen}, {:?}", settled.name, selection.affinity);
            self.totals.went_home_idle += 1;
        }
    }

    /// Never one that was tried or is full; never one that is not available, unless nobody is and `fail_open` says so,
    /// or a session finishes there.
    pub(crate) fn check_allowed(&mut self, selection: Selection, tried: &Tried) {
        assert!(!tried.contains(selection.member));
        let name = self.name(selection.member);
        let truth = &self.truth[&name];
        let may_open = self.settings.fail_open || truth.on_trial();
        let open = may_open && self.specs.iter().all(|spec| !available(&self.pool, &spec.name));
        self.totals.loyal += u64::from(!selection.is_trial && truth.on_trial() && truth.serves);
        if selection.is_trial {
            assert!(truth.trial_due(0, self.now) && truth.drains_since.is_none(), "{name} is not to be tried");
        } else if selection.affinity == Affinity::FailOpen {
            assert!(open && truth.drains_since.is_none(), "{name}");
        } else {
            assert!(truth.serves, "{name} does not serve");
            assert!(truth.drains_since.is_none() || selection.affinity != Affinity::Balanced, "{name} drains");
            self.totals.drained += u64::from(truth.drains_since.is_some());
        }
        let limit = match self.settings.overload.max_in_flight {
            MaxInFlight::Off => None,
            MaxInFlight::Fixed(limit) => Some(limit),
            MaxInFlight::Auto => truth.slots,
        };
        assert!(limit.is_none_or(|limit| truth.in_flight < limit as usize), "{name} is full");
    }

    /// Without a session: the lowest tier of those who have room, and by load if so configured.
    pub(crate) fn check_balance(&self, selection: Selection, names: &[String]) {
        let spec = &self.specs[selection.member];
        let open = selection.affinity == Affinity::FailOpen;
        let load = |spec: &MemberSpec| {
            let truth = &self.truth[&spec.name];
            truth.load() as u64 + u64::from(truth.error_load(self.now)) + 1
        };
        if selection.is_trial {
            return;
        }
        let on_trial = |spec: &MemberSpec| !open && self.truth[&spec.name].on_trial();
        let others = self.specs.iter().filter(|other| self.could(other, names, open));
        // Who does not answer comes last.
        assert!(!on_trial(spec) || others.clone().all(on_trial), "{} does not answer", spec.name);
        for other in others.filter(|other| on_trial(spec) == on_trial(other)) {
            assert!(spec.priority <= other.priority, "{} although {} is of a lower tier", spec.name, other.name);
            let warm = [spec, other].iter().all(|spec| self.is_warm(spec));
            if self.settings.balance == Balance::LeastRequests && other.priority == spec.priority && warm {
                // One thousandth of tolerance: the pool divides integers.
                let (ours, theirs) = (load(spec) * u64::from(other.weight), load(other) * u64::from(spec.weight));
                assert!(ours <= theirs + theirs / 1000, "{} although {} has less to do", spec.name, other.name);
            }
        }
    }

    /// Nobody could have taken it, and what is said is why.
    pub(crate) fn check_refused(&self, verdict: Verdict, patience: Patience, names: &[String]) {
        let anybody = |open: bool| self.specs.iter().any(|other| self.could(other, names, open));
        let open = self.specs.iter().all(|spec| !available(&self.pool, &spec.name));
        assert!(!(anybody(false) || open && anybody(true)), "somebody could have taken it");
        let lines = self.specs.iter().filter(|spec| available(&self.pool, &spec.name) && !names.contains(&spec.name));
        let most = self.settings.overload.max_waiting as usize;
        let has_line = patience == Patience::Waits && lines.clone().any(|spec| self.truth[&spec.name].queued < most);
        if let Verdict::Wait { member, .. } = verdict {
            let spec = &self.specs[member];
            assert!(
                has_line && self.truth[&spec.name].queued < most && lines.clone().any(|line| line.name == spec.name)
            );
            return;
        }
        assert!(!has_line, "it could wait");
        let there = |name: &str| available(&self.pool, name) || open && self.may_open(name);
        let crowded = self.specs.iter().any(|spec| there(&spec.name) && !names.contains(&spec.name));
        assert_eq!(verdict, if crowded { Verdict::Full } else { Verdict::Nobody });
    }

    /// Whether a backend can take a request without a session that has been to `names`.
    fn could(&self, spec: &MemberSpec, names: &[String], open: bool) -> bool {
        let truth = &self.truth[&spec.name];
        let (now, patience) = (self.now, Patience::Spills);
        let asked = Asked { key: 0, tried: names, patience, called_by: None, now, world: &self.truth };
        (truth.available() || open && self.may_open(&spec.name))
            && !names.contains(&spec.name)
            && !self.model.full(&asked, &spec.name)
    }

    /// Whether it is tried all the same when nobody is available.
    fn may_open(&self, name: &str) -> bool {
        let truth = &self.truth[name];
        truth.drains_since.is_none() && (self.settings.fail_open || truth.on_trial())
    }

    fn is_warm(&self, spec: &MemberSpec) -> bool {
        let passed = |since: Millis| self.now - since >= self.settings.slow_start;
        self.truth[&spec.name].warms_since.is_none_or(passed)
    }

    /// Another gateway with the same file, which has seen nothing of all this, agrees on every home and order.
    pub(crate) fn check_replica(&mut self) {
        let mut reversed = self.specs.clone();
        reversed.reverse();
        let replica = Pool::new(&reversed, self.settings);
        for key in self.sessions.iter().take(5) {
            let order = replica.order(SessionKey::from_bits(*key)).into_iter();
            let names: Vec<_> = order.map(|member| reversed[member].name.clone()).collect();
            assert_eq!(names, self.model.order(*key));
        }
    }

    /// What holds at every step.
    pub(crate) fn check(&self) {
        assert_eq!(self.pool.displaced(), self.model.away());
        let known = self.pool.sessions().len();
        assert!(known <= self.settings.max_sessions);
        assert_eq!(known, self.model.known.len());
        for member in self.pool.members() {
            let (backend, truth) = (&member.backend, &self.truth[member.backend.name()]);
            assert_eq!(
                (backend.in_flight(), backend.queued(), backend.drains_since()),
                (truth.in_flight, truth.queued, truth.drains_since),
                "{}",
                backend.name()
            );
        }
    }
}

/// Healthy or on probation, and not draining: said again, not asked of the code under test.
pub(crate) fn available(pool: &Pool, name: &str) -> bool {
    let backend = &pool.members()[pool.position(name).unwrap()].backend;
    matches!(backend.state(), State::Healthy | State::Probation) && !backend.draining()
}
