//! A cell, played.

use ingle_sim::trace::figures::{Figures, Moves};
use ingle_sim::trace::{Displaced, Finished, Oracle, Outage, Phase, Policy, Simulation, Workload};

use crate::cells::{Cell, Kind};
use crate::gateway::{self, Gateway};

/// What came of a cell where one policy placed, of all seeds together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) all: Figures,
    /// While machine 0 was down.
    pub(crate) down: Figures,
    pub(crate) back: Figures,
    /// Turns that did not go where their session's turn before went, on average over the seeds.
    pub(crate) moves: f64,
    pub(crate) displaced: Displaced,
}

impl Run {
    /// Plays these workloads, each with its seed.
    pub(crate) fn of(kind: Kind, cell: &Cell, workloads: &[(u64, Workload)]) -> Run {
        let plays: Vec<(Finished, Option<Outage>)> = workloads
            .iter()
            .map(|(seed, workload)| {
                let outage = cell.outage.then(|| Outage::middle_third(workload));
                (play(kind, cell, workload, outage, *seed), outage)
            })
            .collect();
        let figures = |phase: Phase| {
            let turns = plays.iter().flat_map(|(run, outage)| run.outcomes.iter().map(move |turn| (turn, *outage)));
            Figures::of(turns.filter(|(turn, outage)| phase.has(turn, *outage)).map(|(turn, _)| turn))
        };
        let moves: usize = plays.iter().map(|(run, _)| Moves::of(run.outcomes.iter()).turns).sum();
        let displaced = plays.iter().zip(workloads).filter_map(|((run, outage), (_, workload))| {
            let homes = gateway::homes(cell, workload);
            Some(Displaced::of(&run.outcomes, (*outage)?, |session, _| homes[session]))
        });
        Run {
            all: figures(Phase::All),
            down: figures(Phase::Down),
            back: figures(Phase::Back),
            moves: moves as f64 / plays.len() as f64,
            displaced: displaced.fold(Displaced::default(), Displaced::plus),
        }
    }
}

fn play(kind: Kind, cell: &Cell, workload: &Workload, outage: Option<Outage>, seed: u64) -> Finished {
    let gateway = |_| match kind {
        Kind::Oracle => Box::new(Oracle) as Box<dyn Policy + '_>,
        _ => Box::new(Gateway::new(kind, cell)),
    };
    let mut gateways: Vec<_> = (0..cell.gateways).map(gateway).collect();
    let simulation = Simulation::new(workload, &cell.machines, outage, seed);
    let simulation = match cell.poll {
        Some(every) => simulation.polled(every),
        None => simulation,
    };
    simulation.run(&mut gateways)
}
