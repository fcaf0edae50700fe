//! What all parts of the shell share: the snapshot in force, the metrics, the clock, the bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use crate::access_log::AccessLog;
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::snapshot::Snapshot;

/// The running gateway, as its parts see it.
pub struct Gateway {
    /// The snapshot that new requests get.
    pub snapshot: ArcSwap<Snapshot>,
    /// Everything that is counted.
    pub metrics: Metrics,
    /// The clock.
    pub clock: Clock,
    /// Where requests are logged.
    pub access_log: AccessLog,
    /// Client connections that are open.
    pub connections: Gauge,
    /// Those of them that speak HTTP/2, whose last bytes leave after their requests have ended.
    pub http2: Gauge,
    /// Requests that are being served.
    pub requests: Gauge,
    /// Bytes of request bodies that are held for a retry.
    pub bodies: Gauge,
    probed: AtomicBool,
    stopping: AtomicBool,
}

impl Gateway {
    /// A gateway that nobody has connected to.
    ///
    /// # Errors
    ///
    /// If the metrics can't be registered.
    pub fn new(config: Config) -> prometheus::Result<Arc<Gateway>> {
        let metrics = Metrics::new()?;
        let access_log = AccessLog::new(config.access_log);
        let snapshot = ArcSwap::from_pointee(Snapshot::new(config, &metrics));
        Ok(Arc::new(Gateway {
            snapshot,
            metrics,
            clock: Clock::start(),
            access_log,
            connections: Gauge::default(),
            http2: Gauge::default(),
            requests: Gauge::default(),
            bodies: Gauge::default(),
            probed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }))
    }

    /// Whether the gateway wants traffic: the first round of probes is over, and nobody asked it to stop.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.probed.load(Ordering::Relaxed) && !self.stopping()
    }

    /// The first round of probes is over.
    pub fn set_probed(&self) {
        self.probed.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked the gateway to stop.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// From now on the gateway is not ready, and ends as soon as its last request has.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

/// A bounded quantity of something that is in use now.
#[derive(Clone, Default)]
pub struct Gauge(Arc<AtomicUsize>);

/// A part of a [`Gauge`]'s quantity; it is given back when this drops.
pub struct Share {
    gauge: Gauge,
    quantity: usize,
}

impl Gauge {
    /// The quantity in use.
    #[must_use]
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes `quantity`, if no more than `max` is in use then.
    #[must_use]
    pub fn take(&self, quantity: usize, max: usize) -> Option<Share> {
        let before = self.0.fetch_add(quantity, Ordering::Relaxed);
        let share = Share { gauge: self.clone(), quantity };
        (before.saturating_add(quantity) <= max).then_some(share)
    }
}

impl Share {
    /// Takes `quantity` more, if no more than `max` is in use then.
    #[must_use]
    pub fn grow(&mut self, quantity: usize, max: usize) -> bool {
        let before = self.gauge.0.fetch_add(quantity, Ordering::Relaxed);
        self.quantity += quantity;
        before.saturating_add(quantity) <= max
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.gauge.0.fetch_sub(self.quantity, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_never_passes_its_bound_and_gives_everything_back() {
        let gauge = Gauge::default();
        let mut first = gauge.take(6, 10).unwrap();
        assert!(gauge.take(5, 10).is_none());
        assert_eq!(gauge.get(), 6, "what was refused is not in use");
        assert!(first.grow(4, 10));
        assert!(!first.grow(1, 10));
        drop(first);
        assert_eq!(gauge.get(), 0);
    }
}
