//! One who sees all caches and queues: the bound, and what loads are calibrated with.

use crate::machine::{Machine, Model};
use crate::simulation::{Policy, Scene, play};
use crate::trace::Line;
use crate::workload::Workload;

/// Greedy: where this turn's first token comes soonest.
pub(crate) struct Oracle<'a> {
    pub(crate) lines: &'a [Line],
}

impl Policy for Oracle<'_> {
    fn place(&mut self, turn: usize, machines: &[Machine], now: f64) -> usize {
        let line = &self.lines[turn];
        let cost = |machine: &Machine| machine.backlog(now) + f64::from(machine.uncached(line)) / machine.model.prefill;
        let alive = machines.iter().enumerate().filter(|(_, machine)| machine.alive);
        alive.map(|(index, machine)| (index, cost(machine))).min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |best| best.0)
    }
}

/// The scale of arrival times at which the oracle keeps prefill, or slots if they are scarcer, busy for this share.
pub(crate) fn calibrate(workload: &Workload<'_>, machines: &[Model], load: f64) -> f64 {
    let slots: f64 = machines.iter().map(|model| model.slots as f64).sum();
    let decode: f64 = machines.iter().map(|model| model.slots as f64 * model.decode).sum();
    let answers: f64 = workload.lines.iter().map(|line| f64::from(line.output_length)).sum();
    let mut scale = 1.0;
    for _ in 0..4 {
        let scene = Scene { machines: machines.to_vec(), scale, outage: false, poll: None };
        let busy = play(workload, &scene, &mut Oracle { lines: workload.lines }).busy;
        let needed = (busy / machines.len() as f64).max(answers / decode + busy / slots);
        scale = needed / (load * workload.span());
    }
    scale
}
