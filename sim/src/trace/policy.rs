//! Who decides which machine takes a turn, in a [`Simulation`](super::Simulation).

use super::machine::{Job, Machine};
use super::workload::Turn;

/// A turn that asks for a machine.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Number of the turn in its workload.
    pub index: usize,
    /// The turn.
    pub turn: &'a Turn,
    /// Its session's id.
    pub session: &'a str,
    /// The same as a machine sees it.
    pub job: &'a Job,
    /// The moment, in seconds.
    pub now: f64,
}

/// One gateway's way to choose. It is told what a gateway sees; only an oracle looks into the machines.
pub trait Policy {
    /// The machine that takes this turn: one that is `alive`.
    fn place(&mut self, ask: &Ask<'_>, machines: &[Machine], alive: &[bool]) -> usize;

    /// A turn that this gateway placed has its first token.
    fn first_token(&mut self, _index: usize, _machine: usize, _cached: u32, _now: f64) {}

    /// A turn that this gateway placed has ended.
    fn ended(&mut self, _index: usize, _machine: usize, _now: f64) {}

    /// A turn that this gateway placed was lost with its machine. It may be placed again.
    fn lost(&mut self, _index: usize, _machine: usize, _now: f64) {}

    /// A machine died, or is back.
    fn changed(&mut self, _machine: usize, _alive: bool, _now: f64) {}
}

/// The machine with the least expected time to the first token: knows all queues and caches. Greedy: it does not see
/// what its choice costs those who come after.
#[derive(Clone, Copy, Debug, Default)]
pub struct Oracle;

impl Policy for Oracle {
    fn place(&mut self, ask: &Ask<'_>, machines: &[Machine], alive: &[bool]) -> usize {
        let expected = |machine: usize| machines[machine].expected_first_token(ask.job, ask.now);
        let alive = (0..machines.len()).filter(|machine| alive[*machine]);
        alive.map(|machine| (machine, expected(machine))).min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |best| best.0)
    }
}

/// One machine after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin {
    next: usize,
}

impl Policy for RoundRobin {
    fn place(&mut self, _ask: &Ask<'_>, machines: &[Machine], alive: &[bool]) -> usize {
        let at = |step: usize| (self.next + step) % machines.len();
        let chosen = (0..machines.len()).map(at).find(|machine| alive[*machine]).unwrap_or(0);
        self.next = chosen + 1;
        chosen
    }
}

/// A fixed order of machines for each session, as a hash makes it; the first that is alive.
#[derive(Clone, Copy, Debug)]
pub struct Pinned<F> {
    /// The order for a session's id, best machine first.
    pub order: F,
}

impl<F: FnMut(&str) -> Vec<usize>> Policy for Pinned<F> {
    fn place(&mut self, ask: &Ask<'_>, _machines: &[Machine], alive: &[bool]) -> usize {
        (self.order)(ask.session).into_iter().find(|machine| alive[*machine]).unwrap_or(0)
    }
}
