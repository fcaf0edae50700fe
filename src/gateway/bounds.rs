//! What the gateway itself may use: connections, descriptors, memory, and what one client may use of it.

use super::Gateway;
use crate::config::{Limits, memory};
use crate::core::clients::{ClientId, Guest};
use crate::gauge::Share;
use crate::metrics::Shed;
use crate::snapshot::Snapshot;

/// A client's connection that was let in; it is given back when this drops.
pub struct Open {
    _connection: Share,
    _tls: Option<Share>,
    _client: Option<Guest>,
}

impl Gateway {
    /// Lets a connection in, over TLS or not; `client` is whose it is, if that has a bound.
    ///
    /// # Errors
    ///
    /// Which bound it meets.
    pub fn connect(&self, client: Option<ClientId>, tls: bool) -> Result<Open, Shed> {
        let snapshot = self.snapshot.load();
        let limits = &snapshot.config.limits;
        let connection = self.connections.take(1, limits.max_connections).ok_or(Shed::Connections)?;
        let tls = tls.then(|| self.tls.take(1, usize::MAX)).flatten();
        if !self.has_descriptor(&snapshot) || self.connections.get() > most_connections(snapshot.descriptors) {
            return Err(Shed::Descriptors);
        }
        if !self.has_memory(limits) {
            return Err(Shed::Memory);
        }
        let guest = match (client, limits.per_client.max_connections) {
            (Some(client), Some(most)) => Some(self.clients.connect(client, most).ok_or(Shed::ClientConnections)?),
            _ => None,
        };
        Ok(Open { _connection: connection, _tls: tls, _client: guest })
    }

    /// Whether a request that is counted already may go on, as far as memory and descriptors are concerned.
    ///
    /// # Errors
    ///
    /// Which bound it meets.
    pub fn admit(&self, snapshot: &Snapshot) -> Result<(), Shed> {
        if !self.has_descriptor(snapshot) {
            return Err(Shed::Descriptors);
        }
        if self.has_memory(&snapshot.config.limits) { Ok(()) } else { Err(Shed::Memory) }
    }

    /// What is in use now, in bytes as `limits.memory` counts it. It is the sum of what is counted anyway, so to account
    /// for a request costs no more than to look.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.memory_parts().into_iter().fold(0, usize::saturating_add)
    }

    /// The parts of [`Gateway::memory`]: connections, TLS and HTTP/2 besides, requests, bodies.
    #[must_use]
    pub fn memory_parts(&self) -> [usize; 5] {
        [
            self.connections.get().saturating_mul(memory::OF_CONNECTION),
            self.tls.get().saturating_mul(memory::OF_TLS),
            self.http2.get().saturating_mul(memory::OF_HTTP2),
            self.served().saturating_mul(memory::OF_REQUEST),
            self.bodies.get(),
        ]
    }

    /// Whether there is a descriptor for whoever has come last and is counted already: a connection takes one, and a
    /// request another, towards its backend.
    fn has_descriptor(&self, snapshot: &Snapshot) -> bool {
        self.connections.get().saturating_add(self.served()) <= snapshot.descriptors
    }

    /// Requests under way, but for those that are only told that they go nowhere: they take hardly anything.
    fn served(&self) -> usize {
        self.requests.get().saturating_sub(self.refused.get())
    }

    /// Whether what is in use now, the caller's own part included, is no more than may be.
    #[must_use]
    pub fn has_memory(&self, limits: &Limits) -> bool {
        limits.memory.is_none_or(|most| self.memory() <= most)
    }
}

/// Most clients are silent most of the time, so there may be more connections than half of the descriptors; but idle ones
/// alone shall not leave too few for requests.
fn most_connections(descriptors: usize) -> usize {
    descriptors / 5 * 3
}

/// Says what an operator can do who wants more connections than the system allows; after a reload only if that is new.
pub(super) fn warn_of_descriptors(snapshot: &Snapshot, former: Option<&Snapshot>) {
    let wanted = |snapshot: &Snapshot| snapshot.config.limits.max_connections;
    let too_many = |snapshot: &Snapshot| wanted(snapshot) > snapshot.descriptors / 2;
    let is_new = former.is_none_or(|former| !too_many(former) || wanted(former) != wanted(snapshot));
    if too_many(snapshot) && is_new {
        tracing::warn!(
            "the limit of open files allows {} connections with a request, limits.max_connections {}: raise the limit \
             (LimitNOFILE=, ulimit -n), or lower limits.max_connections",
            snapshot.descriptors / 2,
            wanted(snapshot),
        );
    }
}
