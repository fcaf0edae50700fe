//! What happens: requests, probes, faults, operators.

use std::collections::HashMap;
use std::sync::Arc;

use ingle::core::health::ErrorAnswer;
use ingle::core::pool::{
    Balance, Drain, DrainSessions, MaxInFlight, MemberSpec, Overload, Policy, Selection, Settings,
};
use ingle::core::{
    Ask, Backend, Cause, InFlight, Millis, Observation, Patience, Pool, Queued, Seed, SessionKey, Signals, Thresholds,
    Tried, Verdict,
};

use crate::checks::Totals;
use crate::model::{Asked, Expected, Model};
use crate::rng::Rng;
use crate::truth::{Condition, Truth};

pub(crate) struct World {
    rng: Rng,
    pub(crate) now: Millis,
    pub(crate) pool: Pool,
    pub(crate) specs: Vec<MemberSpec>,
    pub(crate) settings: Settings,
    hash_seed: &'static str,
    pub(crate) model: Model,
    pub(crate) truth: HashMap<String, Truth>,
    pub(crate) sessions: Vec<u64>,
    /// Where each session was last answered, while nothing but a failure may move it.
    pub(crate) settled: HashMap<u64, Settled>,
    there: Vec<(String, InFlight)>,
    /// Who waits for room, and where, in the order of their coming.
    waiting: Vec<(u64, String, Queued)>,
    removed: Vec<Arc<Backend>>,
    names: usize,
    pub(crate) totals: Totals,
}

pub(crate) struct Settled {
    pub(crate) name: String,
    pub(crate) seen: Millis,
    pub(crate) at_home: bool,
}

/// Where a request has been, as indices and as names.
#[derive(Default)]
struct Been {
    tried: Tried,
    names: Vec<String>,
}

/// What became of an attempt.
#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    Good,
    Over,
    Again,
}

const MAX_ATTEMPTS: usize = 3;

impl World {
    pub(crate) fn new(mut rng: Rng) -> World {
        let hash_seed = rng.pick(&["", "a secret"]);
        let settings = any_settings(&mut rng, hash_seed);
        // Mostly small fleets, as most are, and now and then a large one.
        let most = rng.pick(&[3, 4, 6, 8, 8, 12, 16, 64]);
        let size = 2 + rng.below(most - 1);
        let specs: Vec<_> = (0..size).map(|n| any_spec(&mut rng, n)).collect();
        let truth = |spec: &MemberSpec| (spec.name.clone(), Truth::new(spec.draining, false));
        World {
            now: 1000,
            pool: Pool::new(&specs, settings),
            model: Model::new(hash_seed, &specs, settings),
            truth: specs.iter().map(truth).collect(),
            sessions: (0..2 + rng.below(60)).map(|_| rng.next()).collect(),
            settled: HashMap::new(),
            there: Vec::new(),
            waiting: Vec::new(),
            removed: Vec::new(),
            names: size,
            totals: Totals::default(),
            specs,
            settings,
            hash_seed,
            rng,
        }
    }

    pub(crate) fn step(&mut self) {
        self.now += self.rng.next() % 20;
        match self.rng.below(1000) {
            0..450 => {
                let key = self.rng.pick(&self.sessions);
                let patience = if self.rng.chance(70) { Patience::Waits } else { Patience::Spills };
                self.turn(key, patience, Been::default());
            }
            450..470 => self.query(),
            470..650 => self.keyless(),
            650..830 => self.probe(),
            830..860 => self.call(),
            860..880 => self.fault(),
            880..885 => self.drain(),
            885..890 => self.rebuild(),
            890..893 => self.now += self.rng.next() % (2 * self.settings.idle_ttl),
            893..897 => self.expire(),
            897..900 => self.signal(),
            _ => self.leave(),
        }
        self.check();
    }

    /// Whether a fuzzer's choices are all made.
    pub(crate) fn is_over(&self) -> bool {
        self.rng.is_spent()
    }

    /// The end: everybody leaves.
    pub(crate) fn finish(mut self) -> Totals {
        self.there.clear();
        self.waiting.clear();
        for gone in self.removed.iter().chain(self.pool.members().iter().map(|member| &member.backend)) {
            let left = (gone.in_flight(), gone.queued(), gone.waiting().count(), gone.waiting().bytes());
            assert_eq!(left, (0, 0, 0, 0), "{}", gone.name());
        }
        self.totals
    }

    /// A session's request, until it is answered, given up, or waits for room.
    fn turn(&mut self, key: u64, mut patience: Patience, mut been: Been) {
        for attempt in 0..MAX_ATTEMPTS {
            let selection = match self.select(key, patience, &been) {
                Verdict::Go(selection) => selection,
                Verdict::Wait { member, .. } => return self.wait(key, member),
                Verdict::Full => return self.totals.full += 1,
                Verdict::Nobody => return self.totals.turned_away += 1,
            };
            // It waits once.
            patience = Patience::Spills;
            self.totals.retries += u64::from(attempt > 0);
            let name = self.name(selection.member);
            match self.attempt(selection, key % 3) {
                Outcome::Good => return self.land(key, selection, &name),
                Outcome::Over => return,
                Outcome::Again => {}
            }
            been.tried.push(selection.member);
            been.names.push(name);
        }
    }

    /// A session's request that takes no slot: placed by availability alone, and nothing is noted.
    fn query(&mut self) {
        let key = self.rng.pick(&self.sessions);
        if self.settings.policy == Policy::LeastTtft {
            return;
        }
        self.select(key, Patience::Displaces, &Been::default());
        if let Verdict::Go(selection) = self.select(key, Patience::NeedsNoRoom, &Been::default()) {
            let in_flight = self.pool.members()[selection.member].backend.in_flight();
            let there = self.pool.enter_query(&selection);
            assert_eq!(self.pool.members()[selection.member].backend.in_flight(), in_flight);
            drop(there);
        }
    }

    fn select(&mut self, key: u64, patience: Patience, been: &Been) -> Verdict {
        let ask = Ask { key: Some(SessionKey::from_bits(key)), bytes: key % 100_000, patience };
        let verdict = self.pool.select(&ask, &been.tried, self.now);
        assert_eq!(verdict, self.pool.select(&ask, &been.tried, self.now), "asked twice, two answers");
        let called = self.line_of(patience);
        let (called_by, world) = (called.as_deref(), &self.truth);
        let asked = Asked { key, tried: &been.names, patience, called_by, now: self.now, world };
        match self.settings.policy {
            Policy::ConsistentHash => {
                let got = match verdict {
                    Verdict::Go(at) => Expected::Go(self.specs[at.member].name.clone(), at.affinity, at.reason),
                    Verdict::Wait { member, reason } => Expected::Wait(self.specs[member].name.clone(), reason),
                    Verdict::Full => Expected::Full,
                    Verdict::Nobody => Expected::Nobody,
                };
                assert_eq!(got, self.model.select(&asked), "session {key:x}, tried {:?}", been.names);
            }
            Policy::LeastTtft => self.model.check_score(&asked, verdict, &self.specs),
        }
        if let Verdict::Go(selection) = verdict {
            if patience != Patience::NeedsNoRoom {
                self.check_allowed(selection, &been.tried);
            }
            if self.settings.policy == Policy::ConsistentHash {
                self.check_settled(key, patience, selection, &been.names);
            }
            self.totals.selected(selection);
        }
        verdict
    }

    /// The name of the member at which it waits.
    pub(crate) fn line_of(&self, patience: Patience) -> Option<String> {
        match patience {
            Patience::Called(member) | Patience::InLine(member) => Some(self.name(member)),
            Patience::Waits | Patience::Displaces | Patience::Spills | Patience::NeedsNoRoom => None,
        }
    }

    fn wait(&mut self, key: u64, member: usize) {
        let name = self.name(member);
        let bound = self.settings.overload.max_waiting as usize;
        self.waiting.push((key, name.clone(), self.pool.members()[member].backend.queue()));
        let truth = self.truth.get_mut(&name).unwrap();
        truth.queued += 1;
        assert!(truth.queued <= bound, "{name} has more than {bound} who wait");
        self.totals.waited += 1;
    }

    /// Somebody who is first in a line is called, has waited long enough, or leaves.
    fn call(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let any = self.rng.below(self.waiting.len());
        let name = self.waiting[any].1.clone();
        let first = self.waiting.iter().position(|(_, at, _)| *at == name).unwrap();
        let (key, patience) = (self.waiting[first].0, self.rng.below(10));
        if patience < 6
            && let Some(member) = self.pool.position(&name)
        {
            // Or another one looks, in case there is room elsewhere.
            let (key, patience) = match any == first {
                true => (key, Patience::Called(member)),
                false => (self.waiting[any].0, Patience::InLine(member)),
            };
            let called = self.select(key, patience, &Been::default());
            if matches!(called, Verdict::Wait { .. }) || any != first {
                return;
            }
            self.totals.called += u64::from(called.selection().is_some_and(|selection| selection.member == member));
        }
        drop(self.waiting.remove(first));
        if let Some(truth) = self.truth.get_mut(&name) {
            truth.queued -= 1;
        }
        if patience < 9 {
            self.turn(key, Patience::Spills, Been::default());
        }
    }

    fn land(&mut self, key: u64, selection: Selection, name: &str) {
        self.pool.landed(SessionKey::from_bits(key), selection, self.now);
        self.model.landed(key, name, self.now);
        let at_home = self.model.order(key)[0] == name;
        self.settled.insert(key, Settled { name: name.to_owned(), seen: self.now, at_home });
        // The table is full: whoever was pushed out may go home at any time.
        let before = self.settled.len();
        let stay_put = self.settings.stay_put && self.settings.policy == Policy::ConsistentHash;
        self.settled.retain(|key, settled| settled.at_home || !stay_put || self.model.is_away(*key));
        self.totals.evictions += (before - self.settled.len()) as u64;
    }

    fn keyless(&mut self) {
        let mut been = Been::default();
        for _ in 0..MAX_ATTEMPTS {
            let patience = if self.rng.chance(30) { Patience::Waits } else { Patience::Spills };
            let ask = Ask { key: None, bytes: 1000, patience };
            let verdict = self.pool.select(&ask, &been.tried, self.now);
            let Verdict::Go(selection) = verdict else { return self.check_refused(verdict, patience, &been.names) };
            self.check_allowed(selection, &been.tried);
            self.check_balance(selection, &been.names);
            self.totals.selected(selection);
            let client = self.rng.next() % 3;
            if self.attempt(selection, client) != Outcome::Again {
                return;
            }
            been.tried.push(selection.member);
            been.names.push(self.name(selection.member));
        }
    }

    /// One attempt of a session or a client.
    fn attempt(&mut self, selection: Selection, origin: u64) -> Outcome {
        let name = self.name(selection.member);
        self.there.push((name.clone(), self.pool.enter(&selection, self.now)));
        let truth = self.truth.get_mut(&name).unwrap();
        truth.in_flight += 1;
        if selection.is_trial {
            truth.start_trial(self.now);
        }
        let serves = truth.serves;
        let mut outcome = Outcome::Again;
        match self.condition(&name) {
            Condition::Fine | Condition::Breaking => {
                self.observe(&name, Observation::TrafficOk);
                return Outcome::Good;
            }
            Condition::Stalling => {
                if self.rng.chance(50) {
                    self.observe(&name, Observation::Stalled);
                }
                return Outcome::Over;
            }
            Condition::Erring => {
                let has_alternative = self.pool.has_alternative(selection.member);
                assert_eq!(has_alternative, self.is_another_well(&name));
                let error = Observation::TrafficError(ErrorAnswer { origin, has_alternative });
                let others =
                    [error, error, Observation::TrafficAnswered, Observation::TrafficFailed(Cause::BadGateway)];
                let seen = self.rng.pick(&others);
                self.observe(&name, seen);
                // The answer passes, unless nothing else was to be expected.
                outcome = if serves { Outcome::Over } else { Outcome::Again };
            }
            // A 503 is retried, and no failure.
            Condition::Loading => {}
            Condition::Dead => self.observe(&name, Observation::TrafficFailed(Cause::Connect)),
            Condition::HalfDead | Condition::Flaky => self.observe(&name, Observation::TrafficFailed(Cause::FirstByte)),
        }
        self.leave_at(self.there.len() - 1);
        outcome
    }

    /// Whether another one is available and has less than half of the errors that are too many.
    fn is_another_well(&self, name: &str) -> bool {
        let most = self.settings.thresholds.errors;
        self.truth.iter().any(|(other, truth)| other != name && truth.available() && truth.errors * 2 < most)
    }

    fn probe(&mut self) {
        let name = self.any_name();
        let seen = match self.condition(&name) {
            // Busy: now and then a probe of a good one fails.
            Condition::Fine if self.rng.chance(3) => Observation::ProbeFailed,
            Condition::Loading => Observation::ProbeLoading,
            Condition::Dead | Condition::Flaky => Observation::ProbeFailed,
            _ => Observation::ProbeOk,
        };
        self.observe(&name, seen);
    }

    /// What is the matter with a backend at this moment.
    fn condition(&mut self, name: &str) -> Condition {
        match self.truth[name].condition {
            Condition::Flaky => self.rng.pick(&[Condition::Fine, Condition::Loading, Condition::Dead]),
            condition => condition,
        }
    }

    fn observe(&mut self, name: &str, seen: Observation) {
        let backend = &self.pool.members()[self.pool.position(name).unwrap()].backend;
        let (thresholds, before) = (self.settings.thresholds, backend.state());
        let transition = backend.observe(seen, thresholds, self.now);
        let truth = self.truth.get_mut(name).unwrap();
        truth.observe(seen, (before, backend.state()), transition, thresholds, self.now);
        self.totals.transitions += u64::from(transition.is_some());
    }

    /// Faults come and, more often, go; now and then all of them at once.
    fn fault(&mut self) {
        let bad = [
            Condition::Loading,
            Condition::Dead,
            Condition::HalfDead,
            Condition::Flaky,
            Condition::Erring,
            Condition::Erring,
            Condition::Breaking,
            Condition::Stalling,
        ];
        let condition = if self.rng.chance(55) { Condition::Fine } else { self.rng.pick(&bad) };
        if self.rng.chance(5) {
            self.truth.values_mut().for_each(|truth| truth.condition = condition);
        }
        let name = self.any_name();
        self.truth.get_mut(&name).unwrap().condition = condition;
    }

    fn drain(&mut self) {
        let (name, draining) = (self.any_name(), self.rng.chance(40));
        let since = &mut self.truth.get_mut(&name).unwrap().drains_since;
        *since = if draining { Some(since.unwrap_or(self.now)) } else { None };
        self.pool.members()[self.pool.position(&name).unwrap()].backend.set_draining(draining, self.now);
    }

    /// A backend says how many it can take at once.
    fn signal(&mut self) {
        let (name, slots) = (self.any_name(), self.rng.pick(&[None, Some(1), Some(4), Some(20)]));
        self.truth.get_mut(&name).unwrap().slots = slots;
        let backend = &self.pool.members()[self.pool.position(&name).unwrap()].backend;
        backend.set_signals(Signals { slots, ..Signals::default() });
    }

    /// A new config: one backend more, less, or with another weight or tier; in any order; sometimes other settings.
    fn rebuild(&mut self) {
        match self.rng.below(4) {
            0 if self.specs.len() < 64 => {
                self.names += 1;
                let spec = any_spec(&mut self.rng, self.names);
                self.truth.insert(spec.name.clone(), Truth::new(spec.draining, true));
                self.specs.push(spec);
            }
            1 if self.specs.len() > 2 => {
                let gone = self.specs.remove(self.rng.below(self.specs.len()));
                self.truth.remove(&gone.name);
                self.removed.push(Arc::clone(&self.pool.members()[self.pool.position(&gone.name).unwrap()].backend));
            }
            2 => {
                let at = self.rng.below(self.specs.len());
                let other = any_spec(&mut self.rng, 0);
                (self.specs[at].weight, self.specs[at].priority) = (other.weight, other.priority);
            }
            _ => {
                let thresholds = self.settings.thresholds;
                self.settings = Settings { thresholds, ..any_settings(&mut self.rng, self.hash_seed) };
            }
        }
        let turn = self.rng.below(self.specs.len());
        self.specs.rotate_left(turn);
        self.pool = self.pool.rebuild(&self.specs, self.settings);
        self.model.rebuild(&self.specs, self.settings);
        self.settled.clear();
        self.totals.rebuilds += 1;
        self.check_replica();
    }

    fn expire(&mut self) {
        self.pool.expire(self.now);
        self.model.expire(self.now);
        let ttl = self.settings.idle_ttl;
        self.settled.retain(|_, settled| self.now - settled.seen < ttl || settled.at_home);
    }

    fn leave(&mut self) {
        // Several, or more would come than go.
        for _ in 0..self.there.len().min(8) {
            let at = self.rng.below(self.there.len());
            let name = self.there[at].0.clone();
            let condition = self.truth.get(&name).map(|truth| truth.condition);
            match condition {
                Some(Condition::Fine) => self.observe(&name, Observation::Completed),
                Some(Condition::Breaking) => self.observe(&name, Observation::Broken),
                _ => {}
            }
            self.leave_at(at);
        }
    }

    fn leave_at(&mut self, at: usize) {
        let (name, guard) = self.there.swap_remove(at);
        // A stream begins before it ends, most of the time.
        if self.rng.chance(70) {
            guard.first_token(self.now);
        }
        drop(guard);
        if let Some(truth) = self.truth.get_mut(&name) {
            truth.in_flight -= 1;
        }
    }

    pub(crate) fn name(&self, member: usize) -> String {
        self.specs[member].name.clone()
    }

    fn any_name(&mut self) -> String {
        let at = self.rng.below(self.specs.len());
        self.name(at)
    }
}

fn any_spec(rng: &mut Rng, n: usize) -> MemberSpec {
    let (weight, priority) = (rng.pick(&[1, 1, 1, 2, 3, 10, 1000]), rng.pick(&[0, 0, 0, 1, 2]));
    MemberSpec { name: format!("10.0.0.{n}:8080"), weight, priority, draining: rng.chance(3) }
}

fn any_settings(rng: &mut Rng, hash_seed: &str) -> Settings {
    Settings {
        seed: Seed::new(hash_seed),
        policy: rng.pick(&[Policy::ConsistentHash, Policy::ConsistentHash, Policy::LeastTtft]),
        gateways: rng.pick(&[1, 3]),
        balance: rng.pick(&[Balance::RoundRobin, Balance::LeastRequests]),
        fail_open: rng.chance(50),
        stay_put: rng.chance(80),
        idle_ttl: rng.pick(&[500, 5_000, 600_000]),
        max_displaced: rng.pick(&[1, 5, 50, 1000]),
        max_sessions: rng.pick(&[1, 20, 1000]),
        thresholds: Thresholds {
            healthy: rng.pick(&[1, 2, 3]),
            unhealthy: rng.pick(&[1, 2, 3]),
            errors: rng.pick(&[1, 2, 5]),
        },
        overload: Overload {
            max_in_flight: rng.pick(&[
                MaxInFlight::Off,
                MaxInFlight::Off,
                MaxInFlight::Auto,
                MaxInFlight::Fixed(1),
                MaxInFlight::Fixed(8),
            ]),
            balance_factor: rng.pick(&[None, Some(1.25), Some(2.0)]),
            balance_floor: rng.pick(&[1, 4]),
            max_waiting: rng.pick(&[0, 1, 10]),
        },
        slow_start: rng.pick(&[0, 0, 2_000, 100_000]),
        drain: Drain {
            sessions: rng.pick(&[DrainSessions::UntilIdle, DrainSessions::AtOnce]),
            deadline: rng.pick(&[None, Some(1_000), Some(600_000)]),
        },
    }
}
