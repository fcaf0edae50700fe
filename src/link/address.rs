//! Where a backend listens: the addresses behind its host name.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::words::of_system;
use crate::config::{self, Origin};

/// The addresses of a host, resolved when the gateway starts and again when a connection fails.
///
/// One of them is used: several of one family are several servers as a rule, and so several caches under one name. An IPv4
/// and an IPv6 address are alternatives.
pub struct Address {
    origin: Origin,
    /// What the name resolved to last; empty until it did.
    resolved: ArcSwap<Vec<SocketAddr>>,
    /// Which of them is in use: the next one after each failure.
    current: AtomicUsize,
    resolving: AtomicBool,
}

impl Address {
    /// The addresses of an origin. A literal address or a Unix socket needs no resolver, and is there at once.
    #[must_use]
    pub fn new(origin: Origin) -> Address {
        let resolved = fixed(&origin).into_iter().collect();
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
            None => tokio::time::timeout(limit, self.get()).await.map_err(|_| {
                let why = format!("the resolver did not answer within {}", config::duration(limit));
                io::Error::new(io::ErrorKind::TimedOut, why)
            })?,
        }
    }

    /// Asks the resolver again. The old addresses stay if it fails or has none.
    ///
    /// # Errors
    ///
    /// The resolver's.
    pub async fn resolve(&self) -> io::Result<()> {
        let found = arranged(tokio::net::lookup_host(self.origin.authority()).await?.collect());
        if found.is_empty() || found == **self.resolved.load() {
            return Ok(());
        }
        tracing::debug!(url = %self.origin, addresses = ?found, "resolved");
        // What is in use stays in use.
        let used = self.current().and_then(|used| found.iter().position(|address| *address == used));
        self.resolved.store(Arc::new(found));
        self.current.store(used.unwrap_or_default(), Ordering::Relaxed);
        if let Some(warning) = self.warning() {
            tracing::warn!(url = %self.origin, "{warning}");
        }
        Ok(())
    }

    /// What an operator should know of the addresses, if there is something.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let (used, resolved) = (self.current()?, self.resolved.load());
        let count = |is_ipv6: bool| resolved.iter().filter(|address| address.is_ipv6() == is_ipv6).count();
        let most = count(false).max(count(true));
        let host = &self.origin.host;
        let advice = "list each one as a backend of its own";
        (most > 1).then(|| format!("{host} has {most} addresses, and only {} is used: {advice}", used.ip()))
    }

    /// A connection to `address` failed: the next address of the name is tried, and the name resolved again, in the
    /// background and once at a time. Of many who report the same address, one moves on.
    pub fn failed(self: &Arc<Self>, address: Option<SocketAddr>) {
        let index = self.current.load(Ordering::Relaxed);
        if address.is_some() && self.current() == address {
            let next = index.wrapping_add(1);
            let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        if fixed(&self.origin).is_some() || self.resolving.swap(true, Ordering::AcqRel) {
            return;
        }
        let address = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = address.resolve().await {
                tracing::warn!(url = %address.origin, error = of_system(&error), "the name cannot be resolved");
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

/// In an order that does not depend on that of an answer, so that all gateways use the same address; but the family that
/// the resolver prefers comes first.
fn arranged(mut found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let prefers_ipv6 = found.first().is_some_and(SocketAddr::is_ipv6);
    found.sort_unstable_by_key(|address| (address.is_ipv6() != prefers_ipv6, *address));
    found.dedup();
    found
}

/// The address of an origin that needs no resolver. A Unix socket has none, so one that nothing can have stands for it;
/// [`Certificates::peer`](crate::certificates::Certificates::peer) takes the path instead.
fn fixed(origin: &Origin) -> Option<SocketAddr> {
    match &origin.socket {
        Some(_) => Some(SocketAddr::from(([0, 0, 0, 0], 0))),
        None => Some(SocketAddr::new(origin.host.parse().ok()?, origin.port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(written: &[&str]) -> Vec<SocketAddr> {
        written.iter().map(|address| address.parse().unwrap()).collect()
    }

    fn named(written: &[&str]) -> Address {
        let address = Address::new(Origin { tls: false, host: "llm.internal".to_owned(), port: 80, socket: None });
        address.resolved.store(Arc::new(arranged(addresses(written))));
        address
    }

    #[test]
    fn order_of_an_answer_does_not_matter() {
        for written in [["10.0.0.9:80", "[::1]:80", "10.0.0.2:80"], ["10.0.0.2:80", "10.0.0.9:80", "[::1]:80"]] {
            assert_eq!(arranged(addresses(&written)), addresses(&["10.0.0.2:80", "10.0.0.9:80", "[::1]:80"]));
        }
        let preferred = ["[::2]:80", "10.0.0.2:80", "[::1]:80", "10.0.0.2:80"];
        assert_eq!(arranged(addresses(&preferred)), addresses(&["[::1]:80", "[::2]:80", "10.0.0.2:80"]));
    }

    #[test]
    fn several_addresses_of_a_family_are_a_warning() {
        let several = "llm.internal has 2 addresses, and only 10.0.0.2 is used: list each one as a backend of its own";
        assert_eq!(named(&["10.0.0.9:80", "10.0.0.2:80", "[::1]:80"]).warning().as_deref(), Some(several));
        for fine in [&["10.0.0.9:80"][..], &["[::1]:80", "10.0.0.9:80"], &[]] {
            assert_eq!(named(fine).warning(), None, "{fine:?}");
        }
    }

    #[test]
    fn failed_address_gives_way_to_the_next() {
        let address = named(&["10.0.0.9:80", "10.0.0.2:80"]);
        assert_eq!(address.current(), Some(addresses(&["10.0.0.2:80"])[0]));
        address.current.fetch_add(1, Ordering::Relaxed);
        assert_eq!(address.current(), Some(addresses(&["10.0.0.9:80"])[0]));
    }
}
