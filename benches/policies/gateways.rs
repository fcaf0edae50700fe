//! The real thing: `core::Pool` places the turns, one pool per gateway behind a splitter that knows no sessions.

use fastrand::Rng;
use ingle::core::pool::{Balance, Drain, DrainSessions, MemberSpec, Overload, Policy as Placement, Settings};
use ingle::core::signals::Signals;
use ingle::core::usage::Usage;
use ingle::core::{Ask, InFlight, Millis, Observation, Pool, Seed, Selection, SessionKey, Thresholds, Tried};

use crate::cells::{Cell, Kind};
use crate::machine::Machine;
use crate::simulation::Policy;
use crate::workload::Workload;

/// All gateways.
pub(crate) struct Gateways<'a> {
    workload: &'a Workload<'a>,
    cell: &'a Cell,
    pools: Vec<Pool>,
    trips: Vec<Option<Trip>>,
    splitter: Rng,
}

/// A turn at a machine.
struct Trip {
    gateway: usize,
    selection: Selection,
    there: InFlight,
}

impl<'a> Gateways<'a> {
    pub(crate) fn new(kind: Kind, cell: &'a Cell, workload: &'a Workload<'a>) -> Gateways<'a> {
        Gateways {
            workload,
            cell,
            pools: (0..cell.gateways).map(|_| pool(kind, cell)).collect(),
            trips: workload.turns.iter().map(|_| None).collect(),
            splitter: Rng::with_seed(workload.seed ^ 0x7370_6c69_7474_6572),
        }
    }

    /// Where each session is at home.
    pub(crate) fn homes(cell: &Cell, workload: &Workload<'_>) -> Vec<usize> {
        let pool = pool(Kind::Hash, cell);
        let mut homes = vec![0; workload.sessions];
        for turn in &workload.turns {
            homes[turn.session] = pool.home(turn.key).unwrap_or(0);
        }
        homes
    }

    fn ms(&self, now: f64) -> Millis {
        (now * 1000.0 / self.cell.compressed).round() as Millis
    }

    fn key(&self, turn: usize) -> SessionKey {
        self.workload.turns[turn].key
    }
}

impl Policy for Gateways<'_> {
    fn place(&mut self, turn: usize, _machines: &[Machine], now: f64) -> usize {
        let gateway = self.splitter.usize(..self.pools.len());
        let (pool, now) = (&self.pools[gateway], self.ms(now));
        let ask = Ask::new(Some(self.key(turn)), self.workload.turns[turn].bytes);
        let selection = pool.select(&ask, &Tried::default(), now).selection().expect("somebody is up and nobody full");
        let there = pool.enter(&selection, now);
        self.trips[turn] = Some(Trip { gateway, selection, there });
        selection.member
    }

    fn first_token(&mut self, turn: usize, now: f64) {
        let (now, key) = (self.ms(now), self.key(turn));
        if let Some(trip) = &self.trips[turn]
            && self.cell.streams
        {
            trip.there.first_token(now);
            self.pools[trip.gateway].landed(key, trip.selection, now);
        }
    }

    fn ended(&mut self, turn: usize, computed: u32, now: f64) {
        let (now, key) = (self.ms(now), self.key(turn));
        let Some(trip) = self.trips[turn].take() else { return };
        let pool = &self.pools[trip.gateway];
        if self.cell.streams {
            pool.active(key, trip.selection, now);
        } else {
            trip.there.answered();
            pool.landed(key, trip.selection, now);
        }
        let prompt = self.workload.lines[turn].input_length;
        let cached = if self.cell.reports { prompt - computed } else { 0 };
        trip.there.learn(Usage { prompt: prompt.into(), cached: Some(cached.into()) });
    }

    fn lost(&mut self, turn: usize, _now: f64) {
        self.trips[turn] = None;
    }

    fn changed(&mut self, machine: usize, alive: bool, now: f64) {
        let (seen, now) = (if alive { Observation::ProbeOk } else { Observation::ProbeFailed }, self.ms(now));
        for pool in &self.pools {
            pool.members()[machine].backend.observe(seen, THRESHOLDS, now);
        }
    }

    fn polled(&mut self, machines: &[Machine], _now: f64) {
        for pool in &self.pools {
            for (member, machine) in pool.members().iter().zip(machines) {
                member.backend.set_signals(Signals {
                    slots: Some(machine.model.slots as u32),
                    waiting: Some(machine.queued() as u32),
                    running: Some(machine.working() as u32),
                    kv_usage: None,
                });
            }
        }
    }
}

fn pool(kind: Kind, cell: &Cell) -> Pool {
    let spec = |(i, weight): (usize, &u32)| MemberSpec {
        name: format!("gpu{i}"),
        weight: *weight,
        priority: 0,
        draining: false,
    };
    let specs: Vec<MemberSpec> = cell.weights().iter().enumerate().map(spec).collect();
    let balance_factor = (kind == Kind::Bounded).then_some(1.25);
    let pool = Pool::new(
        &specs,
        Settings {
            seed: Seed::new(""),
            policy: if kind == Kind::LeastTtft { Placement::LeastTtft } else { Placement::ConsistentHash },
            gateways: cell.gateways,
            balance: Balance::RoundRobin,
            fail_open: false,
            stay_put: kind != Kind::Hash,
            idle_ttl: (600_000.0 / cell.compressed) as Millis,
            max_displaced: 100_000,
            max_sessions: 200_000,
            thresholds: THRESHOLDS,
            overload: Overload { balance_factor, balance_floor: 4, ..Overload::OFF },
            slow_start: 0,
            drain: Drain { sessions: DrainSessions::UntilIdle, deadline: None },
        },
    );
    for member in pool.members() {
        member.backend.observe(Observation::ProbeOk, THRESHOLDS, 0);
    }
    pool
}

const THRESHOLDS: Thresholds = Thresholds { healthy: 1, unhealthy: 1 };
