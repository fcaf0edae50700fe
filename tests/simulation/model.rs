//! What had to come out: the rules of selection, written down a second time, as simply as possible.
//!
//! Orders are sorted lists of scores by the published formula, sessions are lists in order of use, and health is a
//! history of what was seen. Requests without a session do not appear here at all, but for the load that they are: if
//! their turns influenced a keyed one, pool and model would differ.

use std::collections::HashMap;

use ingle::core::pool::{DrainSessions, MaxInFlight, MemberSpec, Policy, Settings};
use ingle::core::{Affinity, Millis, Patience, Reason};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::known::Known;
use crate::rng::Rng;
use crate::truth::Truth;

/// All backends, by name.
pub(crate) type World = HashMap<String, Truth>;

pub(crate) struct Model {
    hash_seed: u64,
    specs: Vec<MemberSpec>,
    settings: Settings,
    orders: HashMap<u64, Vec<String>>,
    /// Sessions away from home, least recently used first: key, place, last seen.
    away: Vec<(u64, String, Millis)>,
    pub(crate) known: Known,
}

/// A request, as the model is asked about it. Where it waits is told by name.
pub(crate) struct Asked<'a> {
    pub(crate) key: u64,
    pub(crate) tried: &'a [String],
    pub(crate) patience: Patience,
    pub(crate) called_by: Option<&'a str>,
    pub(crate) now: Millis,
    pub(crate) world: &'a World,
}

/// Where it has to go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expected {
    Go(String, Affinity, Option<Reason>),
    Wait(String, Reason),
    Full,
    Nobody,
}

impl Model {
    pub(crate) fn new(hash_seed: &str, specs: &[MemberSpec], settings: Settings) -> Model {
        let hash_seed = xxh3_64(hash_seed.as_bytes());
        let known = Known::new(settings.max_sessions);
        Model { hash_seed, specs: specs.to_vec(), settings, orders: HashMap::new(), away: Vec::new(), known }
    }

    /// The config changes; the seed does not.
    pub(crate) fn rebuild(&mut self, specs: &[MemberSpec], settings: Settings) {
        self.specs = specs.to_vec();
        self.settings = settings;
        self.orders.clear();
        let stays = settings.stay_put && settings.policy == Policy::ConsistentHash;
        self.away.retain(|(_, place, _)| stays && specs.iter().any(|spec| spec.name == *place));
        self.known.resize(settings.max_sessions);
        self.bound();
    }

    /// By the formula of docs/placement.md, all of it, sorted.
    pub(crate) fn order(&mut self, key: u64) -> Vec<String> {
        let score = |spec: &MemberSpec| {
            let name = xxh3_64_with_seed(spec.name.as_bytes(), self.hash_seed);
            let h = xxh3_64(&[key.to_le_bytes(), name.to_le_bytes()].concat());
            let u = ((h >> 12) as f64 + 0.5) / 2f64.powi(52);
            f64::from(spec.weight) / -u.ln()
        };
        let sorted = || {
            let mut scores: Vec<_> = self.specs.iter().map(|spec| (spec.priority, -score(spec), &spec.name)).collect();
            scores.sort_by(|a, b| (a.0, a.1).partial_cmp(&(b.0, b.1)).unwrap());
            scores.into_iter().map(|(_, _, name)| name.clone()).collect()
        };
        self.orders.entry(key).or_insert_with(sorted).clone()
    }

    /// By the hash: where a session's request goes, and why.
    pub(crate) fn select(&mut self, asked: &Asked) -> Expected {
        let order = self.order(asked.key);
        let home = order[0].clone();
        if self.tries(asked, &home) {
            return Expected::Go(home, Affinity::Home, None);
        }
        let relieved = |place: &String| order.iter().any(|n| self.tier(n) < self.tier(place) && self.ready(asked, n));
        let stayed = self.place(asked.key, asked.now);
        let left = stayed.as_ref().and_then(|place| self.barred(asked, place));
        let place = stayed.filter(|place| self.barred(asked, place).is_none() && !relieved(place));
        let anchor = place.unwrap_or(home.clone());
        let go = |name: &String, reason: Reason| match () {
            // A new config may have made its place its home.
            () if *name == home => Expected::Go(name.clone(), Affinity::Home, None),
            () if *name == anchor => Expected::Go(name.clone(), Affinity::Stayed, None),
            () => Expected::Go(name.clone(), reason.affinity(), Some(reason)),
        };
        let Some(reason) = self.obstacle(asked, &anchor) else {
            return match go(&anchor, Reason::Faster) {
                Expected::Go(name, Affinity::Home, None) => Expected::Go(name, Affinity::Home, left),
                elsewhere => elsewhere,
            };
        };
        let is_full = matches!(reason, Reason::MaxInFlight | Reason::Balance);
        if is_full && self.waits(asked, &anchor) && self.keeps_cache(asked, &anchor) {
            return Expected::Wait(anchor, reason);
        }
        let ready: Vec<_> = order.iter().filter(|name| self.ready(asked, name)).collect();
        let tier = ready.first().map(|name| self.tier(name));
        let free = ready.iter().find(|name| Some(self.tier(name)) == tier && !self.busy(asked, name));
        let can = || order.iter().find(|name| self.barred(asked, name).is_none() && !self.full(asked, name));
        match free.or(ready.first()).copied().or_else(can) {
            Some(name) => go(name, reason),
            None => self.nobody(asked, &order),
        }
    }

    /// Nobody has room, or nobody is available.
    pub(crate) fn nobody(&self, asked: &Asked, order: &[String]) -> Expected {
        let may = |name: &&String| self.barred(asked, name).is_none();
        let here = order.iter().find(|name| self.is_in_line(asked, name)).filter(may);
        let line = || order.iter().filter(may).find(|name| self.has_line(asked, name));
        let displaces = asked.patience == Patience::Displaces && self.settings.overload.max_waiting > 0;
        let full_line = || order.iter().find(may).filter(|_| displaces);
        let waits = !matches!(asked.patience, Patience::Spills | Patience::NeedsNoRoom);
        match here.or_else(line).or_else(full_line).filter(|_| waits) {
            Some(name) => Expected::Wait(name.clone(), Reason::MaxInFlight),
            None if order.iter().any(|name| may(&name)) => Expected::Full,
            None => self.fail_open(asked, order),
        }
    }

    fn fail_open(&self, asked: &Asked, order: &[String]) -> Expected {
        if asked.world.values().any(Truth::available) {
            return Expected::Nobody;
        }
        let idle = |name: &&String| {
            let truth = &asked.world[*name];
            let may = self.settings.fail_open || truth.on_trial();
            may && truth.drains_since.is_none() && !asked.tried.contains(name)
        };
        match order.iter().filter(idle).find(|name| !self.full(asked, name)) {
            Some(name) => Expected::Go(name.clone(), Affinity::FailOpen, Some(Reason::Unhealthy)),
            None if order.iter().any(|name| idle(&name)) => Expected::Full,
            None => Expected::Nobody,
        }
    }

    /// Whether this request shows whether its home answers well by now.
    pub(crate) fn tries(&self, asked: &Asked, home: &String) -> bool {
        let truth = &asked.world[home];
        let is_elsewhere = self.last(asked.key, asked.now).is_some_and(|(place, _)| place != home);
        let is_for_it = match is_elsewhere {
            true => !truth.serves && truth.trial_due(5000, asked.now),
            false => !truth.serves || self.shunned(asked, home),
        };
        is_for_it && self.could_try(asked, home)
    }

    pub(crate) fn could_try(&self, asked: &Asked, name: &String) -> bool {
        let truth = &asked.world[name];
        let is_free = truth.drains_since.is_none() && !asked.tried.contains(name) && !self.full(asked, name);
        asked.patience != Patience::NeedsNoRoom && truth.trial_due(0, asked.now) && is_free
    }

    /// Whether it does not answer, and has no cache of this session either.
    pub(crate) fn shunned(&self, asked: &Asked, name: &str) -> bool {
        asked.world[name].on_trial() && !self.was_there(asked, name)
    }

    fn was_there(&self, asked: &Asked, name: &str) -> bool {
        self.known.at(asked.key, name).is_some_and(|seen| self.lately(seen, asked.now))
    }

    /// Why a member is not the one.
    pub(crate) fn obstacle(&self, asked: &Asked, name: &String) -> Option<Reason> {
        match self.barred(asked, name) {
            Some(reason) => Some(reason),
            None if self.shunned(asked, name) => Some(Reason::Stalled),
            None if self.held_back(asked, name) => Some(Reason::SlowStart),
            None if self.full(asked, name) => Some(Reason::MaxInFlight),
            None if self.busy(asked, name) => Some(Reason::Balance),
            None => None,
        }
    }

    /// Why it may not take it at all.
    pub(crate) fn barred(&self, asked: &Asked, name: &String) -> Option<Reason> {
        let truth = &asked.world[name];
        match truth.drains_since {
            _ if !truth.serves => Some(Reason::Unhealthy),
            Some(since) if !self.goes_on(asked, name, since) => Some(Reason::Draining),
            _ if asked.tried.contains(name) => Some(Reason::Tried),
            _ => None,
        }
    }

    fn goes_on(&self, asked: &Asked, name: &str, since: Millis) -> bool {
        let drain = self.settings.drain;
        let over = drain.deadline.is_some_and(|deadline| asked.now >= since + deadline);
        let Some((place, seen)) = self.last(asked.key, asked.now) else { return false };
        let warm = asked.world[name].cold_since.is_none_or(|cold| seen > cold);
        drain.sessions == DrainSessions::UntilIdle && !over && place == name && warm && self.lately(seen, asked.now)
    }

    /// Where a session was last, if that is not too long ago.
    pub(crate) fn last(&self, key: u64, now: Millis) -> Option<(&str, Millis)> {
        self.known.last(key).filter(|(_, seen)| now - seen < self.keep())
    }

    /// A session is known for at least four hours.
    fn keep(&self) -> Millis {
        self.settings.idle_ttl.max(14_400_000)
    }

    fn lately(&self, seen: Millis, now: Millis) -> bool {
        now - seen < self.settings.idle_ttl
    }

    /// Somebody warms up, and this session's turn has not come, unless it was there lately.
    pub(crate) fn held_back(&self, asked: &Asked, name: &str) -> bool {
        if asked.patience == Patience::NeedsNoRoom {
            return false;
        }
        let warmed = |truth: &Truth| match truth.warms_since {
            Some(since) if asked.now - since < self.settings.slow_start => {
                (asked.now - since) as f64 / self.settings.slow_start as f64
            }
            _ => 1.0,
        };
        let own = warmed(&asked.world[name]);
        let best = asked.world.values().filter(|truth| truth.available()).map(warmed).fold(own, f64::max);
        let lot = (Rng::finalize(asked.key) >> 11) as f64 / 2f64.powi(53);
        own < best && lot >= own / best && !self.was_there(asked, name)
    }

    pub(crate) fn full(&self, asked: &Asked, name: &str) -> bool {
        let limit = match self.settings.overload.max_in_flight {
            MaxInFlight::Off => None,
            MaxInFlight::Fixed(limit) => Some(limit),
            MaxInFlight::Auto => asked.world[name].slots,
        };
        let needs_room = asked.patience != Patience::NeedsNoRoom;
        needs_room && limit.is_some_and(|limit| self.load(asked, name) >= limit as usize)
    }

    /// At or over its share of all that there is to do in its tier.
    fn busy(&self, asked: &Asked, name: &str) -> bool {
        if asked.patience == Patience::NeedsNoRoom {
            return false;
        }
        let overload = self.settings.overload;
        let Some(factor) = overload.balance_factor.filter(|_| asked.world[name].available()) else { return false };
        let tier = self.specs.iter().filter(|spec| spec.priority == self.tier(name));
        let tier: Vec<_> = tier.filter(|spec| asked.world[&spec.name].available()).collect();
        let own = usize::from(!matches!(asked.patience, Patience::Called(_) | Patience::InLine(_)));
        let total = tier.iter().map(|spec| asked.world[&spec.name].load()).sum::<usize>() + own;
        let weights = tier.iter().map(|spec| u64::from(spec.weight)).sum::<u64>() as f64;
        let weight = f64::from(self.specs.iter().find(|spec| spec.name == name).unwrap().weight);
        let bound = (factor * total as f64 * weight / weights).ceil().max(f64::from(overload.balance_floor));
        self.load(asked, name) as f64 >= bound
    }

    /// What is before this request; those who wait are behind one who was called.
    fn load(&self, asked: &Asked, name: &str) -> usize {
        let truth = &asked.world[name];
        let is_called = matches!(asked.patience, Patience::Called(_));
        if is_called && self.is_in_line(asked, name) { truth.in_flight } else { truth.load() }
    }

    fn is_in_line(&self, asked: &Asked, name: &str) -> bool {
        asked.called_by == Some(name)
    }

    fn has_line(&self, asked: &Asked, name: &str) -> bool {
        asked.world[name].queued < self.settings.overload.max_waiting as usize
    }

    fn waits(&self, asked: &Asked, name: &str) -> bool {
        match asked.patience {
            Patience::Waits => self.has_line(asked, name),
            Patience::Displaces => self.settings.overload.max_waiting > 0,
            Patience::Called(_) | Patience::InLine(_) => self.is_in_line(asked, name),
            Patience::Spills | Patience::NeedsNoRoom => false,
        }
    }

    /// It was there lately, and the cache has not been lost since.
    fn keeps_cache(&self, asked: &Asked, name: &str) -> bool {
        let warm = |seen: Millis| asked.world[name].cold_since.is_none_or(|cold| seen > cold);
        self.known.at(asked.key, name).is_some_and(|seen| self.lately(seen, asked.now) && warm(seen))
    }

    pub(crate) fn ready(&self, asked: &Asked, name: &String) -> bool {
        let is_open = self.barred(asked, name).is_none() && !self.full(asked, name);
        is_open && !self.held_back(asked, name) && !self.shunned(asked, name)
    }

    pub(crate) fn tier(&self, name: &str) -> u32 {
        self.specs.iter().find(|spec| spec.name == name).unwrap().priority
    }

    /// Where it stays, if it is away and not idle for too long. Asking is not being active.
    fn place(&self, key: u64, now: Millis) -> Option<String> {
        let (_, place, seen) = self.away.iter().find(|(away, ..)| *away == key)?;
        self.lately(*seen, now).then(|| place.clone())
    }

    pub(crate) fn landed(&mut self, key: u64, name: &str, now: Millis) {
        let at_home = self.order(key)[0] == name;
        self.known.landed(key, name, !at_home, now);
        if self.settings.policy == Policy::LeastTtft {
            return;
        }
        self.away.retain(|(other, _, _)| *other != key);
        if self.settings.stay_put && !at_home {
            self.away.push((key, name.to_owned(), now));
            self.bound();
        }
    }

    pub(crate) fn expire(&mut self, now: Millis) {
        let ttl = self.settings.idle_ttl;
        self.away.retain(|(_, _, seen)| now - seen < ttl);
        self.known.expire(self.keep(), now);
    }

    pub(crate) fn away(&self) -> usize {
        match self.settings.policy {
            Policy::ConsistentHash => self.away.len(),
            Policy::LeastTtft => self.known.away(),
        }
    }

    /// Where a session stays; asking this way is not using.
    pub(crate) fn is_away(&self, key: u64) -> bool {
        self.away.iter().any(|(other, _, _)| *other == key)
    }

    fn bound(&mut self) {
        let surplus = self.away.len().saturating_sub(self.settings.max_displaced);
        self.away.drain(..surplus);
    }
}
