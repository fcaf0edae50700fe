//! A pool: which of its backends takes a request.

use std::sync::Arc;

use super::Millis;
use super::backend::{Backend, BackendId, InFlight};
use super::displaced::Displaced;
use super::hash::{Claim, NameHash, Seed};
use super::round_robin::RoundRobin;
use super::session::SessionKey;
use super::ttft::Rates;

mod selection;
mod settings;

pub use selection::{Affinity, Ask, MAX_ATTEMPTS, Patience, Reason, Selection, Tried, Verdict};
pub use settings::{Balance, Drain, DrainSessions, MaxInFlight, MemberSpec, Overload, Policy, Settings};

/// A set of backends and how to select among them.
#[derive(Debug)]
pub struct Pool {
    members: Vec<Member>,
    round: RoundRobin,
    displaced: Displaced,
    rates: Arc<Rates>,
    settings: Settings,
    /// The number of the next backend that joins.
    next_id: u32,
}

/// A backend's part in a pool.
#[derive(Debug)]
pub struct Member {
    /// The backend, which outlives the pool when a new config has it too.
    pub backend: Arc<Backend>,
    /// Its share of sessions and turns, 1 to 1000.
    pub weight: u32,
    /// Its tier: the next higher one serves only while nobody of the lower ones is available.
    pub priority: u32,
    name: NameHash,
}

impl Pool {
    /// A new pool.
    #[must_use]
    pub fn new(specs: &[MemberSpec], settings: Settings) -> Pool {
        let members: Vec<Member> = (0..)
            .zip(specs)
            .map(|(id, spec)| {
                let backend = Backend::new(BackendId(id), &spec.name, spec.draining);
                Member::new(spec, settings.seed, Arc::new(backend))
            })
            .collect();
        Pool {
            round: RoundRobin::new(members.len()),
            displaced: Displaced::new(settings.max_displaced, settings.idle_ttl),
            rates: Arc::default(),
            next_id: u32::try_from(members.len()).unwrap_or(u32::MAX),
            members,
            settings,
        }
    }

    /// A pool after a change of the config. Backends that are in both keep their health, load and counts, sessions
    /// that stay on one of them go on doing so, and the round robin goes on where it was.
    #[must_use]
    pub fn rebuild(&self, specs: &[MemberSpec], settings: Settings) -> Pool {
        let mut credit = Vec::with_capacity(specs.len());
        let old_credit = self.round.credit();
        let mut members = Vec::with_capacity(specs.len());
        let mut next_id = self.next_id;
        for spec in specs {
            let old = self.position(&spec.name);
            credit.push(old.map_or(0, |old| old_credit[old]));
            let backend = match old {
                Some(old) => Arc::clone(&self.members[old].backend),
                None => {
                    let id = BackendId(next_id);
                    next_id = next_id.wrapping_add(1);
                    Arc::new(Backend::joining(id, &spec.name, spec.draining))
                }
            };
            members.push(Member::new(spec, settings.seed, backend));
        }
        let displaced = Displaced::new(settings.max_displaced, settings.idle_ttl);
        if settings.stay_put && settings.seed == self.settings.seed {
            displaced.adopt(&self.displaced, |at| members.iter().any(|member| Arc::ptr_eq(&member.backend, at)));
        }
        let total = members.iter().map(|member| i64::from(member.weight)).sum();
        let round = RoundRobin::resume(credit, total);
        Pool { members, round, displaced, rates: Arc::clone(&self.rates), settings, next_id }
    }

    /// The members, in the order of the config.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How the pool selects.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many sessions are away from home.
    #[must_use]
    pub fn displaced(&self) -> usize {
        self.displaced.len()
    }

    /// Drops the displaced sessions that have gone idle.
    pub fn expire(&self, now: Millis) {
        self.displaced.expire(now);
    }

    /// The index of the member with this name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.backend.name() == name)
    }

    /// Selects a backend for a request that has been to `tried`.
    ///
    /// The same key, members and availability give the same answer: after a failure as while it is being noticed.
    #[must_use]
    pub fn select(&self, ask: &Ask, tried: &Tried, now: Millis) -> Verdict {
        let selected = match ask.key {
            Some(key) => self.select_by_key(key, tried, now),
            None => self
                .balance(|index, member| member.backend.available() && !tried.contains(index))
                .map(|member| Selection::new(member, Affinity::Balanced, None)),
        };
        selected.or_else(|| self.fail_open(ask.key, tried)).map_or(Verdict::Nobody, Verdict::Go)
    }

    /// Counts a request as being at the backend that was selected for it, until the guard drops.
    #[must_use]
    pub fn enter(&self, selection: &Selection, _ask: &Ask, now: Millis) -> InFlight {
        let there = self.members[selection.member].backend.enter();
        match self.settings.policy {
            Policy::ConsistentHash => there,
            Policy::LeastTtft => there.awaiting(selection.expected, &self.rates, now),
        }
    }

    fn select_by_key(&self, key: SessionKey, tried: &Tried, now: Millis) -> Option<Selection> {
        let admit = |index: usize, member: &Member| member.backend.available() && !tried.contains(index);
        let home = self.home(key)?;
        if self.settings.stay_put
            && let Some(at) = self.displaced.place(key, now)
            && let Some(member) = self.members.iter().position(|member| Arc::ptr_eq(&member.backend, &at))
            && admit(member, &self.members[member])
            && !self.lower_tier(member).any(|(index, lower)| admit(index, lower))
        {
            // A new config may have made its place its home.
            let affinity = if member == home { Affinity::Home } else { Affinity::Stayed };
            return Some(Selection::new(member, affinity, None));
        }
        if admit(home, &self.members[home]) {
            return Some(Selection::new(home, Affinity::Home, None));
        }
        let member = self.first(key, admit)?;
        Some(Selection::new(member, Affinity::Failover, Some(Reason::Unhealthy)))
    }

    /// The members of the tiers below this one's. While one of them serves, this one does not, not even who stayed here.
    fn lower_tier(&self, member: usize) -> impl Iterator<Item = (usize, &Member)> {
        let tier = self.members[member].priority;
        self.members.iter().enumerate().filter(move |(_, other)| other.priority < tier)
    }

    /// Nobody is healthy: whoever is not draining may turn out to work.
    fn fail_open(&self, key: Option<SessionKey>, tried: &Tried) -> Option<Selection> {
        if !self.settings.fail_open || self.members.iter().any(|member| member.backend.available()) {
            return None;
        }
        let open = |index: usize, member: &Member| !member.backend.draining() && !tried.contains(index);
        let member = match key {
            Some(key) => self.first(key, open),
            None => self.balance(open),
        }?;
        Some(Selection::new(member, Affinity::FailOpen, Some(Reason::Unhealthy)))
    }

    /// Whether [`Pool::select`] would find anybody for a request that has been to `tried`. Takes nobody's turn.
    #[must_use]
    pub fn has_another(&self, tried: &Tried) -> bool {
        let mut rest = self.members.iter().enumerate().filter(|(index, _)| !tried.contains(*index)).map(|(_, m)| m);
        if self.members.iter().any(|member| member.backend.available()) {
            return rest.any(|member| member.backend.available());
        }
        self.settings.fail_open && rest.any(|member| !member.backend.draining())
    }

    /// Notes where a session's cache is, now that a backend has begun to answer it well.
    ///
    /// Only then: a session that was turned away everywhere has built no cache anywhere, and goes home again.
    pub fn landed(&self, key: SessionKey, selection: Selection, now: Millis) {
        if !self.settings.stay_put {
            return;
        }
        match selection.affinity {
            Affinity::Home => self.displaced.forget(key),
            Affinity::FailOpen if self.home(key) == Some(selection.member) => self.displaced.forget(key),
            _ => self.displaced.stay(key, &self.members[selection.member].backend, now),
        }
    }

    /// Notes that a session that landed with this selection was active until now: its cache is warm, unless it has since
    /// landed elsewhere.
    pub fn active(&self, key: SessionKey, selection: Selection, now: Millis) {
        self.displaced.touch(key, &self.members[selection.member].backend, now);
    }

    /// The first of a key's preference order over all members, whatever their health.
    #[must_use]
    pub fn home(&self, key: SessionKey) -> Option<usize> {
        self.first(key, |_, _| true)
    }

    /// A key's whole preference order, home first.
    #[must_use]
    pub fn order(&self, key: SessionKey) -> Vec<usize> {
        let mut order: Vec<usize> = Vec::with_capacity(self.members.len());
        while let Some(next) = self.first(key, |index, _| !order.contains(&index)) {
            order.push(next);
        }
        order
    }

    /// The first member of a key's preference order that `admit` lets pass: the lowest tier, then the greatest claim.
    fn first(&self, key: SessionKey, admit: impl Fn(usize, &Member) -> bool) -> Option<usize> {
        let mut best: Option<(usize, &Member, Claim)> = None;
        for (index, member) in self.members.iter().enumerate() {
            if best.is_some_and(|(_, best, _)| member.priority > best.priority) || !admit(index, member) {
                continue;
            }
            let claim = Claim::new(key, member.name, member.weight);
            if best.is_none_or(|(_, best, other)| member.priority < best.priority || claim.beats(other)) {
                best = Some((index, member, claim));
            }
        }
        best.map(|(index, _, _)| index)
    }

    /// Whose turn it is among the lowest tier of the members that `admit` lets pass.
    fn balance(&self, admit: impl Fn(usize, &Member) -> bool) -> Option<usize> {
        let admitted = || self.members.iter().enumerate().filter(|(index, member)| admit(*index, member));
        let tier = admitted().map(|(_, member)| member.priority).min()?;
        let tier = admitted().filter(|(_, member)| member.priority == tier);
        match self.settings.balance {
            Balance::RoundRobin => self.round.next(tier.map(|(index, member)| (index, member.weight))),
            Balance::LeastRequests => self.least_requests(tier),
        }
    }

    /// Whoever has the fewest requests for its weight; among equals, whose turn it is.
    fn least_requests<'a>(&self, tier: impl Iterator<Item = (usize, &'a Member)> + Clone) -> Option<usize> {
        let load = |member: &Member| (member.backend.in_flight() as u64 + 1) * LOAD_SCALE / u64::from(member.weight);
        let least = tier.clone().map(|(_, member)| load(member)).min()?;
        let equals = tier.clone().filter(|(_, member)| load(member) == least);
        // Counts move while this runs: if no one is equal any more, anybody of the tier will do.
        let turn = self.round.next(equals.map(|(index, member)| (index, member.weight)));
        turn.or_else(|| self.round.next(tier.map(|(index, member)| (index, member.weight))))
    }
}

/// Keeps the quotient of load and weight (at most 1000) exact enough in integers.
const LOAD_SCALE: u64 = 1_000_000;

impl Member {
    fn new(spec: &MemberSpec, seed: Seed, backend: Arc<Backend>) -> Member {
        Member { backend, weight: spec.weight, priority: spec.priority, name: NameHash::new(&spec.name, seed) }
    }
}
