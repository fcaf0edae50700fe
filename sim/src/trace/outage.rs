//! A backend that fails meanwhile.

use super::simulation::Outcome;
use super::workload::Workload;

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

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From its beginning to its end.
    All,
    /// While a machine is down.
    Down,
    /// From its return on.
    Back,
}

impl Phase {
    /// Whether a turn was sent in it. A run without an outage has one phase only.
    #[must_use]
    pub fn has(self, outcome: &Outcome, outage: Option<Outage>) -> bool {
        match (self, outage) {
            (Self::All, _) | (_, None) => true,
            (Self::Down, Some(outage)) => (outage.from..outage.to).contains(&outcome.sent),
            (Self::Back, Some(outage)) => outcome.sent >= outage.to,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Line;

    #[test]
    fn a_turn_is_in_the_phase_in_which_it_was_sent() {
        let line = Line { timestamp: 0, input_length: 512, output_length: 1, hash_ids: vec![0] };
        let workload = Workload::new(&[line], 1);
        let outage = Outage { machine: 0, from: 3.0, to: 6.0 };
        let phases = |sent: f64| {
            let outcome = Outcome::sent(0, &workload.turns[0], sent, None);
            [Phase::All, Phase::Down, Phase::Back].map(|phase| phase.has(&outcome, Some(outage)))
        };
        assert_eq!(phases(2.9), [true, false, false]);
        assert_eq!(phases(3.0), [true, true, false]);
        assert_eq!(phases(6.0), [true, false, true]);
    }
}
