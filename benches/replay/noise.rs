//! What the harness itself adds: the roles without a proxy, beside the same policies simulated without sockets.

use std::fmt::Write as _;

use ingle_sim::trace::figures::Figures;
use ingle_sim::trace::{Calibration, Oracle, Outage, Outcome, Pinned, Policy, Simulation, Workload};

use super::displaced::Homes;
use super::options::{Options, Scenario};
use super::roles::{Kind, Setup};
use super::run::{Phase, Run};

/// A line for each role without a proxy.
pub(crate) fn of(options: &Options, scenario: Scenario, workloads: &[(Workload, Calibration)], runs: &[Run]) -> String {
    let mut text = String::new();
    for run in runs.iter().filter(|run| run.role.is_direct()) {
        let outcomes: Vec<Outcome> = options
            .seeds
            .iter()
            .zip(workloads)
            .flat_map(|(seed, (workload, _))| simulated(run.role.kind, options, scenario, *seed, workload))
            .collect();
        let (simulated, played) = (Figures::of(outcomes.iter()), run.figures(Phase::All));
        let _ = writeln!(
            text,
            "\n{}: TTFT mean {:.3} s, p99 {:.2} s, recomputed {:.3} over sockets; {:.3} s, {:.2} s, {:.3} in a simulation without.",
            run.role.name,
            played.first_token.mean,
            played.first_token.p99,
            played.recomputed(),
            simulated.first_token.mean,
            simulated.first_token.p99,
            simulated.recomputed(),
        );
    }
    text
}

fn simulated(kind: Kind, options: &Options, scenario: Scenario, seed: u64, workload: &Workload) -> Vec<Outcome> {
    let homes = Homes::new(options.backends, &Setup::hash_seed(seed));
    let policy: Box<dyn Policy> = match kind {
        Kind::DirectOracle => Box::new(Oracle),
        _ => Box::new(Pinned { order: move |session: &str| homes.order(session) }),
    };
    let outage = (scenario == Scenario::Failure).then(|| Outage::middle_third(workload));
    Simulation::new(workload, options.model(), options.backends, outage, seed).run(&mut [policy]).outcomes
}
