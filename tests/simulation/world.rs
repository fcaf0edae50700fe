//! What happens: requests, probes, faults, operators.

use std::collections::HashMap;
use std::sync::Arc;

use ingle::core::pool::{Balance, MemberSpec, Selection, Settings};
use ingle::core::{Affinity, Backend, Cause, InFlight, Millis, Observation, Pool, Seed, SessionKey, Thresholds, Tried};

use crate::checks::{Totals, available};
use crate::model::{History, Model};
use crate::rng::Rng;

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
    removed: Vec<Arc<Backend>>,
    names: usize,
    pub(crate) totals: Totals,
}

/// What is really the matter with a backend, and what the gateway has seen of it.
#[derive(Default)]
pub(crate) struct Truth {
    condition: Condition,
    pub(crate) draining: bool,
    pub(crate) in_flight: usize,
    history: History,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Condition {
    #[default]
    Fine,
    Loading,
    Dead,
    /// Probes are answered, requests are not.
    HalfDead,
    /// Now this, now that.
    Flaky,
}

pub(crate) struct Settled {
    pub(crate) name: String,
    pub(crate) seen: Millis,
    pub(crate) at_home: bool,
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
        let truth = |spec: &MemberSpec| (spec.name.clone(), Truth { draining: spec.draining, ..Truth::default() });
        World {
            now: 1000,
            pool: Pool::new(&specs, settings),
            model: Model::new(hash_seed, &specs, settings),
            truth: specs.iter().map(truth).collect(),
            sessions: (0..2 + rng.below(60)).map(|_| rng.next()).collect(),
            settled: HashMap::new(),
            there: Vec::new(),
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
            0..450 => self.turn(),
            450..650 => self.keyless(),
            650..860 => self.probe(),
            860..880 => self.fault(),
            880..885 => self.drain(),
            885..890 => self.rebuild(),
            890..893 => self.now += self.rng.next() % (2 * self.settings.idle_ttl),
            893..900 => self.expire(),
            _ => self.leave(),
        }
        self.check();
    }

    /// The end: everybody leaves.
    pub(crate) fn finish(mut self) -> Totals {
        self.there.clear();
        let gone = self.removed.iter().chain(self.pool.members().iter().map(|member| &member.backend));
        gone.for_each(|backend| assert_eq!(backend.in_flight(), 0, "{}", backend.name()));
        self.totals
    }

    fn turn(&mut self) {
        let key = self.rng.pick(&self.sessions);
        let (mut tried, mut names) = (Tried::default(), Vec::new());
        for attempt in 0..MAX_ATTEMPTS {
            let Some(selection) = self.select_by_key(key, &tried, &names) else {
                self.totals.turned_away += 1;
                return;
            };
            self.totals.retries += u64::from(attempt > 0);
            let name = self.name(selection.member);
            if self.attempt(selection.member) {
                self.land(key, selection, &name);
                return;
            }
            tried.push(selection.member);
            names.push(name);
        }
    }

    fn select_by_key(&mut self, key: u64, tried: &Tried, names: &[String]) -> Option<Selection> {
        let (bits, now) = (SessionKey::from_bits(key), self.now);
        let selection = self.pool.select(Some(bits), tried, now);
        assert_eq!(selection, self.pool.select(Some(bits), tried, now), "asked twice, two answers");
        let available = |name: &str| available(&self.pool, name);
        let chosen = self.model.select(key, names, now, &available).or_else(|| self.expect_fail_open(key, names));
        assert_eq!(selection.map(|s| (self.name(s.member), s.affinity)), chosen, "session {key:x}, tried {names:?}");
        let selection = selection?;
        self.check_allowed(selection, tried);
        self.check_settled(key, selection, names);
        self.totals.affinities[selection.affinity as usize] += 1;
        Some(selection)
    }

    fn expect_fail_open(&mut self, key: u64, names: &[String]) -> Option<(String, Affinity)> {
        let nobody = self.specs.iter().all(|spec| !available(&self.pool, &spec.name));
        let order = self.model.order(key);
        let open = order.into_iter().find(|name| !self.truth[name].draining && !names.contains(name));
        open.filter(|_| self.settings.fail_open && nobody).map(|name| (name, Affinity::FailOpen))
    }

    fn land(&mut self, key: u64, selection: Selection, name: &str) {
        self.pool.landed(SessionKey::from_bits(key), selection, self.now);
        self.model.landed(key, name, self.now);
        let at_home = self.model.order(key)[0] == name;
        self.settled.insert(key, Settled { name: name.to_owned(), seen: self.now, at_home });
        // The table is full: whoever was pushed out may go home at any time.
        let before = self.settled.len();
        let stay_put = self.settings.stay_put;
        self.settled.retain(|key, settled| settled.at_home || !stay_put || self.model.is_away(*key));
        self.totals.evictions += (before - self.settled.len()) as u64;
    }

    fn keyless(&mut self) {
        let mut tried = Tried::default();
        for _ in 0..MAX_ATTEMPTS {
            let Some(selection) = self.pool.select(None, &tried, self.now) else {
                let serves =
                    |(at, spec): (usize, &MemberSpec)| available(&self.pool, &spec.name) && !tried.contains(at);
                assert!(!self.specs.iter().enumerate().any(serves), "somebody could have taken it");
                return;
            };
            self.check_allowed(selection, &tried);
            self.check_balance(selection, &tried);
            self.totals.affinities[selection.affinity as usize] += 1;
            if self.attempt(selection.member) {
                return;
            }
            tried.push(selection.member);
        }
    }

    /// One attempt; whether it was answered well.
    fn attempt(&mut self, member: usize) -> bool {
        let name = self.name(member);
        self.there.push((name.clone(), self.pool.members()[member].backend.enter()));
        self.truth.get_mut(&name).unwrap().in_flight += 1;
        match self.condition(&name) {
            Condition::Fine => {
                self.observe(&name, Observation::TrafficOk);
                return true;
            }
            // A 503 is retried, and no failure.
            Condition::Loading => {}
            Condition::Dead => self.observe(&name, Observation::TrafficFailed(Cause::Connect)),
            Condition::HalfDead | Condition::Flaky => self.observe(&name, Observation::TrafficFailed(Cause::FirstByte)),
        }
        self.leave_at(self.there.len() - 1);
        false
    }

    fn probe(&mut self) {
        let name = self.any_name();
        let seen = match self.condition(&name) {
            // Busy: now and then a probe of a good one fails.
            Condition::Fine if self.rng.chance(3) => Observation::ProbeFailed,
            Condition::Fine | Condition::HalfDead => Observation::ProbeOk,
            Condition::Loading => Observation::ProbeLoading,
            Condition::Dead | Condition::Flaky => Observation::ProbeFailed,
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
        let transition = backend.observe(seen, thresholds);
        let history = &mut self.truth.get_mut(name).unwrap().history;
        history.check(before, seen, transition, backend.state(), thresholds);
        self.totals.transitions += u64::from(transition.is_some());
    }

    /// Faults come and, more often, go; now and then all of them at once.
    fn fault(&mut self) {
        let bad = [Condition::Loading, Condition::Dead, Condition::HalfDead, Condition::Flaky];
        let condition = if self.rng.chance(55) { Condition::Fine } else { self.rng.pick(&bad) };
        if self.rng.chance(5) {
            self.truth.values_mut().for_each(|truth| truth.condition = condition);
        }
        let name = self.any_name();
        self.truth.get_mut(&name).unwrap().condition = condition;
    }

    fn drain(&mut self) {
        let (name, draining) = (self.any_name(), self.rng.chance(40));
        self.truth.get_mut(&name).unwrap().draining = draining;
        self.pool.members()[self.pool.position(&name).unwrap()].backend.set_draining(draining);
    }

    /// A new config: one backend more, less, or with another weight or tier; in any order; sometimes other settings.
    fn rebuild(&mut self) {
        match self.rng.below(4) {
            0 if self.specs.len() < 64 => {
                self.names += 1;
                let spec = any_spec(&mut self.rng, self.names);
                self.truth.insert(spec.name.clone(), Truth { draining: spec.draining, ..Truth::default() });
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
            self.leave_at(at);
        }
    }

    fn leave_at(&mut self, at: usize) {
        let (name, guard) = self.there.swap_remove(at);
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
        balance: rng.pick(&[Balance::RoundRobin, Balance::LeastRequests]),
        fail_open: rng.chance(50),
        stay_put: rng.chance(80),
        idle_ttl: rng.pick(&[500, 5_000, 600_000]),
        max_displaced: rng.pick(&[1, 5, 50, 1000]),
        thresholds: Thresholds { healthy: rng.pick(&[1, 2, 3]), unhealthy: rng.pick(&[1, 2, 3]) },
    }
}
