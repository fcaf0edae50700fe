//! The real thing: a `core::Pool` places the turns that come to one gateway.

use std::collections::HashMap;

use ingle::core::pool::{Balance, Drain, DrainSessions, MemberSpec, Overload, Policy as Placement, Settings};
use ingle::core::signals::Signals;
use ingle::core::usage::Usage;
use ingle::core::{Ask, InFlight, Millis, Observation, Pool, Seed, Selection, SessionKey, Thresholds, Tried};
use ingle_sim::trace::{self, Machine, Policy, Workload};

use crate::cells::{Cell, Kind};

/// One gateway. It knows of its own requests only.
pub(crate) struct Gateway<'a> {
    cell: &'a Cell,
    pool: Pool,
    /// By turn.
    trips: HashMap<usize, Trip>,
}

/// A turn at a machine.
struct Trip {
    key: SessionKey,
    selection: Selection,
    there: InFlight,
    /// What the machine will say in the end.
    usage: Usage,
}

impl<'a> Gateway<'a> {
    pub(crate) fn new(kind: Kind, cell: &'a Cell) -> Gateway<'a> {
        Gateway { cell, pool: pool(kind, cell), trips: HashMap::new() }
    }

    fn ms(&self, now: f64) -> Millis {
        (now * 1000.0 / self.cell.compressed).round() as Millis
    }
}

/// Where each session is at home.
pub(crate) fn homes(cell: &Cell, workload: &Workload) -> Vec<Option<usize>> {
    let pool = pool(Kind::Hash, cell);
    (0..workload.sessions).map(|session| pool.home(key(&workload.session_id(session)))).collect()
}

impl Policy for Gateway<'_> {
    fn place(&mut self, ask: &trace::Ask<'_>, _machines: &[Machine], _alive: &[bool]) -> usize {
        let (key, now) = (key(ask.session), self.ms(ask.now));
        let wanted = Ask::new(Some(key), ask.turn.bytes as u64);
        let selection = self.pool.select(&wanted, &Tried::default(), now).selection();
        let selection = selection.expect("somebody is up and nobody full");
        let there = self.pool.enter(&selection, now);
        let usage = Usage { prompt: ask.turn.prompt.into(), cached: Some(0) };
        self.trips.insert(ask.index, Trip { key, selection, there, usage });
        selection.member
    }

    fn first_token(&mut self, index: usize, _machine: usize, cached: u32, now: f64) {
        let now = self.ms(now);
        let Some(trip) = self.trips.get_mut(&index) else { return };
        if self.cell.reports {
            trip.usage.cached = Some(cached.into());
        }
        if self.cell.streams {
            trip.there.first_token(now);
            self.pool.landed(trip.key, trip.selection, now);
        }
    }

    fn ended(&mut self, index: usize, _machine: usize, now: f64) {
        let now = self.ms(now);
        let Some(trip) = self.trips.remove(&index) else { return };
        if self.cell.streams {
            self.pool.active(trip.key, trip.selection, now);
        } else {
            trip.there.answered();
            self.pool.landed(trip.key, trip.selection, now);
        }
        trip.there.learn(trip.usage);
    }

    fn lost(&mut self, index: usize, _machine: usize, _now: f64) {
        self.trips.remove(&index);
    }

    fn changed(&mut self, machine: usize, alive: bool, now: f64) {
        let seen = if alive { Observation::ProbeOk } else { Observation::ProbeFailed };
        self.pool.members()[machine].backend.observe(seen, THRESHOLDS, self.ms(now));
    }

    fn polled(&mut self, machines: &[Machine], _now: f64) {
        for (member, machine) in self.pool.members().iter().zip(machines) {
            member.backend.set_signals(Signals {
                slots: Some(machine.model().slots as u32),
                waiting: Some(machine.waiting() as u32),
                running: Some(machine.running() as u32),
                kv_usage: None,
            });
        }
    }
}

fn key(session: &str) -> SessionKey {
    SessionKey::parse(session.as_bytes(), 256, Seed::new("")).ok().flatten().expect("our ids are good")
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

const THRESHOLDS: Thresholds = Thresholds { healthy: 1, unhealthy: 1, errors: 4 };
