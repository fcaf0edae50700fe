//! What had to come out: the rules of selection, written down a second time, as simply as possible.
//!
//! Orders are sorted lists of scores by the published formula, sessions away from home are a list in order of use, and
//! health is a history of what was seen. Requests without a session do not appear here at all: if they influenced a
//! keyed one, pool and model would differ.

use std::collections::HashMap;

use ingle::core::pool::{MemberSpec, Settings};
use ingle::core::{Affinity, Millis, Observation, State, Thresholds, Transition};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Whether a backend of this name takes requests now.
pub(crate) type Available<'a> = &'a dyn Fn(&str) -> bool;

pub(crate) struct Model {
    hash_seed: u64,
    specs: Vec<MemberSpec>,
    settings: Settings,
    orders: HashMap<u64, Vec<String>>,
    /// Sessions away from home, least recently used first: key, place, last seen.
    away: Vec<(u64, String, Millis)>,
}

impl Model {
    pub(crate) fn new(hash_seed: &str, specs: &[MemberSpec], settings: Settings) -> Model {
        let hash_seed = xxh3_64(hash_seed.as_bytes());
        Model { hash_seed, specs: specs.to_vec(), settings, orders: HashMap::new(), away: Vec::new() }
    }

    /// The config changes; the seed does not.
    pub(crate) fn rebuild(&mut self, specs: &[MemberSpec], settings: Settings) {
        self.specs = specs.to_vec();
        self.settings = settings;
        self.orders.clear();
        self.away.retain(|(_, place, _)| settings.stay_put && specs.iter().any(|spec| spec.name == *place));
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

    /// Where a session's request goes that has been to `tried`, and why.
    pub(crate) fn select(
        &mut self,
        key: u64,
        tried: &[String],
        now: Millis,
        available: Available,
    ) -> Option<(String, Affinity)> {
        let place = self.place(key, now);
        let order = self.order(key);
        let free = |name: &String| available(name) && !tried.contains(name);
        let tier = |name: &String| self.specs.iter().find(|spec| spec.name == *name).map(|spec| spec.priority);
        let lower = |place: &String| order.iter().any(|name| tier(name) < tier(place) && free(name));
        if let Some(place) = place.filter(|place| free(place) && !lower(place)) {
            // A new config may have made it the home.
            let affinity = if place == order[0] { Affinity::Home } else { Affinity::Stayed };
            return Some((place, affinity));
        }
        if let Some(name) = order.iter().find(|name| free(name)) {
            let affinity = if *name == order[0] { Affinity::Home } else { Affinity::Failover };
            return Some((name.clone(), affinity));
        }
        None
    }

    /// Where it stays, if it is away and not idle for too long. Asking is not being active.
    fn place(&self, key: u64, now: Millis) -> Option<String> {
        let (_, place, seen) = self.away.iter().find(|(away, ..)| *away == key)?;
        (now - seen < self.settings.idle_ttl).then(|| place.clone())
    }

    pub(crate) fn landed(&mut self, key: u64, name: &str, now: Millis) {
        self.away.retain(|(other, _, _)| *other != key);
        if self.settings.stay_put && self.order(key)[0] != name {
            self.away.push((key, name.to_owned(), now));
            self.bound();
        }
    }

    pub(crate) fn expire(&mut self, now: Millis) {
        self.away.retain(|(_, _, seen)| now - seen < self.settings.idle_ttl);
    }

    pub(crate) fn away(&self) -> usize {
        self.away.len()
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

/// What was seen of one backend since its last change of state.
#[derive(Default)]
pub(crate) struct History(Vec<Observation>);

impl History {
    /// Judges what an observation did: no change without a cause, no change withheld.
    pub(crate) fn check(
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
