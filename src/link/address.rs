//! Where a backend listens: the addresses behind its host name.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::config::Origin;

/// The addresses of a host, resolved when the gateway starts and again when a connection fails.
pub struct Address {
    origin: Origin,
    /// What the name resolved to last; empty until it did.
    resolved: ArcSwap<Vec<SocketAddr>>,
    /// Which of them is in use: the next one after each failure.
    current: AtomicUsize,
    resolving: AtomicBool,
}

impl Address {
    /// The addresses of an origin. A literal address needs no resolver, and is there at once.
    #[must_use]
    pub fn new(origin: Origin) -> Address {
        let literal: Option<IpAddr> = origin.host.parse().ok();
        let resolved = literal.map(|ip| SocketAddr::new(ip, origin.port)).into_iter().collect();
        Address {
            origin,
            resolved: ArcSwap::new(Arc::new(resolved)),
            current: AtomicUsize::new(0),
            resolving: AtomicBool::new(false),
        }
    }

    /// The origin as configured.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The address to connect to. Asks the resolver only if there is none yet.
    ///
    /// # Errors
    ///
    /// If the name can't be resolved.
    pub async fn get(&self) -> io::Result<SocketAddr> {
        match self.current() {
            Some(address) => Ok(address),
            None => {
                self.resolve().await?;
                self.current().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
            }
        }
    }

    /// [`Address::get`], for no longer than `limit`: the resolver's own limits are many seconds.
    ///
    /// # Errors
    ///
    /// If the name can't be resolved in time.
    pub async fn get_within(&self, limit: Duration) -> io::Result<SocketAddr> {
        match self.current() {
            Some(address) => Ok(address),
            None => tokio::time::timeout(limit, self.get()).await.map_err(io::Error::from)?,
        }
    }

    /// Asks the resolver again. The old addresses stay if it fails or has none.
    ///
    /// # Errors
    ///
    /// The resolver's.
    pub async fn resolve(&self) -> io::Result<()> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host(self.origin.authority()).await?.collect();
        if !found.is_empty() && found != **self.resolved.load() {
            tracing::debug!(url = %self.origin, addresses = ?found, "resolved");
            self.resolved.store(Arc::new(found));
        }
        Ok(())
    }

    /// A connection to `address` failed: the next address of the name is tried, and the name resolved again, in the
    /// background and once at a time. Of many who report the same address, one moves on.
    pub fn failed(self: &Arc<Self>, address: Option<SocketAddr>) {
        let index = self.current.load(Ordering::Relaxed);
        if address.is_some() && self.current() == address {
            let next = index.wrapping_add(1);
            let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        if self.origin.host.parse::<IpAddr>().is_ok() || self.resolving.swap(true, Ordering::AcqRel) {
            return;
        }
        let address = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = address.resolve().await {
                tracing::warn!(url = %address.origin, %error, "can't resolve");
            }
            address.resolving.store(false, Ordering::Release);
        });
    }

    /// The address in use, if the name was resolved.
    #[must_use]
    pub fn current(&self) -> Option<SocketAddr> {
        let resolved = self.resolved.load();
        let index = self.current.load(Ordering::Relaxed).checked_rem(resolved.len())?;
        resolved.get(index).copied()
    }
}
