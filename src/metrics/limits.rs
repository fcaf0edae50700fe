//! What is counted of the gateway's own bounds.

use prometheus::{IntCounter, IntGauge};

use super::families::Families;
use super::int;

/// Which bound a connection or a request met; the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// `limits.max_connections`.
    Connections,
    /// `limits.per_client.max_connections`.
    ClientConnections,
    /// `limits.per_client.requests`.
    ClientRequests,
    /// The process's limit of open files.
    Descriptors,
    /// `limits.memory`.
    Memory,
}

impl Shed {
    const ALL: [Shed; 5] =
        [Shed::Connections, Shed::ClientConnections, Shed::ClientRequests, Shed::Descriptors, Shed::Memory];

    /// The name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Shed::Connections => "connections",
            Shed::ClientConnections => "client_connections",
            Shed::ClientRequests => "client_requests",
            Shed::Descriptors => "descriptors",
            Shed::Memory => "memory",
        }
    }
}

/// What was turned away, and what is in use.
pub struct LimitMetrics {
    shed: [IntCounter; 5],
    /// Connections from addresses that a listener does not allow.
    pub address: IntCounter,
    /// Requests of admins without a key of theirs.
    pub admin_key: IntCounter,
    memory: [IntGauge; 5],
}

impl LimitMetrics {
    pub(super) fn new(families: &Families) -> prometheus::Result<LimitMetrics> {
        let shed = families.counter(
            "ingle_refused_total",
            "Connections and requests that were refused for a bound of the gateway's own, their address, or a key",
            &["reason"],
        )?;
        let memory = families.gauge(
            "ingle_memory_accounted_bytes",
            "What connections, requests and held bodies may take, as limits.memory counts it",
            &["of"],
        )?;
        Ok(LimitMetrics {
            shed: Shed::ALL.map(|reason| shed.with_label_values(&[reason.as_str()])),
            address: shed.with_label_values(&["address"]),
            admin_key: shed.with_label_values(&["admin_key"]),
            memory: ["connections", "tls", "http2", "requests", "bodies"].map(|part| memory.with_label_values(&[part])),
        })
    }

    /// Counts a connection or a request that was turned away.
    pub fn shed(&self, reason: Shed) {
        self.shed[reason as usize].inc();
    }

    /// What is accounted now, in bytes: for connections, for TLS and HTTP/2 besides, for requests, for bodies.
    pub fn memory(&self, parts: [usize; 5]) {
        self.memory.iter().zip(parts).for_each(|(gauge, bytes)| gauge.set(int(bytes)));
    }
}
