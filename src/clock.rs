//! The one clock of the process, and what keeps its periodic tasks from falling into step.

use std::hash::{BuildHasher, RandomState};

use rustix::time::{ClockId, clock_gettime};

use crate::core::Millis;

/// Monotonic time since the process began. The core gets its time from here, as an argument.
///
/// It is the kernel's coarse clock, which every chunk of a stream may read for a few nanoseconds. It lags by a tick of
/// the kernel at most (1 to 10 ms): enough for time limits; what is measured for the metrics takes an `Instant`.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Millis,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Clock {
        Clock { started: since_boot() }
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn now(self) -> Millis {
        since_boot().saturating_sub(self.started)
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

fn since_boot() -> Millis {
    let time = clock_gettime(CLOCK);
    let (seconds, nanos) = (Millis::try_from(time.tv_sec), Millis::try_from(time.tv_nsec));
    seconds.unwrap_or_default() * 1000 + nanos.unwrap_or_default() / 1_000_000
}

#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;
