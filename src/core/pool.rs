//! A pool: which of its backends takes a request.

use std::sync::Arc;

use super::Millis;
use super::backend::Backend;
use super::displaced::Displaced;
use super::hash::{Claim, NameHash, Seed};
use super::health::Thresholds;
use super::round_robin::RoundRobin;
use super::session::SessionKey;

/// A set of backends and how to select among them.
#[derive(Debug)]
pub struct Pool {
    members: Vec<Member>,
    round: RoundRobin,
    displaced: Displaced,
    settings: Settings,
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

/// What a pool is built from: names are the identity of backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSpec {
    /// The backend's name, unique in the pool.
    pub name: String,
    /// 1 to 1000.
    pub weight: u32,
    /// 0 first.
    pub priority: u32,
    /// Whether it begins out of rotation.
    pub draining: bool,
}

/// How a pool selects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The seed of the placement hash.
    pub seed: Seed,
    /// How requests without a session are spread.
    pub balance: Balance,
    /// Whether to try backends that are not healthy when nobody is.
    pub fail_open: bool,
    /// Whether a session that was displaced stays where its cache is, until it has been idle.
    pub stay_put: bool,
    /// After how long a silent session's cache counts as cold.
    pub idle_ttl: Millis,
    /// The bound of the table of displaced sessions.
    pub max_displaced: usize,
    /// When backends change their state of health.
    pub thresholds: Thresholds,
}

/// How requests without a session are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// By turns, in proportion to the weights.
    RoundRobin,
    /// To whoever has the fewest requests for its weight.
    LeastRequests,
}

/// A backend was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The member's index in [`Pool::members`].
    pub member: usize,
    /// What became of the affinity.
    pub affinity: Affinity,
}

/// What became of a request's affinity; the label and header value of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Affinity {
    /// At home.
    Home,
    /// Away from home, where its cache is.
    Stayed,
    /// Sent elsewhere because home is not available.
    Failover,
    /// Sent elsewhere because home is too busy.
    Spilled,
    /// No session: balanced.
    Balanced,
    /// Nobody is healthy: tried all the same.
    FailOpen,
}

impl Affinity {
    /// All outcomes, in the order in which metrics list them.
    pub const ALL: [Affinity; 6] = [
        Affinity::Home,
        Affinity::Stayed,
        Affinity::Failover,
        Affinity::Spilled,
        Affinity::Balanced,
        Affinity::FailOpen,
    ];

    /// The name in metrics, headers and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Affinity::Home => "home",
            Affinity::Stayed => "stayed",
            Affinity::Failover => "failover",
            Affinity::Spilled => "spilled",
            Affinity::Balanced => "balanced",
            Affinity::FailOpen => "fail_open",
        }
    }
}

/// The members that a request has been to, which it does not go to again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    len: usize,
    members: [usize; MAX_ATTEMPTS],
}

impl Tried {
    /// Notes an attempt at a member. Beyond [`MAX_ATTEMPTS`] nothing more is noted: nobody makes more.
    pub fn push(&mut self, member: usize) {
        if self.len < MAX_ATTEMPTS {
            self.members[self.len] = member;
            self.len += 1;
        }
    }

    /// Whether the request has been to this member.
    #[must_use]
    pub fn contains(&self, member: usize) -> bool {
        self.members[..self.len].contains(&member)
    }
}

/// The most attempts that `retry.max_attempts` allows.
pub const MAX_ATTEMPTS: usize = 16;

impl Pool {
    /// A new pool.
    #[must_use]
    pub fn new(specs: &[MemberSpec], settings: Settings) -> Pool {
        let members: Vec<Member> = specs
            .iter()
            .map(|spec| Member::new(spec, settings.seed, Arc::new(Backend::new(&spec.name, spec.draining))))
            .collect();
        Pool {
            round: RoundRobin::new(members.len()),
            displaced: Displaced::new(settings.max_displaced, settings.idle_ttl),
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
        for spec in specs {
            let old = self.position(&spec.name);
            credit.push(old.map_or(0, |old| old_credit[old]));
            let backend = match old {
                Some(old) => Arc::clone(&self.members[old].backend),
                None => Arc::new(Backend::new(&spec.name, spec.draining)),
            };
            members.push(Member::new(spec, settings.seed, backend));
        }
        let displaced = Displaced::new(settings.max_displaced, settings.idle_ttl);
        if settings.stay_put && settings.seed == self.settings.seed {
            displaced.adopt(&self.displaced, |at| members.iter().any(|member| Arc::ptr_eq(&member.backend, at)));
        }
        let total = members.iter().map(|member| i64::from(member.weight)).sum();
        Pool { members, round: RoundRobin::resume(credit, total), displaced, settings }
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

    /// Selects a backend for a request that has been to `tried`. `None` if nobody can take it.
    ///
    /// The same key, members and availability give the same answer: after a failure as while it is being noticed.
    #[must_use]
    pub fn select(&self, key: Option<SessionKey>, tried: &Tried, now: Millis) -> Option<Selection> {
        let selected = match key {
            Some(key) => self.select_by_key(key, tried, now),
            None => self
                .balance(|index, member| member.backend.available() && !tried.contains(index))
                .map(|member| Selection { member, affinity: Affinity::Balanced }),
        };
        selected.or_else(|| self.fail_open(key, tried))
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
            return Some(Selection { member, affinity });
        }
        if admit(home, &self.members[home]) {
            return Some(Selection { member: home, affinity: Affinity::Home });
        }
        let member = self.first(key, admit)?;
        Some(Selection { member, affinity: Affinity::Failover })
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
        Some(Selection { member, affinity: Affinity::FailOpen })
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
