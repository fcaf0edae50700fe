//! When what happens.
//!
//! Each upgrade begins a new process, whose memory has its own history. So that one process is measured for as long as
//! there is, upgrades come in the first part of the warm-up and after the measured time, never in it: an upgrade in the
//! middle would hide a leak.

use std::time::{Duration, Instant};

use super::options::Options;

/// Times of one soak.
pub(crate) struct Phases {
    pub(crate) begun: Instant,
    /// The measured time.
    from: Instant,
    to: Instant,
    pub(crate) end: Instant,
    pub(crate) upgrades: Vec<Instant>,
}

impl Phases {
    pub(crate) fn new(options: &Options) -> Phases {
        let begun = Instant::now();
        let minutes = |minutes: f64| Duration::from_secs_f64(minutes * 60.0);
        let closing = minutes((options.minutes * 0.1).min(3.0));
        let (from, end) = (begun + minutes(options.warm_up), begun + minutes(options.minutes));
        let to = end - closing;
        let early = EARLY.map(|part| begun + minutes(options.warm_up * part));
        let late = LATE.map(|part| to + closing.mul_f64(part));
        Phases { begun, from, to, end, upgrades: early.into_iter().chain(late).collect() }
    }

    /// Whether this time is measured.
    pub(crate) fn measures(&self, at: Instant) -> bool {
        (self.from..self.to).contains(&at)
    }
}

/// Upgrades, as parts of the warm-up: the last process has time to warm up itself.
const EARLY: [f64; 3] = [0.05, 0.12, 0.2];
/// And as parts of what comes after the measured time.
const LATE: [f64; 2] = [0.1, 0.4];
