//! One backend: who it is, how it is, what it has to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::health::{Health, Observation, State, Thresholds, Transition};
use super::signals::{LastSignals, Signals};

/// What outlives a change of the config: a backend's health, load and counts. Its name is its identity.
///
/// Weight and priority are not here: they belong to a pool's member, which a new config replaces.
#[derive(Debug)]
pub struct Backend {
    name: String,
    health: Mutex<Health>,
    /// A copy of the state in `health`, for the selection, which takes no lock.
    state: AtomicU8,
    /// Healthy and nothing held against it: a good response is no news and takes no lock.
    spotless: AtomicBool,
    draining: AtomicBool,
    in_flight: AtomicUsize,
    requests: AtomicU64,
    signals: LastSignals,
}

impl Backend {
    /// A backend of which nothing is known yet.
    #[must_use]
    pub fn new(name: &str, draining: bool) -> Backend {
        Backend {
            name: name.to_owned(),
            health: Mutex::default(),
            state: AtomicU8::new(State::Warming as u8),
            spotless: AtomicBool::new(false),
            draining: AtomicBool::new(draining),
            in_flight: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            signals: LastSignals::default(),
        }
    }

    /// The name, unique in its pool.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The current state of health.
    #[must_use]
    pub fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Ordering::Relaxed))]
    }

    /// Takes in one observation; see [`Health::observe`].
    pub fn observe(&self, seen: Observation, thresholds: Thresholds) -> Option<Transition> {
        if seen == Observation::TrafficOk && self.spotless.load(Ordering::Relaxed) {
            return None;
        }
        let mut health = self.health.lock();
        let transition = health.observe(seen, thresholds);
        self.state.store(health.state() as u8, Ordering::Relaxed);
        self.spotless.store(health.spotless(), Ordering::Relaxed);
        transition
    }

    /// Whether it takes requests: it serves and is not draining. The one predicate of selection.
    #[must_use]
    pub fn available(&self) -> bool {
        self.state().serves() && !self.draining()
    }

    /// Whether an operator took it out of rotation: what runs there finishes, nothing new begins.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Takes it out of rotation or puts it back.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Requests that are there now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests that were sent there, each attempt counted, since the start.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// What it said last of its own load; `None` if nothing is known.
    #[must_use]
    pub fn signals(&self) -> Option<Signals> {
        self.signals.get()
    }

    /// Keeps what it said of its own load. What is not known any more is `None` there.
    pub fn set_signals(&self, signals: Signals) {
        self.signals.set(signals);
    }

    /// Counts a request as being there until the guard drops.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }
}

/// A request on its backend. However it ends, cancelled too, the count ends with it.
#[derive(Debug)]
pub struct InFlight(Arc<Backend>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
