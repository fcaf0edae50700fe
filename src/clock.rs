//! The one clock of the process, and what keeps its periodic tasks from falling into step.

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use crate::core::Millis;

/// Monotonic time since the process began. The core gets its time from here, as an argument.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn now(self) -> Millis {
        Millis::try_from(self.0.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }
}

/// Spreads the rounds of periodic tasks: those that began together must not stay together.
#[derive(Clone, Debug, Default)]
pub struct Jitter(RandomState);

impl Jitter {
    /// What part of its interval a task pauses after a round: anything up to all of it after the first one, 0, then from
    /// 0.9 to 1.1.
    #[must_use]
    pub fn pause(&self, round: u64) -> f64 {
        let random = f64::from(u32::try_from(self.0.hash_one(round) >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        if round == 0 { random } else { 0.9 + 0.2 * random }
    }
}
