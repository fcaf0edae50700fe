//! A pool: which of its backends takes a request.

use std::sync::Arc;

use super::Millis;
use super::backend::{Backend, BackendId, InFlight};
use super::displaced::Displaced;
use super::hash::{NameHash, Seed};
use super::round_robin::RoundRobin;
use super::session::SessionKey;
use super::sessions::{Known, Place, Sessions, Turn};
use super::ttft::Rates;

mod asked;
mod balance;
mod explain;
mod faster;
mod order;
mod select;
mod selection;
mod settings;

use balance::WEIGHT_SCALE;
pub use explain::{Explanation, MemberView, SeenThere};
pub use selection::{Affinity, Ask, MAX_ATTEMPTS, Patience, Reason, Selection, Tried, Verdict};
pub use settings::{Balance, Drain, DrainSessions, MaxInFlight, MemberSpec, Overload, Policy, Settings};

/// A set of backends and how to select among them.
#[derive(Debug)]
pub struct Pool {
    members: Vec<Member>,
    round: RoundRobin,
    /// The turns of requests that take no slot, so that they shift no turn of those that do.
    queries: RoundRobin,
    displaced: Displaced,
    sessions: Arc<Sessions>,
    rates: Arc<Rates>,
    settings: Settings,
    /// The tier of all members, if it is the same: then nobody has to look for the lowest.
    only_tier: Option<u32>,
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
            queries: RoundRobin::new(members.len()),
            displaced: Displaced::new(settings.max_displaced, settings.idle_ttl),
            sessions: Arc::new(Sessions::new(settings.max_sessions)),
            rates: Arc::default(),
            only_tier: only_tier(&members),
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
        let stays = settings.stay_put && settings.policy == Policy::ConsistentHash;
        if stays && settings.seed == self.settings.seed {
            displaced.adopt(&self.displaced, |at| members.iter().any(|member| Arc::ptr_eq(&member.backend, at)));
        }
        // The keys of another seed are other keys.
        let sessions = match settings.seed == self.settings.seed {
            true => self.sessions.resized(settings.max_sessions),
            false => Arc::new(Sessions::new(settings.max_sessions)),
        };
        let total = members.iter().map(|member| i64::from(member.weight) * i64::from(WEIGHT_SCALE)).sum();
        let round = RoundRobin::resume(credit, total);
        let (rates, only_tier) = (Arc::clone(&self.rates), only_tier(&members));
        let queries = RoundRobin::new(members.len());
        Pool { members, round, queries, displaced, sessions, rates, settings, only_tier, next_id }
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
        match self.settings.policy {
            Policy::ConsistentHash => self.displaced.len(),
            Policy::LeastTtft => self.sessions.away(),
        }
    }

    /// The sessions that are known.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// For each member, how many sessions were there last and have not been idle for long since. It walks the table.
    #[must_use]
    pub fn sessions_at(&self, now: Millis) -> Vec<usize> {
        let mut counts = vec![0; self.members.len()];
        let mut index = std::collections::HashMap::new();
        index.extend(self.members.iter().enumerate().map(|(index, member)| (member.backend.id(), index)));
        self.sessions.each_active(self.settings.idle_ttl, now, |known| {
            if let Some(index) = index.get(&known.last().backend) {
                counts[*index] += 1;
            }
        });
        counts
    }

    /// What is known of a session that has not been silent for too long to matter.
    fn known(&self, key: SessionKey, now: Millis) -> Option<Known> {
        let keep = self.keep();
        self.sessions.get(key).filter(|known| now.saturating_sub(known.last().seen) < keep)
    }

    /// For how long a silent session is known: a large cache may keep it for longer than it counts as warm.
    fn keep(&self) -> Millis {
        self.settings.idle_ttl.max(KEEP_AT_LEAST)
    }

    /// Drops the sessions that have gone idle.
    pub fn expire(&self, now: Millis) {
        self.displaced.expire(now);
        self.sessions.expire(self.keep(), now);
    }

    /// Whether an available member has room beyond what waits for it.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let has_room = |(index, member): (usize, &Member)| {
            let backend = &member.backend;
            let load = (backend.in_flight() + backend.queued()) as u64;
            backend.available() && self.limit(index).is_none_or(|limit| load < limit)
        };
        self.members.iter().enumerate().any(has_room)
    }

    /// Whether another member than this one is available and does not answer with errors, too. A single bad prompt that
    /// goes from one backend to the next leaves such a trace at all of them.
    #[must_use]
    pub fn has_alternative(&self, member: usize) -> bool {
        let is_well = |backend: &Backend| backend.available() && backend.errors() * 2 < self.settings.thresholds.errors;
        self.members.iter().enumerate().any(|(index, other)| index != member && is_well(&other.backend))
    }

    /// The index of the member with this name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.backend.name() == name)
    }

    /// Counts a request as being at the backend that was selected for it, until the guard drops.
    #[must_use]
    pub fn enter(&self, selection: &Selection, now: Millis) -> InFlight {
        let backend = &self.members[selection.member].backend;
        let there = if selection.is_trial { backend.enter_trial(now) } else { backend.enter() };
        match self.settings.policy {
            Policy::ConsistentHash => there,
            Policy::LeastTtft => there.awaiting(selection.expected, &self.rates, now),
        }
    }

    /// Counts a request that takes no slot as being at a backend, until the guard drops.
    #[must_use]
    pub fn enter_query(&self, selection: &Selection) -> InFlight {
        self.members[selection.member].backend.enter_query()
    }

    /// Notes where a session's cache is, now that a backend has begun to answer it well.
    ///
    /// Returns which turn of its session it is, and where it left a cache that was warm. Only then: a session that was turned away everywhere has built no cache anywhere, and goes home again.
    pub fn landed(&self, key: SessionKey, selection: Selection, now: Millis) -> Turn {
        let backend = &self.members[selection.member].backend;
        let at_home = match selection.affinity {
            Affinity::Home => true,
            Affinity::FailOpen => self.home(key) == Some(selection.member),
            _ => false,
        };
        let is_cached = |place: Place| self.is_cached(place, now);
        let mut turn = self.sessions.landed(key, backend.id(), selection.expected.bytes, !at_home, now, is_cached);
        // A cache that is cold by now is none that it could have moved away from.
        turn.from = turn.from.filter(|from| now.saturating_sub(from.seen) < self.settings.idle_ttl);
        if turn.moves && self.settings.policy == Policy::ConsistentHash && self.settings.stay_put {
            if at_home { self.displaced.forget(key) } else { self.displaced.stay(key, backend, now) }
        }
        turn
    }

    /// Whether what a place has seen of a session can still be cached there, and the session can go there.
    fn is_cached(&self, place: Place, now: Millis) -> bool {
        let member = self.members.iter().find(|member| member.backend.id() == place.backend);
        let is_warm = member.is_some_and(|member| member.backend.available() && member.backend.warm(place.seen));
        is_warm && now.saturating_sub(place.seen) < self.settings.idle_ttl
    }

    /// Notes that a session that landed with this selection was active until now: its cache is warm, unless it has since
    /// landed elsewhere.
    pub fn active(&self, key: SessionKey, selection: Selection, now: Millis) {
        let backend = &self.members[selection.member].backend;
        self.sessions.active(key, backend.id(), now);
        if selection.affinity != Affinity::Home {
            self.displaced.touch(key, backend, now);
        }
    }
}

/// How long what a backend has seen of a session may matter, if its cache is large: what an old prompt is worth, the rates
/// have learned. At a tenth of the load, with half an hour 3.3 points more are computed again than with the hash, with
/// four hours 0.5.
const KEEP_AT_LEAST: Millis = 4 * 60 * 60 * 1000;

fn only_tier(members: &[Member]) -> Option<u32> {
    let tier = members.first()?.priority;
    members.iter().all(|member| member.priority == tier).then_some(tier)
}

impl Member {
    fn new(spec: &MemberSpec, seed: Seed, backend: Arc<Backend>) -> Member {
        Member { backend, weight: spec.weight, priority: spec.priority, name: NameHash::new(&spec.name, seed) }
    }
}
