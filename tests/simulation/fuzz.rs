//! The simulation with its choices made by a fuzzer, so that they lead where it has not been.

use crate::rng::Rng;
use crate::world::World;

/// An input is choices, two bytes each: first those of the fleet, then those of what happens.
pub(crate) fn check(bytes: &[u8]) {
    let mut world = World::new(Rng::of(bytes));
    while !world.is_over() {
        world.step();
    }
    world.finish();
}
