//! Trials: how a backend comes back whose probes are good while its answers are not.

use super::super::Millis;
use super::seen::{Cause, Observation};

/// The trials of one backend: single requests that it gets, at growing intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trials {
    /// What the backend does wrong.
    pub suspicion: Suspicion,
    interval: Millis,
    due: Millis,
}

/// What a backend does wrong while its probes are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// It answers with errors.
    Errors,
    /// Its responses break off.
    Broken,
    /// It does not answer. It still serves: only requests without a cache there avoid it.
    Stalled,
}

impl Trials {
    /// Trials that start now; those `before` set how long the first interval is.
    pub(super) fn new(suspicion: Suspicion, before: Option<Trials>, now: Millis) -> Trials {
        let interval = before.map_or(FIRST_TRIAL, |before| before.interval);
        Trials { suspicion, interval, due: now.saturating_add(interval) }
    }

    /// When the next one can go.
    #[must_use]
    pub fn due(&self) -> Millis {
        self.due
    }

    /// One goes now.
    pub(super) fn start(&mut self, now: Millis) {
        self.interval = (2 * self.interval).min(MAX_TRIAL_INTERVAL);
        self.due = now.saturating_add(self.interval);
    }

    /// One was good: the next one can follow.
    pub(super) fn succeed(&mut self, now: Millis) {
        self.due = now;
    }

    /// The backend may be another process by now.
    pub(super) fn restart(&mut self, now: Millis) {
        *self = Trials::new(self.suspicion, None, now);
    }
}

impl Suspicion {
    /// The suspicion of a backend that turned unhealthy by this.
    pub(super) fn of(seen: Observation) -> Option<Suspicion> {
        match seen {
            Observation::TrafficError(_) | Observation::TrafficFailed(Cause::BadGateway) => Some(Suspicion::Errors),
            Observation::Broken => Some(Suspicion::Broken),
            _ => None,
        }
    }

    /// Whether this speaks against it.
    pub(super) fn is_refuted_by(self, seen: Observation) -> bool {
        match self {
            Suspicion::Errors | Suspicion::Stalled => seen == Observation::TrafficOk,
            Suspicion::Broken => seen == Observation::Completed,
        }
    }
}

/// The answers without a good one between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    /// How many.
    pub count: u32,
    first: u64,
    /// Whether they went to more than one session or client.
    is_common: bool,
}

impl Streak {
    /// One more error.
    pub(super) fn push(&mut self, origin: u64) {
        if self.count == 0 {
            self.first = origin;
        }
        self.is_common |= self.first != origin;
        self.count = self.count.saturating_add(1);
    }

    /// Whether it is the backend that fails, and not one request.
    pub(super) fn is_failure(self, threshold: u32) -> bool {
        self.count >= threshold && self.is_common
    }
}

/// The first trial follows after this.
pub const FIRST_TRIAL: Millis = 1000;
/// No interval between trials is longer.
pub const MAX_TRIAL_INTERVAL: Millis = 60_000;
