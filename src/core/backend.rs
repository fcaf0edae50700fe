//! One backend: who it is, how it is, what it has to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Millis;
use super::health::{Health, Observation, State, Thresholds, Transition};
use super::signals::{LastSignals, Signals};
use super::ttft::{Expected, Rates, Ticket, Waiting};
use super::usage::Usage;

/// What outlives a change of the config: a backend's health, load and counts. Its name is its identity.
///
/// Weight and priority are not here: they belong to a pool's member, which a new config replaces.
#[derive(Debug)]
pub struct Backend {
    id: BackendId,
    name: String,
    health: Mutex<Seen>,
    /// A copy of the state in `health`, for the selection, which takes no lock.
    state: AtomicU8,
    /// Healthy and nothing held against it: a good response is no news and takes no lock.
    spotless: AtomicBool,
    /// Whether what waits there can't be expected to be answered.
    is_lost: AtomicBool,
    /// When its next trial can go; [`NEVER`] if it has nothing to prove, or nothing is there to be tried.
    trial_due: AtomicU64,
    /// Errors of the server since the last good answer, and when the last of them came.
    errors: AtomicU32,
    erred_at: AtomicU64,
    /// Since when it serves, if it has to warm up from then on; else [`NEVER`].
    warms_since: AtomicU64,
    /// Since when it drains; [`NEVER`] if it does not.
    drains_since: AtomicU64,
    in_flight: AtomicUsize,
    /// Requests there that take no slot.
    queries: AtomicUsize,
    queued: AtomicUsize,
    requests: AtomicU64,
    /// Its requests without a first token. It also knows when the cache was lost.
    waiting: Arc<Waiting>,
    signals: LastSignals,
}

/// A backend's number, which no other backend of the pool or of the pools rebuilt from it has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackendId(pub u32);

/// What was seen of a backend.
#[derive(Debug)]
struct Seen {
    health: Health,
    /// It was there when the gateway began, and nothing but good was seen of it.
    always_well: bool,
}

impl Backend {
    /// A backend of which nothing is known yet, in a gateway that knows nothing yet either: if all that will be seen of
    /// it is good, then it was there before the gateway was, and is warm.
    #[must_use]
    pub fn new(id: BackendId, name: &str, draining: bool) -> Backend {
        Backend {
            id,
            name: name.to_owned(),
            health: Mutex::new(Seen { health: Health::default(), always_well: true }),
            state: AtomicU8::new(State::Warming as u8),
            spotless: AtomicBool::new(false),
            is_lost: AtomicBool::new(false),
            trial_due: AtomicU64::new(NEVER),
            errors: AtomicU32::new(0),
            erred_at: AtomicU64::new(0),
            warms_since: AtomicU64::new(NEVER),
            drains_since: AtomicU64::new(if draining { 0 } else { NEVER }),
            in_flight: AtomicUsize::new(0),
            queries: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            waiting: Arc::default(),
            signals: LastSignals::default(),
        }
    }

    /// A backend that joins others: it is cold when it begins to serve.
    #[must_use]
    pub fn joining(id: BackendId, name: &str, draining: bool) -> Backend {
        let backend = Backend::new(id, name, draining);
        backend.health.lock().always_well = false;
        backend
    }

    /// The number, unique among its pool's present and past backends.
    #[must_use]
    pub fn id(&self) -> BackendId {
        self.id
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
    pub fn observe(&self, seen: Observation, thresholds: Thresholds, now: Millis) -> Option<Transition> {
        let is_good = matches!(seen, Observation::TrafficOk | Observation::TrafficAnswered | Observation::Completed);
        if is_good && self.spotless.load(Ordering::Relaxed) {
            return None;
        }
        let mut health = self.health.lock();
        health.always_well &= is_good || seen == Observation::ProbeOk;
        let transition = health.health.observe(seen, thresholds, now);
        match transition.map(|transition| (transition.from.serves(), transition.to.serves())) {
            Some((false, true)) if !health.always_well => self.warms_since.store(now, Ordering::Relaxed),
            // Whatever is wrong, the next one who answers there may be another process, with an empty cache.
            Some((true, false)) => self.waiting.went_cold(now.max(1)),
            _ => {}
        }
        if matches!(seen, Observation::TrafficError(_)) {
            self.erred_at.store(now, Ordering::Relaxed);
        }
        self.publish(&health.health);
        transition
    }

    /// Copies what is read without a lock.
    fn publish(&self, health: &Health) {
        self.state.store(health.state() as u8, Ordering::Relaxed);
        self.spotless.store(health.spotless(), Ordering::Relaxed);
        self.is_lost.store(health.is_lost(), Ordering::Relaxed);
        self.trial_due.store(health.trials().map_or(NEVER, |trials| trials.due()), Ordering::Relaxed);
        self.errors.store(health.errors(), Ordering::Relaxed);
    }

    /// Whether it gets single requests to show whether it answers well; see [`Trials`](super::health::Trials). One that
    /// serves avoids only requests without a cache there.
    #[must_use]
    pub fn on_trial(&self) -> bool {
        self.trial_due.load(Ordering::Relaxed) != NEVER
    }

    /// Whether the next trial can go, and could `before` milliseconds ago.
    #[must_use]
    pub fn trial_due(&self, before: Millis, now: Millis) -> bool {
        let due = self.trial_due.load(Ordering::Relaxed);
        due != NEVER && now >= due.saturating_add(before)
    }

    /// See [`Health::start_trial`].
    fn start_trial(&self, now: Millis) {
        let mut health = self.health.lock();
        health.health.start_trial(now);
        self.publish(&health.health);
    }

    /// Whether what waits there can't be expected to be answered: it is unhealthy, and neither slow nor just answers badly.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// Errors of the server since its last good answer.
    #[must_use]
    pub fn errors(&self) -> u32 {
        self.errors.load(Ordering::Relaxed)
    }

    /// How many requests its recent errors count for where load is compared: who answers at once with an error has little
    /// to do, and must not win by that.
    #[must_use]
    pub fn error_load(&self, now: Millis) -> u32 {
        let errors = self.errors();
        if errors == 0 || now.saturating_sub(self.erred_at.load(Ordering::Relaxed)) >= ERROR_MEMORY {
            0
        } else {
            errors
        }
    }

    /// Whether it takes new sessions, as far as its health and the operator are concerned: it serves and is not draining.
    #[must_use]
    pub fn available(&self) -> bool {
        self.state().serves() && !self.draining()
    }

    /// Whether an operator takes it out of rotation.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.drains_since().is_some()
    }

    /// Since when it drains, if it does.
    #[must_use]
    pub fn drains_since(&self) -> Option<Millis> {
        Some(self.drains_since.load(Ordering::Relaxed)).filter(|since| *since != NEVER)
    }

    /// Takes it out of rotation or puts it back. Said twice, the first time counts.
    pub fn set_draining(&self, draining: bool, now: Millis) {
        if draining {
            // Whoever said it first has set the time already.
            let _ = self.drains_since.compare_exchange(NEVER, now, Ordering::Relaxed, Ordering::Relaxed);
        } else {
            self.drains_since.store(NEVER, Ordering::Relaxed);
        }
    }

    /// How much of its warming up is over, 0 to 1, if it takes `slow_start` milliseconds from when it recovered or joined.
    #[must_use]
    pub fn warmed(&self, slow_start: Millis, now: Millis) -> f64 {
        let since = self.warms_since.load(Ordering::Relaxed);
        let passed = now.saturating_sub(since);
        if since == NEVER || passed >= slow_start { 1.0 } else { passed as f64 / slow_start as f64 }
    }

    /// Whether what it saw at this time may still be in its cache: it has served without a break since.
    #[must_use]
    pub fn warm(&self, seen: Millis) -> bool {
        self.waiting.warm(seen)
    }

    /// Requests that are there now and take a slot.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests that the gateway holds until there is room for them there.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Whether a request is there or waits for room there.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.in_flight() > 0 || self.queued() > 0 || self.queries.load(Ordering::Relaxed) > 0
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

    /// How many requests it works on at once, if it has said so.
    #[must_use]
    pub fn slots(&self) -> Option<u32> {
        self.signals.slots()
    }

    /// Keeps what it said of its own load. What is not known any more is `None` there.
    pub fn set_signals(&self, signals: Signals) {
        self.signals.set(signals);
        self.waiting.note_load(signals.running.unwrap_or(0), signals.waiting.unwrap_or(0), self.in_flight());
    }

    /// Its requests that await a first token. Only `least_ttft` counts them.
    #[must_use]
    pub fn waiting(&self) -> &Arc<Waiting> {
        &self.waiting
    }

    /// Counts a request as being there until the guard drops.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        InFlight { backend: Arc::clone(self), takes_slot: true, ticket: None }
    }

    /// Counts a request that takes no slot as being there until the guard drops.
    #[must_use]
    pub fn enter_query(self: &Arc<Self>) -> InFlight {
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        InFlight { backend: Arc::clone(self), takes_slot: false, ticket: None }
    }

    /// [`Backend::enter`], for a trial.
    #[must_use]
    pub fn enter_trial(self: &Arc<Self>, now: Millis) -> InFlight {
        self.start_trial(now);
        self.enter()
    }

    /// Counts a request as waiting for room there until the guard drops.
    #[must_use]
    pub fn queue(self: &Arc<Self>) -> Queued {
        self.queued.fetch_add(1, Ordering::Relaxed);
        Queued(Arc::clone(self))
    }
}

/// A request on its backend. However it ends, cancelled too, the count ends with it.
#[derive(Debug)]
pub struct InFlight {
    backend: Arc<Backend>,
    takes_slot: bool,
    ticket: Option<Awaiting>,
}

/// A request that awaits its first token, or has awaited it.
#[derive(Debug)]
struct Awaiting {
    ticket: Ticket,
    rates: Arc<Rates>,
    /// So that each piece of a stream after the first one costs a glance.
    over: AtomicBool,
}

impl InFlight {
    /// The same, and awaiting its first token.
    pub(super) fn awaiting(mut self, expected: Expected, rates: &Arc<Rates>, now: Millis) -> InFlight {
        let ticket = self.backend.waiting.enter(expected, now);
        self.ticket = Some(Awaiting { ticket, rates: Arc::clone(rates), over: AtomicBool::new(false) });
        self
    }

    /// The first token of a stream came. Only the first call counts.
    pub fn first_token(&self, now: Millis) {
        if let Some(awaiting) = self.ticket.as_ref().filter(|awaiting| awaiting.ends()) {
            awaiting.ticket.first_token(&awaiting.rates, now);
        }
    }

    /// It awaits no first token any more, and how long it took says nothing: an error, or an answer in one piece. Only
    /// the first call counts.
    pub fn answered(&self) {
        if let Some(awaiting) = self.ticket.as_ref().filter(|awaiting| awaiting.ends()) {
            awaiting.ticket.answered();
        }
    }

    /// Learns from what the backend said of the prompt, at the end of its answer.
    pub fn learn(&self, usage: Usage) {
        if let Some(Awaiting { ticket, rates, .. }) = &self.ticket {
            ticket.usage(rates, usage);
        }
    }
}

impl Awaiting {
    /// Whether the wait ends with this call.
    fn ends(&self) -> bool {
        !self.over.load(Ordering::Relaxed) && !self.over.swap(true, Ordering::Relaxed)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let count = if self.takes_slot { &self.backend.in_flight } else { &self.backend.queries };
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that waits for room at a backend. However the wait ends, the count ends with it.
#[derive(Debug)]
pub struct Queued(Arc<Backend>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

const NEVER: u64 = u64::MAX;
/// How long an error answer counts as load.
const ERROR_MEMORY: Millis = 10_000;
