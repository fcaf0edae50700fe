//! The event loop: turns arrive, somebody places them, machines read and answer them.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::machine::{Machine, Model};
use crate::workload::{THINKING, Workload};

/// Who places turns on machines.
pub(crate) trait Policy {
    /// The machine for a turn.
    fn place(&mut self, turn: usize, machines: &[Machine], now: f64) -> usize;
    /// A turn has its first token.
    fn first_token(&mut self, _turn: usize, _now: f64) {}
    /// A turn has ended; so many tokens of its prompt were computed.
    fn ended(&mut self, _turn: usize, _computed: u32, _now: f64) {}
    /// A turn was lost with its machine. It may be placed again.
    fn lost(&mut self, _turn: usize, _now: f64) {}
    /// A machine died, or is back.
    fn changed(&mut self, _machine: usize, _alive: bool, _now: f64) {}
    /// It is time to ask the machines for their load.
    fn polled(&mut self, _machines: &[Machine], _now: f64) {}
}

/// Where a workload is played.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) machines: Vec<Model>,
    /// What arrival times are multiplied by.
    pub(crate) scale: f64,
    /// Machine 0 dies at a third and is back, cold, at two thirds.
    pub(crate) outage: bool,
    /// How often the machines are asked for their load, in seconds.
    pub(crate) poll: Option<f64>,
}

/// What became of one turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    pub(crate) sent: f64,
    pub(crate) machine: usize,
    /// Seconds to the first token; none if it was lost before.
    pub(crate) first_token: Option<f64>,
    /// Tokens of the prompt that were computed.
    pub(crate) computed: u32,
}

/// What a run came to.
pub(crate) struct Outcome {
    /// By turn.
    pub(crate) fates: Vec<Fate>,
    /// The turns in the order in which they were sent.
    pub(crate) order: Vec<usize>,
    /// The most requests in flight at one machine over the mean of all, in the mean over arrivals.
    pub(crate) skew: f64,
    /// Seconds of prefill on all machines.
    pub(crate) busy: f64,
    pub(crate) died: f64,
    pub(crate) back: f64,
}

/// Plays a workload in a scene.
pub(crate) fn play(workload: &Workload<'_>, scene: &Scene, policy: &mut dyn Policy) -> Outcome {
    let turns = workload.turns.len();
    let mut simulation = Simulation {
        workload,
        scene,
        policy,
        machines: scene.machines.iter().map(|model| Machine::new(*model)).collect(),
        events: BinaryHeap::new(),
        scheduled: 0,
        fates: vec![Fate::default(); turns],
        order: Vec::with_capacity(turns),
        skews: 0.0,
        left: turns,
    };
    simulation.run();
    let span = workload.span() * scene.scale;
    Outcome {
        skew: simulation.skews / turns as f64,
        busy: simulation.machines.iter().map(|machine| machine.busy).sum(),
        fates: simulation.fates,
        order: simulation.order,
        died: span / 3.0,
        back: span * 2.0 / 3.0,
    }
}

struct Simulation<'a> {
    workload: &'a Workload<'a>,
    scene: &'a Scene,
    policy: &'a mut dyn Policy,
    machines: Vec<Machine>,
    events: BinaryHeap<Reverse<Event>>,
    scheduled: u64,
    fates: Vec<Fate>,
    order: Vec<usize>,
    skews: f64,
    left: usize,
}

/// What happens when; of what happens at once, what was scheduled first.
struct Event(f64, u64, Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Arrival(usize),
    FirstToken { machine: usize, life: u32 },
    End { machine: usize, life: u32, turn: usize },
    Death,
    Return,
    Poll,
}

impl Simulation<'_> {
    fn run(&mut self) {
        let (scene, workload) = (self.scene, self.workload);
        for (number, turn) in workload.turns.iter().enumerate().filter(|(_, turn)| turn.parent.is_none()) {
            self.schedule(turn.at * scene.scale, Kind::Arrival(number));
        }
        if scene.outage {
            let span = workload.span() * scene.scale;
            self.schedule(span / 3.0, Kind::Death);
            self.schedule(span * 2.0 / 3.0, Kind::Return);
        }
        if let Some(poll) = scene.poll {
            self.schedule(poll, Kind::Poll);
        }
        while self.left > 0
            && let Some(Reverse(Event(now, _, kind))) = self.events.pop()
        {
            self.happen(kind, now);
        }
    }

    fn schedule(&mut self, at: f64, kind: Kind) {
        self.scheduled += 1;
        self.events.push(Reverse(Event(at, self.scheduled, kind)));
    }

    fn happen(&mut self, kind: Kind, now: f64) {
        let alive = |machine: usize, life: u32| self.machines[machine].life == life;
        match kind {
            Kind::Arrival(turn) => {
                self.order.push(turn);
                self.fates[turn].sent = now;
                self.note_skew();
                self.send(turn, now);
            }
            Kind::FirstToken { machine, life } if alive(machine, life) => self.first_token(machine, now),
            Kind::End { machine, life, turn } if alive(machine, life) => {
                self.machines[machine].end(turn);
                self.policy.ended(turn, self.fates[turn].computed, now);
                self.done(turn, now);
                self.start(machine, now);
            }
            Kind::FirstToken { .. } | Kind::End { .. } => {}
            Kind::Death => self.death(0, now),
            Kind::Return => {
                self.machines[0].alive = true;
                self.policy.changed(0, true, now);
            }
            Kind::Poll => {
                self.policy.polled(&self.machines, now);
                self.schedule(now + self.scene.poll.unwrap_or(1.0), Kind::Poll);
            }
        }
    }

    fn send(&mut self, turn: usize, now: f64) {
        let machine = self.policy.place(turn, &self.machines, now);
        assert!(self.machines[machine].alive, "turn {turn} was sent to a dead machine");
        self.fates[turn].machine = machine;
        self.machines[machine].arrive(turn, &self.workload.lines[turn]);
        self.start(machine, now);
    }

    fn start(&mut self, machine: usize, now: f64) {
        if let Some(started) = self.machines[machine].start(self.workload.lines, now) {
            self.fates[started.turn].computed = started.computed;
            let life = self.machines[machine].life;
            self.schedule(started.done, Kind::FirstToken { machine, life });
        }
    }

    fn first_token(&mut self, machine: usize, now: f64) {
        if let Some((turn, end)) = self.machines[machine].first_token(self.workload.lines, now) {
            self.fates[turn].first_token = Some(now - self.fates[turn].sent);
            self.policy.first_token(turn, now);
            let life = self.machines[machine].life;
            self.schedule(end, Kind::End { machine, life, turn });
        }
        self.start(machine, now);
    }

    /// Who has no first token yet goes elsewhere; streams are lost.
    fn death(&mut self, machine: usize, now: f64) {
        let (waiting, answered) = self.machines[machine].die();
        self.policy.changed(machine, false, now);
        for turn in answered {
            self.policy.lost(turn, now);
            self.done(turn, now);
        }
        for turn in waiting {
            self.policy.lost(turn, now);
            self.send(turn, now);
        }
    }

    /// The session may go on.
    fn done(&mut self, turn: usize, now: f64) {
        self.left -= 1;
        let workload = self.workload;
        for child in &workload.children[turn] {
            let at = (workload.turns[*child].at * self.scene.scale).max(now + THINKING);
            self.schedule(at, Kind::Arrival(*child));
        }
    }

    fn note_skew(&mut self) {
        let alive = self.machines.iter().filter(|machine| machine.alive).map(Machine::in_flight);
        let (count, sum, most) = alive.fold((0, 0, 0), |(n, sum, most), load| (n + 1, sum + load, most.max(load)));
        self.skews += if sum == 0 { 1.0 } else { (most * count) as f64 / sum as f64 };
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Event) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Event) -> Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}
