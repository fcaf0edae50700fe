//! What all parts of the shell share: the snapshot in force, the metrics, the clock, the bounds.

mod orders;
mod past;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

pub use orders::{Order, Orders};

use crate::access_log::AccessLog;
use crate::certificates::{Certificates, Prepared};
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::snapshot::Snapshot;
use past::Past;

/// The running gateway, as its parts see it.
pub struct Gateway {
    /// The snapshot that new requests get.
    pub snapshot: ArcSwap<Snapshot>,
    /// Everything that is counted.
    pub metrics: Metrics,
    /// The certificates in force.
    pub certificates: Certificates,
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
    /// What an operator can ask of the running gateway.
    pub orders: Orders,
    /// The snapshots that were in force and still have requests.
    past: Past,
    reloaded: watch::Sender<()>,
    probed: AtomicBool,
    first_probes: Notify,
    leaving: AtomicU8,
}

/// Why a gateway takes nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Leaving {
    /// Somebody asked it to stop.
    Stopping = 1,
    /// Another process serves in its place.
    Replaced,
}

impl Gateway {
    /// A gateway that nobody has connected to.
    ///
    /// # Errors
    ///
    /// If the metrics can't be registered, or a certificate can't be used.
    pub fn new(config: Config) -> io::Result<Arc<Gateway>> {
        warn_of(&config);
        let metrics = Metrics::new().map_err(io::Error::other)?;
        let certificates = Certificates::new(&config, metrics.certificates.clone()).map_err(io::Error::other)?;
        let access_log = AccessLog::new(config.access_log);
        let snapshot = ArcSwap::from_pointee(Snapshot::new(config, &metrics));
        Ok(Arc::new(Gateway {
            snapshot,
            metrics,
            certificates,
            clock: Clock::start(),
            access_log,
            connections: Gauge::default(),
            http2: Gauge::default(),
            requests: Gauge::default(),
            bodies: Gauge::default(),
            orders: Orders::default(),
            past: Past::default(),
            reloaded: watch::Sender::new(()),
            probed: AtomicBool::new(false),
            first_probes: Notify::new(),
            leaving: AtomicU8::new(0),
        }))
    }

    /// Puts another config in force, for all requests that begin from now on, and its certificates, for all
    /// connections. What both configs name keeps its state.
    pub fn reload(&self, config: Config, certificates: Prepared) {
        warn_of(&config);
        self.certificates.apply(certificates);
        self.access_log.set_format(config.access_log);
        let old = self.snapshot.load_full();
        self.snapshot.store(Arc::new(old.rebuild(config, &self.metrics, self.clock.now())));
        self.past.add(&old);
        self.reloaded.send_replace(());
    }

    /// Tells of each config that comes into force from now on.
    #[must_use]
    pub fn reloads(&self) -> watch::Receiver<()> {
        self.reloaded.subscribe()
    }

    /// The snapshots that are no longer in force and still have requests.
    #[must_use]
    pub fn past(&self) -> Vec<Arc<Snapshot>> {
        self.past.alive()
    }

    /// Ends what is over its time, whatever snapshot it began with, and the series of backends that are gone.
    pub fn sweep(&self) {
        let (now, snapshot) = (self.clock.now(), self.snapshot.load_full());
        snapshot.sweep(now);
        for past in self.past() {
            past.cut(now);
        }
        self.past.forget(&snapshot, &self.metrics);
    }

    /// Whether the gateway, or who serves in its place, wants traffic: the first round of probes is over, and nobody
    /// asked it to stop.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.probed() && self.leaving.load(Ordering::Relaxed) != Leaving::Stopping as u8
    }

    /// Whether the first round of probes is over.
    #[must_use]
    pub fn probed(&self) -> bool {
        self.probed.load(Ordering::Relaxed)
    }

    /// The first round of probes is over.
    pub fn set_probed(&self) {
        self.probed.store(true, Ordering::Relaxed);
        self.first_probes.notify_waiters();
    }

    /// Waits until the first round of probes is over.
    pub async fn until_probed(&self) {
        let told = self.first_probes.notified();
        if !self.probed() {
            told.await;
        }
    }

    /// Whether the gateway takes nothing new and ends as soon as its last request has.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) != 0
    }

    /// From now on the gateway is about to end.
    pub fn leave(&self, why: Leaving) {
        self.leaving.store(why as u8, Ordering::Relaxed);
    }
}

/// Tells what is allowed and yet perhaps not meant.
fn warn_of(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("config: {warning}");
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
