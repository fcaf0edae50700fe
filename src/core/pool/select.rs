//! Where a request goes.

use std::sync::Arc;

use super::super::Millis;
use super::super::backend::Backend;
use super::super::session::SessionKey;
use super::super::ttft::Expected;
use super::asked::Asked;
use super::{Affinity, Ask, Patience, Policy, Pool, Reason, Selection, Tried, Verdict};

impl Pool {
    /// Selects a backend for a request that has been to `tried`.
    ///
    /// The same request, members, availability and load give the same answer: after a failure as while it is being
    /// noticed. Nothing is noted but whose turn it was among the requests without a session.
    #[must_use]
    pub fn select(&self, ask: &Ask, tried: &Tried, now: Millis) -> Verdict {
        let asked = Asked::new(self, *ask, tried, now);
        match (ask.key, self.settings.policy) {
            (None, _) => asked.trial().unwrap_or_else(|| asked.balance()),
            (Some(key), Policy::LeastTtft) if asked.needs_no_room() => asked.follow(key),
            (Some(key), Policy::ConsistentHash) => asked.by_hash(key),
            (Some(key), Policy::LeastTtft) => asked.by_score(key),
        }
    }

    /// Whether [`Pool::select`] would find a backend for a request without a session that has been to `tried`. No turn
    /// is taken.
    #[must_use]
    pub fn has_another(&self, patience: Patience, tried: &Tried) -> bool {
        let asked = Asked::new(self, Ask { key: None, bytes: 0, patience }, tried, 0);
        let mut members = 0..self.members.len();
        match self.members.iter().any(|member| member.backend.available()) {
            true => members.any(|index| asked.can(index)),
            false => members.any(|index| asked.open(index)),
        }
    }
}

impl Asked<'_> {
    /// A member that has to show whether it answers well by now, if there is one for a request without a session.
    fn trial(&self) -> Option<Verdict> {
        let tier = || self.lowest_tier(|index| self.member(index).backend.available());
        let member = (0..self.pool.members.len()).find(|index| {
            self.could_try(*index, 0) && tier().is_none_or(|tier| self.member(*index).priority <= tier)
        })?;
        Some(self.go_on_trial(member, Affinity::Balanced))
    }

    /// The same for a session, whose home it is. One with a cache elsewhere goes only if no other request has come.
    pub(super) fn trial_at(&self, home: usize) -> Option<Verdict> {
        if !self.could_try(home, 0) {
            return None;
        }
        let backend = &self.member(home).backend;
        let serves = backend.state().serves();
        let is_elsewhere = self.known().is_some_and(|known| known.last().backend != backend.id());
        let is_for_it = match is_elsewhere {
            true => !serves && self.could_try(home, TRIAL_OVERDUE),
            false => !serves || self.shunned(home),
        };
        is_for_it.then(|| self.go_on_trial(home, Affinity::Home))
    }

    fn go_on_trial(&self, member: usize, affinity: Affinity) -> Verdict {
        match self.go(member, affinity, None) {
            Verdict::Go(selection) => Verdict::Go(Selection { is_trial: true, ..selection }),
            verdict => verdict,
        }
    }

    /// By the preference order: where the session stays, or at home, or at the next who is available and has room.
    fn by_hash(&self, key: SessionKey) -> Verdict {
        let Some(home) = self.pool.home(key) else { return Verdict::Nobody };
        if let Some(trial) = self.trial_at(home) {
            return trial;
        }
        let (anchor, left) = match self.stay(key) {
            Ok(place) => (place, None),
            Err(left) => (home, left),
        };
        let affinity = |member: usize| match member {
            _ if member == home => Some(Affinity::Home),
            _ if member == anchor => Some(Affinity::Stayed),
            _ => None,
        };
        let there = |member: usize, reason: Reason| match affinity(member) {
            Some(affinity) => self.go(member, affinity, None),
            None => self.go(member, reason.affinity(), Some(reason)),
        };
        match self.obstacle(anchor) {
            None => self.go(anchor, affinity(anchor).unwrap_or(Affinity::Home), left),
            Some(reason @ (Reason::MaxInFlight | Reason::Balance))
                if self.would_wait(anchor) && self.keeps_cache(anchor) =>
            {
                Verdict::Wait { member: anchor, reason }
            }
            Some(reason) => self.next(key).map_or_else(|| self.nobody(key), |member| there(member, reason)),
        }
    }

    /// Where the session was last, for a request that computes nothing and so has nothing to gain elsewhere.
    fn follow(&self, key: SessionKey) -> Verdict {
        let Some(last) = self.last().filter(|last| self.barred(*last).is_none()) else { return self.by_hash(key) };
        let affinity = if self.pool.home(key) == Some(last) { Affinity::Home } else { Affinity::Stayed };
        self.go(last, affinity, None)
    }

    /// Where the session stays away from home, if it may go on there and no lower tier takes it back; else why it leaves
    /// the place where it stayed, if there is a reason but the return home itself.
    fn stay(&self, key: SessionKey) -> Result<usize, Option<Reason>> {
        let at = if self.pool.settings.stay_put { self.pool.displaced.place(key, self.now) } else { None };
        let is_there = |at: Arc<Backend>| self.pool.members.iter().position(|member| Arc::ptr_eq(&member.backend, &at));
        let place = at.and_then(is_there).ok_or(None)?;
        let tier = self.member(place).priority;
        let relieved = || (0..self.pool.members.len()).any(|i| self.member(i).priority < tier && self.ready(i));
        match self.barred(place) {
            None if !relieved() => Ok(place),
            barred => Err(barred),
        }
    }

    /// The first of the preference order who can take the request. Being busy, or warming up, excuses only while
    /// somebody else is there to do it; and being busy only within a tier, for the next one is there for failures.
    fn next(&self, key: SessionKey) -> Option<usize> {
        let Some(first) = self.pool.first(key, |index, _| self.ready(index)) else {
            return self.pool.first(key, |index, _| self.can(index));
        };
        if !self.busy(first) {
            return Some(first);
        }
        let tier = self.member(first).priority;
        let idle = |index: usize| self.member(index).priority == tier && self.ready(index) && !self.busy(index);
        self.pool.first(key, |index, _| idle(index)).or(Some(first))
    }

    /// Nobody has room, or nobody is available: then whoever is not draining may turn out to work.
    pub(super) fn nobody(&self, key: SessionKey) -> Verdict {
        let first = |admit: &dyn Fn(usize) -> bool| self.pool.first(key, |index, _| admit(index));
        match self.waits_at(first) {
            Some(member) => Verdict::Wait { member, reason: Reason::MaxInFlight },
            None if first(&|index| self.barred(index).is_none()).is_some() => Verdict::Full,
            None => self.fail_open(|asked| asked.pool.first(key, |index, _| asked.open(index))),
        }
    }

    /// The verdict when nobody may take the request, with one that `select` finds among those that are `open`.
    pub(super) fn fail_open(&self, select: impl Fn(&Self) -> Option<usize>) -> Verdict {
        if self.pool.members.iter().any(|member| member.backend.available()) {
            return Verdict::Nobody;
        }
        let crowded = |index: usize| self.could_open(index);
        match select(self) {
            Some(member) => self.go(member, Affinity::FailOpen, Some(Reason::Unhealthy)),
            None if (0..self.pool.members.len()).any(crowded) => Verdict::Full,
            None => Verdict::Nobody,
        }
    }

    /// The verdict for a member of which nothing is expected but that it has all of the prompt to read.
    pub(super) fn go(&self, member: usize, affinity: Affinity, reason: Option<Reason>) -> Verdict {
        let (bytes, weight) = (self.ask.bytes, self.member(member).weight);
        let expected = Expected { bytes, seen: 0, age: 0, estimate: bytes, weight };
        Verdict::Go(Selection { member, affinity, reason, expected, is_trial: false })
    }

    /// Whether to try a member all the same when nobody is healthy.
    pub(super) fn open(&self, index: usize) -> bool {
        self.could_open(index) && !self.full(index)
    }

    /// The same, however much room there is. One whose probes are good answers some requests, perhaps.
    fn could_open(&self, index: usize) -> bool {
        let backend = &self.member(index).backend;
        (self.pool.settings.fail_open || backend.on_trial()) && !backend.draining() && !self.tried.contains(index)
    }
}

/// A trial that could have gone this long ago is worth a session's cache elsewhere.
const TRIAL_OVERDUE: Millis = 5000;
