//! A seeded simulation of faults and recoveries, checked against a simple model at every step.
//!
//! Fleets of 2 to 64 backends load, die, freeze, come back, fill up, are drained, reweighted, removed and added, while
//! sessions take turns and wait for room, sidecars call without a session, and probes look. Time is virtual. After every selection a model that
//! knows nothing of the pool's code says what had to come out ([`model`]); [`world`] makes things happen;
//! [`checks`] are the promises that hold whatever happens.
//!
//! - `INGLE_SIM_SEED`: replays a run; a failure prints it. Without it the seed is fixed, so CI is too.
//! - `INGLE_SIM_STEPS`: how many steps, 300,000 if not set.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, its helpers too")]

#[path = "simulation/checks.rs"]
mod checks;
#[path = "fuzz/corpus.rs"]
mod corpus;
#[path = "simulation/fuzz.rs"]
mod fuzz;
#[path = "simulation/known.rs"]
mod known;
#[path = "simulation/model.rs"]
mod model;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/truth.rs"]
mod truth;
#[path = "simulation/world.rs"]
mod world;

use rng::Rng;
use world::World;

const STEPS_PER_FLEET: u64 = 2000;

#[test]
fn faults_and_recoveries() {
    let seed = from_environment("INGLE_SIM_SEED", 2);
    let steps = from_environment("INGLE_SIM_STEPS", 300_000);
    let mut seeds = Rng::new(seed);
    let mut totals = checks::Totals::default();
    for fleet in 0..steps.div_ceil(STEPS_PER_FLEET) {
        let steps_here = STEPS_PER_FLEET.min(steps - fleet * STEPS_PER_FLEET);
        let mut world = World::new(seeds.fork());
        for step in 0..steps_here {
            let _where = Where { seed, fleet, step };
            world.step();
        }
        let _where = Where { seed, fleet, step: steps_here };
        totals.add(&world.finish());
    }
    println!("seed {seed}, {steps} steps: {totals:?}");
    // A simulation in which nothing happens would pass as well: each outcome must have come up.
    if steps >= 100_000 {
        totals.assert_everything_happened();
    }
}

/// Two runs of one seed are the same run: otherwise a printed seed would be worth nothing.
#[test]
fn a_seed_replays() {
    let run = || {
        let mut world = World::new(Rng::new(77));
        (0..5000).for_each(|_| world.step());
        world.finish()
    };
    assert_eq!(run(), run());
}

/// The inputs of `fuzz/corpus/pool`, and some made of them: `make fuzz` looks for more (docs/fuzzing.md).
#[test]
fn what_a_fuzzer_chose_agrees_with_the_model() {
    corpus::replay("pool", 1000, fuzz::check);
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Says where a run failed, so that it can be replayed.
struct Where {
    seed: u64,
    fleet: u64,
    step: u64,
}

impl Drop for Where {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Where { seed, fleet, step } = self;
            println!("FAILED in fleet {fleet} at step {step}; replay it with INGLE_SIM_SEED={seed}");
        }
    }
}
