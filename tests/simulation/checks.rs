//! What must hold, whatever happens; and what must have happened.

use ingle::core::pool::{Balance, MemberSpec, Selection};
use ingle::core::{Affinity, Pool, SessionKey, State, Tried};

use crate::world::World;

/// What came up, so that a run can show that it was one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    pub(crate) affinities: [u64; 6],
    pub(crate) turned_away: u64,
    pub(crate) transitions: u64,
    pub(crate) rebuilds: u64,
    pub(crate) retries: u64,
    pub(crate) evictions: u64,
    pub(crate) went_home_idle: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Totals) {
        self.affinities.iter_mut().zip(other.affinities).for_each(|(sum, n)| *sum += n);
        self.turned_away += other.turned_away;
        self.transitions += other.transitions;
        self.rebuilds += other.rebuilds;
        self.retries += other.retries;
        self.evictions += other.evictions;
        self.went_home_idle += other.went_home_idle;
    }

    pub(crate) fn assert_everything_happened(&self) {
        for (affinity, n) in Affinity::ALL.iter().zip(self.affinities) {
            assert_eq!(n > 50, *affinity != Affinity::Spilled, "{affinity:?}: {n}");
        }
        let rest =
            [self.turned_away, self.transitions, self.rebuilds, self.retries, self.evictions, self.went_home_idle];
        assert!(rest.iter().all(|n| *n > 50), "{self:?}");
    }
}

impl World {
    /// A session whose backend is fine never moves, but for going home after a silence.
    pub(crate) fn check_settled(&mut self, key: u64, selection: Selection, names: &[String]) {
        let Some(settled) = self.settled.get(&key) else { return };
        let chosen = self.name(selection.member);
        if chosen == settled.name || !available(&self.pool, &settled.name) || names.contains(&settled.name) {
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

    /// Never one that was tried; never one that is not available, unless nobody is and `fail_open` says so.
    pub(crate) fn check_allowed(&self, selection: Selection, tried: &Tried) {
        assert!(!tried.contains(selection.member));
        let name = self.name(selection.member);
        let open = self.settings.fail_open && self.specs.iter().all(|spec| !available(&self.pool, &spec.name));
        assert_eq!(available(&self.pool, &name), !open, "{name}: {:?}", self.pool.members()[selection.member].backend);
        assert_eq!(selection.affinity == Affinity::FailOpen, open);
        assert!(!self.truth[&name].draining, "{name} is draining");
    }

    /// Without a session: the lowest tier, and by load if so configured.
    pub(crate) fn check_balance(&self, selection: Selection, tried: &Tried) {
        let spec = &self.specs[selection.member];
        let could = |name: &str| {
            available(&self.pool, name) || selection.affinity == Affinity::FailOpen && !self.truth[name].draining
        };
        let load = |spec: &MemberSpec| self.truth[&spec.name].in_flight as u64 + 1;
        for (_, other) in self.specs.iter().enumerate().filter(|(at, other)| !tried.contains(*at) && could(&other.name))
        {
            assert!(spec.priority <= other.priority, "{} although {} is of a lower tier", spec.name, other.name);
            if self.settings.balance == Balance::LeastRequests && other.priority == spec.priority {
                // One millionth of tolerance: the pool divides integers.
                let (ours, theirs) = (load(spec) * u64::from(other.weight), load(other) * u64::from(spec.weight));
                assert!(ours <= theirs + theirs / 1000, "{} although {} has less to do", spec.name, other.name);
            }
        }
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
        assert!(self.pool.displaced() <= self.settings.max_displaced);
        for member in self.pool.members() {
            let (backend, truth) = (&member.backend, &self.truth[member.backend.name()]);
            assert_eq!(
                (backend.in_flight(), backend.draining()),
                (truth.in_flight, truth.draining),
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
