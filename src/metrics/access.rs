//! What is counted of those who hold API keys.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::Families;

/// What is counted of API keys and of their files.
#[derive(Clone)]
pub struct AccessMetrics {
    requests: IntCounterVec,
    in_flight: IntGaugeVec,
    /// Whose series there are.
    names: Arc<Mutex<HashSet<Arc<str>>>>,
    /// Requests without a key that anybody holds.
    unknown: [IntCounter; 2],
    /// Key files that changed and are in force.
    pub loaded: IntCounter,
    /// Key files that changed and can't be used.
    pub failed: IntCounter,
}

/// What is counted of one holder of keys.
#[derive(Clone)]
pub struct HolderMetrics {
    results: [IntCounter; 3],
    in_flight: IntGauge,
}

/// What became of a request whose key somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyResult {
    /// It was let in.
    Accepted,
    /// More requests than the holder may send in that time.
    Rate,
    /// More requests than the holder may have at once.
    InFlight,
}

impl AccessMetrics {
    pub(super) fn new(families: &Families) -> prometheus::Result<AccessMetrics> {
        let requests = families.counter(
            "ingle_key_requests_total",
            "Requests by the name of their API key, and what became of them; none: no key, or one that nobody holds",
            &["key", "result"],
        )?;
        let in_flight =
            families.gauge("ingle_key_in_flight_requests", "Requests of a holder of API keys now", &["key"])?;
        let reloads = families.counter("ingle_key_reloads_total", "Key files that changed", &["result"])?;
        in_flight.with_label_values(&[NOBODY]);
        Ok(AccessMetrics {
            unknown: ["no_key", "unknown_key"].map(|result| requests.with_label_values(&[NOBODY, result])),
            names: Arc::default(),
            loaded: reloads.with_label_values(&["ok"]),
            failed: reloads.with_label_values(&["error"]),
            requests,
            in_flight,
        })
    }

    /// What is counted of a holder.
    #[must_use]
    pub fn holder(&self, name: &str) -> HolderMetrics {
        HolderMetrics {
            results: KeyResult::ALL.map(|result| self.requests.with_label_values(&[name, result.as_str()])),
            in_flight: self.in_flight.with_label_values(&[name]),
        }
    }

    /// Ends the series of all who are not among `names`.
    pub fn keep(&self, names: HashSet<Arc<str>>) {
        let mut known = self.names.lock();
        for gone in known.difference(&names) {
            for result in KeyResult::ALL {
                // An error says that it is gone already.
                let _ = self.requests.remove_label_values(&[gone, result.as_str()]);
            }
            let _ = self.in_flight.remove_label_values(&[gone]);
        }
        *known = names;
    }

    /// Counts a request without a key.
    pub fn no_key(&self) {
        self.unknown[0].inc();
    }

    /// Counts a request with a key that nobody holds.
    pub fn unknown_key(&self) {
        self.unknown[1].inc();
    }
}

impl HolderMetrics {
    /// Counts a request.
    pub fn count(&self, result: KeyResult) {
        self.results[result as usize].inc();
    }

    /// A request begins.
    pub fn begin(&self) {
        self.in_flight.inc();
    }

    /// A request ends.
    pub fn end(&self) {
        self.in_flight.dec();
    }
}

impl KeyResult {
    const ALL: [KeyResult; 3] = [KeyResult::Accepted, KeyResult::Rate, KeyResult::InFlight];

    fn as_str(self) -> &'static str {
        match self {
            KeyResult::Accepted => "accepted",
            KeyResult::Rate => "rate",
            KeyResult::InFlight => "in_flight",
        }
    }
}

/// Who has no key.
const NOBODY: &str = "none";
