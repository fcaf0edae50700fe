#![no_main]
#![allow(dead_code, reason = "what only the seeded runs of the simulation use")]

#[path = "../../tests/simulation/checks.rs"]
mod checks;
#[path = "../../tests/simulation/fuzz.rs"]
mod fuzz;
#[path = "../../tests/simulation/known.rs"]
mod known;
#[path = "../../tests/simulation/model.rs"]
mod model;
#[path = "../../tests/simulation/rng.rs"]
mod rng;
#[path = "../../tests/simulation/truth.rs"]
mod truth;
#[path = "../../tests/simulation/world.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::check(bytes));
