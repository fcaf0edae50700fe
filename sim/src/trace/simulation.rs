//! A workload on a fleet, without sockets and without waiting.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::machine::{Job, Machine, Model, Step};
use super::policy::{Ask, Policy};
use super::workload::{Turn, Workload};

/// A machine that dies and comes back cold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outage {
    /// Which machine.
    pub machine: usize,
    /// When it dies, in seconds.
    pub from: f64,
    /// When it is back.
    pub to: f64,
}

impl Outage {
    /// Machine 0 dies after a third of the workload and is back after two thirds.
    #[must_use]
    pub fn middle_third(workload: &Workload) -> Self {
        let duration = workload.duration();
        Self { machine: 0, from: duration / 3.0, to: duration * 2.0 / 3.0 }
    }
}

/// What became of a turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Number of the turn in its workload.
    pub index: usize,
    /// Number of its session.
    pub session: usize,
    /// When it was sent.
    pub sent: f64,
    /// Seconds to its first token, if there was one.
    pub first_token: Option<f64>,
    /// When it ended, well or not.
    pub end: f64,
    /// The machine that answered it.
    pub machine: Option<usize>,
    /// Tokens of its prompt.
    pub prompt: u32,
    /// Those that were cached, if there was a first token.
    pub cached: u32,
    /// The most requests in flight at one machine, over the mean of all, when it was sent; if there were any.
    pub skew: Option<f64>,
    /// Why it failed.
    pub error: Option<&'static str>,
}

/// A run of a workload. Every request goes to a gateway by chance; each gateway has its own [`Policy`].
#[derive(Debug)]
pub struct Simulation<'a> {
    workload: &'a Workload,
    machines: Vec<Machine>,
    alive: Vec<bool>,
    outage: Option<Outage>,
    events: BinaryHeap<Reverse<Event>>,
    children: Vec<Vec<usize>>,
    under_way: HashMap<u64, UnderWay>,
    outcomes: Vec<Outcome>,
    rng: fastrand::Rng,
}

#[derive(Debug)]
struct UnderWay {
    gateway: usize,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Event {
    at: f64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Died,
    Back,
    /// Something may be due at a machine.
    Machine(usize),
    Turn(usize),
}

impl<'a> Simulation<'a> {
    /// `count` machines of one model. `seed` decides which gateway takes which request.
    #[must_use]
    pub fn new(workload: &'a Workload, model: Model, count: usize, outage: Option<Outage>, seed: u64) -> Self {
        let children = workload.children();
        let mut simulation = Self {
            workload,
            machines: (0..count).map(|_| Machine::new(model)).collect(),
            alive: vec![true; count],
            outage,
            events: BinaryHeap::new(),
            children,
            under_way: HashMap::new(),
            outcomes: Vec::with_capacity(workload.turns.len()),
            rng: fastrand::Rng::with_seed(seed),
        };
        for (index, turn) in workload.turns.iter().enumerate().filter(|(_, turn)| turn.parent.is_none()) {
            simulation.at(turn.at, Kind::Turn(index));
        }
        if let Some(outage) = outage {
            simulation.at(outage.from, Kind::Died);
            simulation.at(outage.to, Kind::Back);
        }
        simulation
    }

    /// Plays it to its end. Outcomes are in the order of their ends.
    #[must_use]
    pub fn run(mut self, gateways: &mut [Box<dyn Policy + '_>]) -> Finished {
        while let Some(Reverse(event)) = self.events.pop() {
            match event.kind {
                Kind::Turn(index) => self.send(index, event.at, gateways),
                Kind::Machine(machine) => self.advance(machine, event.at, gateways),
                Kind::Died => self.died(event.at, gateways),
                Kind::Back => self.back(event.at, gateways),
            }
        }
        Finished { busy: self.machines.iter().map(Machine::busy).sum(), outcomes: self.outcomes }
    }

    fn send(&mut self, index: usize, now: f64, gateways: &mut [Box<dyn Policy + '_>]) {
        (0..self.machines.len()).for_each(|machine| self.advance(machine, now, gateways));
        let turn = &self.workload.turns[index];
        let in_flight: Vec<usize> = self.machines.iter().map(Machine::in_flight).collect();
        let outcome = Outcome::sent(index, turn, now, super::figures::skew(&in_flight));
        let gateway = self.rng.usize(0..gateways.len());
        self.place(UnderWay { gateway, outcome }, now, gateways);
    }

    fn place(&mut self, mut under_way: UnderWay, now: f64, gateways: &mut [Box<dyn Policy + '_>]) {
        let index = under_way.outcome.index;
        let turn = &self.workload.turns[index];
        let (job, session) = (turn.job(index), self.workload.session_id(turn.session));
        let ask = Ask { index, turn, session: &session, job: &job, now };
        let machine = gateways[under_way.gateway].place(&ask, &self.machines, &self.alive);
        under_way.outcome.machine = Some(machine);
        self.under_way.insert(job.id, under_way);
        self.machines[machine].arrive(job, now);
        self.wake(machine);
    }

    fn advance(&mut self, machine: usize, now: f64, gateways: &mut [Box<dyn Policy + '_>]) {
        let steps = self.machines[machine].advance(now);
        if steps.is_empty() {
            return;
        }
        for step in steps {
            match step {
                Step::FirstToken { id, at, cached, .. } => {
                    let Some(UnderWay { gateway, outcome }) = self.under_way.get_mut(&id) else { continue };
                    (outcome.first_token, outcome.cached) = (Some(at - outcome.sent), cached);
                    gateways[*gateway].first_token(outcome.index, machine, cached, at);
                }
                Step::End { id, at } => {
                    let Some(UnderWay { gateway, outcome }) = self.under_way.remove(&id) else { continue };
                    gateways[gateway].ended(outcome.index, machine, at);
                    self.finish(outcome, at);
                }
            }
        }
        self.wake(machine);
    }

    fn finish(&mut self, mut outcome: Outcome, now: f64) {
        outcome.end = now;
        for child in std::mem::take(&mut self.children[outcome.index]) {
            self.at(self.workload.turns[child].at.max(now + Workload::THINKING), Kind::Turn(child));
        }
        self.outcomes.push(outcome);
    }

    /// Who has no first token yet goes elsewhere; streams are lost.
    fn died(&mut self, now: f64, gateways: &mut [Box<dyn Policy + '_>]) {
        let Some(Outage { machine, .. }) = self.outage else { return };
        self.advance(machine, now, gateways);
        self.machines[machine].die(now);
        self.alive[machine] = false;
        gateways.iter_mut().for_each(|gateway| gateway.changed(machine, false, now));
        let mut lost: Vec<u64> =
            self.under_way.iter().filter(|(_, u)| u.outcome.machine == Some(machine)).map(|(id, _)| *id).collect();
        lost.sort_unstable();
        for id in lost {
            let Some(mut under_way) = self.under_way.remove(&id) else { continue };
            gateways[under_way.gateway].lost(under_way.outcome.index, machine, now);
            if under_way.outcome.first_token.is_none() {
                self.place(under_way, now, gateways);
            } else {
                under_way.outcome.error = Some("cut");
                self.finish(under_way.outcome, now);
            }
        }
    }

    fn back(&mut self, now: f64, gateways: &mut [Box<dyn Policy + '_>]) {
        let Some(Outage { machine, .. }) = self.outage else { return };
        self.alive[machine] = true;
        gateways.iter_mut().for_each(|gateway| gateway.changed(machine, true, now));
    }

    fn wake(&mut self, machine: usize) {
        if let Some(at) = self.machines[machine].next() {
            self.at(at, Kind::Machine(machine));
        }
    }

    fn at(&mut self, at: f64, kind: Kind) {
        self.events.push(Reverse(Event { at, kind }));
    }
}

/// What a [`Simulation`] came to.
#[derive(Clone, Debug)]
pub struct Finished {
    /// All turns, in the order of their ends.
    pub outcomes: Vec<Outcome>,
    /// Seconds of prefill on all machines.
    pub busy: f64,
}

impl Outcome {
    pub(super) fn sent(index: usize, turn: &Turn, sent: f64, skew: Option<f64>) -> Self {
        let (session, prompt) = (turn.session, turn.prompt);
        Self { index, session, sent, first_token: None, end: sent, machine: None, prompt, cached: 0, skew, error: None }
    }
}

impl Turn {
    /// The turn as a machine sees it; its id is the turn's number.
    #[must_use]
    pub fn job(&self, index: usize) -> Job {
        Job { id: index as u64, prompt: self.prompt, output: self.output, blocks: self.blocks.clone() }
    }
}

impl Workload {
    /// The turns that wait for each turn.
    #[must_use]
    pub fn children(&self) -> Vec<Vec<usize>> {
        let mut children = vec![Vec::new(); self.turns.len()];
        for (index, turn) in self.turns.iter().enumerate() {
            if let Some(parent) = turn.parent {
                children[parent].push(index);
            }
        }
        children
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.total_cmp(&other.at).then(self.kind.cmp(&other.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Line, Oracle, Pinned, RoundRobin};

    const MODEL: Model = Model { prefill_rate: 512.0, decode_rate: 1.0, slots: 4, cache_blocks: 100 };

    fn line(at: u64, hash_ids: Vec<u64>, output: u32) -> Line {
        let input_length = u32::try_from(hash_ids.len()).unwrap() * 512;
        Line { timestamp: at, input_length, output_length: output, hash_ids }
    }

    fn run(lines: &[Line], machines: usize, outage: Option<Outage>, policy: impl Policy + 'static) -> Vec<Outcome> {
        let workload = Workload::new(lines, 1);
        Simulation::new(&workload, MODEL, machines, outage, 1).run(&mut [Box::new(policy)]).outcomes
    }

    #[test]
    fn a_turn_waits_for_its_parent_and_finds_its_cache() {
        let outcomes = run(&[line(0, vec![0, 1], 100), line(10_000, vec![0, 1, 2], 1)], 1, None, RoundRobin::default());
        assert!((outcomes[1].sent - outcomes[0].end - 1.0).abs() < 1e-9);
        assert_eq!(outcomes[1].cached, 1024);
        assert_eq!(outcomes[1].first_token, Some(1.0));
    }

    #[test]
    fn the_oracle_uses_what_is_idle_and_what_is_cached() {
        let lines = [line(0, (0..30).collect(), 1), line(4_000, vec![0, 90], 1)];
        let outcomes = run(&lines, 2, None, Oracle);
        assert_eq!(outcomes[0].index, 1, "it does not wait behind the long one");
        assert_ne!(outcomes[0].machine, outcomes[1].machine);
    }

    #[test]
    fn when_a_machine_dies_streams_are_lost_and_the_rest_moves() {
        let lines =
            [line(0, vec![0, 1], 100), line(20_000, vec![0], 1), line(20_000, (0..20).map(|i| i + 50).collect(), 1)];
        let outage = Outage { machine: 0, from: 30.0, to: 31.0 };
        let outcomes = run(&lines, 2, Some(outage), Pinned { order: |_: &str| vec![0, 1] });
        let of = |index: usize| outcomes.iter().find(|outcome| outcome.index == index).unwrap();
        assert_eq!((of(0).error, of(0).end), (Some("cut"), 30.0));
        let moved = outcomes.iter().find(|outcome| outcome.prompt == 20 * 512).unwrap();
        assert_eq!((moved.machine, moved.error), (Some(1), None));
        assert!((moved.sent + moved.first_token.unwrap() - 50.0).abs() < 1e-9, "{moved:?}");
    }

    #[test]
    fn every_turn_ends_once() {
        let lines: Vec<Line> =
            (0..200).map(|i| line(i * 100, vec![0, i % 40 + 1, i + 1000], u32::from(i % 3 == 0) + 1)).collect();
        let outcomes = run(&lines, 3, Some(Outage { machine: 0, from: 5.0, to: 9.0 }), Oracle);
        let mut seen: Vec<usize> = outcomes.iter().map(|outcome| outcome.index).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
    }
}
