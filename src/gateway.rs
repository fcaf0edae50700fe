//! What all parts of the shell share: the snapshot in force, the metrics, the clock, the bounds.

mod bounds;
mod idle;
mod orders;
mod past;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use arc_swap::ArcSwap;
use pingora::connectors::TransportConnector;
use tokio::sync::{Notify, watch};

pub use bounds::Open;
pub use idle::{ClientConnection, ClientConnections};
pub use orders::{Order, Orders};

use crate::access::{self, Access};
use crate::access_log::AccessLog;
use crate::certificates::{self, Certificates, connector_options};
use crate::clock::Clock;
use crate::config::Config;
use crate::core::clients::Clients;
use crate::gauge::Gauge;
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
    /// Who may come in.
    pub access: Access,
    /// The clock.
    pub clock: Clock,
    /// Where requests are logged.
    pub access_log: AccessLog,
    /// Client connections that are open.
    pub connections: Gauge,
    /// Those of them that speak HTTP/1.1.
    pub client_connections: ClientConnections,
    /// Connections to backends that wait for a request.
    pub idle_connections: Gauge,
    /// Those of them over TLS.
    pub tls: Gauge,
    /// Those of them that speak HTTP/2, whose last bytes leave after their requests have ended.
    pub http2: Gauge,
    /// Requests that are being served.
    pub requests: Gauge,
    /// Those of them that were refused for want of room, and are only being told so.
    pub refused: Gauge,
    /// Bytes of request bodies that are held for a retry.
    pub bodies: Gauge,
    /// Makes connections to backends.
    pub connector: TransportConnector,
    /// What each client uses, as far as that has a bound.
    pub clients: Clients,
    /// What an operator can ask of the running gateway.
    pub orders: Orders,
    /// The snapshots that were in force and still have requests.
    past: Past,
    reloaded: watch::Sender<()>,
    probed: AtomicBool,
    first_probes: Notify,
    leaving: AtomicU8,
}

/// What a config names in files, read and ready to be put in force with it.
pub struct Prepared {
    certificates: certificates::Prepared,
    access: access::Prepared,
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

impl Prepared {
    /// Reads what another config names. Takes file access; nothing changes yet.
    ///
    /// # Errors
    ///
    /// The first file that can't be used, and why.
    pub fn read(config: &Config) -> Result<Prepared, String> {
        Ok(Prepared { certificates: Certificates::prepare(config)?, access: Access::prepare(config)? })
    }
}

impl Gateway {
    /// A gateway that nobody has connected to.
    ///
    /// # Errors
    ///
    /// If the metrics can't be registered, or a certificate or a key file can't be used.
    pub fn new(config: Config) -> io::Result<Arc<Gateway>> {
        warn_of(&config);
        let metrics = Metrics::new().map_err(io::Error::other)?;
        let certificates = Certificates::new(&config, metrics.certificates.clone()).map_err(io::Error::other)?;
        let access = Access::new(&config, metrics.access.clone()).map_err(io::Error::other)?;
        let access_log = AccessLog::new(config.access_log);
        let snapshot = Snapshot::new(config, &metrics);
        access.begin(&snapshot);
        bounds::warn_of_descriptors(&snapshot, None);
        Ok(Arc::new(Gateway {
            snapshot: ArcSwap::from_pointee(snapshot),
            metrics,
            certificates,
            access,
            clock: Clock::start(),
            access_log,
            connections: Gauge::default(),
            client_connections: ClientConnections::default(),
            idle_connections: Gauge::default(),
            tls: Gauge::default(),
            http2: Gauge::default(),
            requests: Gauge::default(),
            refused: Gauge::default(),
            bodies: Gauge::default(),
            connector: TransportConnector::new(Some(connector_options())),
            clients: Clients::new(MOST_CLIENTS),
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
    pub fn reload(&self, config: Config, prepared: Prepared) {
        warn_of(&config);
        self.certificates.apply(prepared.certificates);
        self.access_log.set_format(config.access_log);
        let old = self.snapshot.load_full();
        let new = old.rebuild(config, &self.metrics, self.clock.now());
        bounds::warn_of_descriptors(&new, Some(&old));
        let changes = Arc::clone(&new.changes);
        self.access.apply(prepared.access, Arc::new(new), &self.snapshot);
        self.past.add(&old);
        // What waits for a backend looks at the new ones.
        changes.send_replace(());
        self.reloaded.send_replace(());
    }

    /// Looks whether certificates or keys have changed, and puts what is new and good in force. Takes file access.
    pub fn refresh(&self) {
        self.certificates.refresh();
        self.access.refresh(&self.snapshot);
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
        self.clients.sweep(now);
        self.client_connections.sweep(now);
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

/// Clients that are known by themselves while they use something: with their connections, 3 MiB.
const MOST_CLIENTS: usize = 65_536;
