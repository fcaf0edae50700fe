//! How fast a trace must run for a wanted load.

use super::machine::Model;
use super::policy::{Oracle, Policy};
use super::simulation::Simulation;
use super::workload::Workload;

/// A workload at a load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// What arrival times must be multiplied by.
    pub scale: f64,
    /// The load that comes of it: see [`calibrate`].
    pub load: f64,
}

/// Finds the time scale at which the greedy [`Oracle`] keeps the machines busy with prefill for this share of the time
/// until the last arrival; or with answers, where slots are scarcer. The oracle recomputes some more when it is
/// busier, so it takes a few simulations.
#[must_use]
pub fn calibrate(workload: &Workload, model: Model, machines: usize, load: f64) -> Calibration {
    let mut found = Calibration { scale: 1.0, load: 0.0 };
    for _ in 0..ROUNDS {
        found.load = oracle_load(&workload.scaled(found.scale), model, machines);
        if (found.load / load - 1.0).abs() < CLOSE_ENOUGH {
            break;
        }
        found.scale *= found.load / load;
    }
    found
}

fn oracle_load(workload: &Workload, model: Model, machines: usize) -> f64 {
    let mut oracle: [Box<dyn Policy>; 1] = [Box::new(Oracle)];
    let finished = Simulation::new(workload, model, machines, None, 0).run(&mut oracle);
    let available = machines as f64 * workload.duration();
    let generated: f64 = workload.turns.iter().map(|turn| f64::from(turn.output)).sum();
    let slots = (finished.busy + generated / model.decode_rate) / model.slots.max(1) as f64;
    finished.busy.max(slots) / available
}

const ROUNDS: usize = 8;
const CLOSE_ENOUGH: f64 = 1e-3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Line;

    #[test]
    fn the_load_that_was_wanted_comes() {
        let line = |i: u64| Line {
            timestamp: i * 500,
            input_length: 4096,
            output_length: 50,
            hash_ids: (i * 8..i * 8 + 8).collect(),
        };
        let workload = Workload::new(&(0..600).map(line).collect::<Vec<_>>(), 1);
        // 600 prompts of 4,096 tokens are 307 s of prefill; two machines, 300 s: a load of 0.51 as it is.
        for load in [0.3, 0.9] {
            let found = calibrate(&workload, Model::default(), 2, load);
            assert!((found.load / load - 1.0).abs() < 0.01, "{found:?}");
            assert!((found.scale - 0.51 / load).abs() < 0.05, "{found:?}");
        }
    }
}
