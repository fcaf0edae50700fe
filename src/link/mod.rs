//! What the shell knows of one backend: where it is, what it has under way, what is counted of it.
//!
//! The core's [`Backend`] decides; a [`Link`] is the gateway's end of the wire to it. Both are kept, by name, when the
//! config changes.

mod address;
mod attempts;
mod headers;
mod idle;
mod lack;
mod queue;
mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::watch;

pub use address::Address;
pub use attempts::{Attempt, Attempts, Cut, Deadlines, Terms};
pub use headers::BackendHeaders;
pub use idle::{ConnectionOrigin, IdleConnections};
pub use lack::{is_lack, is_ours};
pub use queue::{Place, Queue, Seat, Waiter};
pub use words::{Limit, UNRESOLVED, describe, of_system};

use crate::config::{self, BackendHeader};
use crate::core::history::Load;
use crate::core::latency::{Histogram, Latencies, Quantiles};
use crate::core::{Affinity, Backend, Millis, State};
use crate::metrics::{BackendMetrics, Metrics};

/// The gateway's end of the wire to one backend.
pub struct Link {
    /// The backend as the core knows it.
    pub backend: Arc<Backend>,
    /// Where it listens.
    pub address: Arc<Address>,
    /// What is counted of it.
    pub metrics: BackendMetrics,
    /// The attempts in flight there.
    pub attempts: Arc<Attempts>,
    /// Connections that wait for a request.
    pub idle: IdleConnections,
    /// How often it began to serve; wakes who waits for that.
    pub returns: watch::Sender<u64>,
    /// What waits for room there.
    pub queue: Arc<Queue>,
    /// Its name, ready for `X-Ingle-Backend`.
    pub header: HeaderValue,
    /// What it wants as `Authorization`, in place of the clients' own; `None`: nothing.
    pub authorization: ArcSwapOption<HeaderValue>,
    /// What it gets with every request besides.
    pub headers: ArcSwap<BackendHeaders>,
    last_error: Mutex<Option<LastError>>,
    first_tokens: Mutex<Latencies>,
    load: Mutex<Load>,
    is_reachable: AtomicBool,
}

/// The last thing that went wrong with a backend.
#[derive(Clone, Debug)]
pub struct LastError {
    /// What happened, in words.
    pub what: String,
    /// When.
    pub at: SystemTime,
}

impl Link {
    /// A link to a backend that the config names.
    #[must_use]
    pub fn new(backend: Arc<Backend>, config: &config::Backend, pool: &str, metrics: &Metrics) -> Link {
        Link {
            address: Arc::new(Address::new(config.origin.clone())),
            metrics: metrics.backend(pool, &config.name),
            attempts: Arc::default(),
            idle: IdleConnections::default(),
            returns: watch::Sender::new(0),
            queue: Arc::default(),
            header: HeaderValue::from_str(&config.name).unwrap_or(HeaderValue::from_static("unnamed")),
            authorization: ArcSwapOption::empty(),
            headers: ArcSwap::from_pointee(BackendHeaders::new(&config.headers)),
            last_error: Mutex::default(),
            first_tokens: Mutex::default(),
            load: Mutex::default(),
            is_reachable: AtomicBool::new(true),
            backend,
        }
    }

    /// Takes over what another config says of its headers.
    pub fn set_headers(&self, headers: &[BackendHeader]) {
        if self.headers.load().fields != headers {
            self.headers.store(Arc::new(BackendHeaders::new(headers)));
        }
    }

    /// Notes what went wrong, for the status page and `/backends`.
    pub fn note_error(&self, what: String) {
        *self.last_error.lock() = Some(LastError { what, at: SystemTime::now() });
    }

    /// Notes how long a request waited for its first token.
    pub fn note_first_token(&self, affinity: Affinity, waited: Duration, now: Millis) {
        self.metrics.first_token(affinity, waited.as_secs_f64());
        self.first_tokens.lock().note(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX), now);
    }

    /// Notes how many requests are there now.
    pub fn note_load(&self, now: Millis) {
        self.load.lock().note(self.backend.in_flight(), now);
    }

    /// The most requests that were there at once, for each piece of the last quarter of an hour.
    #[must_use]
    pub fn load(&self, now: Millis) -> Vec<u32> {
        self.load.lock().points(now)
    }

    /// How long requests waited for their first token in the last five minutes.
    #[must_use]
    pub fn first_tokens(&self, now: Millis) -> Option<Quantiles> {
        self.first_tokens.lock().quantiles(now)
    }

    /// Adds how long its requests waited to those of others.
    pub fn add_first_tokens(&self, sum: &mut Histogram, now: Millis) {
        self.first_tokens.lock().add_to(sum, now);
    }

    /// Notes whether anything listens there, as the last probe has shown.
    pub fn set_reachable(&self, is_reachable: bool) {
        self.is_reachable.store(is_reachable, Ordering::Relaxed);
    }

    /// Whether it can be expected to serve some time after it does not now: it loads a model, or nothing listens there yet.
    /// A backend that answers probes with an error is no such one.
    #[must_use]
    pub fn may_come(&self) -> bool {
        let is_down = match self.backend.state() {
            State::Warming => true,
            State::Unhealthy => !self.is_reachable.load(Ordering::Relaxed),
            State::Healthy | State::Probation => false,
        };
        is_down && !self.backend.draining()
    }

    /// The last thing that went wrong.
    #[must_use]
    pub fn last_error(&self) -> Option<LastError> {
        self.last_error.lock().clone()
    }
}
