//! What is counted of overload: sessions that spill, and requests that wait for room.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec};

use super::families::Families;
use super::int;
use crate::core::pool::Member;
use crate::core::{Affinity, Backend, Pool, Reason};

/// How a wait for room ended; the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueExit {
    /// Where it waited.
    Served,
    /// Elsewhere: it had waited for long enough.
    Spilled,
    /// Its client left.
    Left,
    /// With 503: there was room nowhere.
    Refused,
}

impl QueueExit {
    const ALL: [QueueExit; 4] = [QueueExit::Served, QueueExit::Spilled, QueueExit::Left, QueueExit::Refused];

    fn as_str(self) -> &'static str {
        match self {
            QueueExit::Served => "served",
            QueueExit::Spilled => "spilled",
            QueueExit::Left => "left",
            QueueExit::Refused => "refused",
        }
    }
}

pub(super) struct OverloadFamilies {
    spills: IntCounterVec,
    queued: IntGaugeVec,
    exits: IntCounterVec,
    known: IntGaugeVec,
    held: IntGaugeVec,
    demand: IntGaugeVec,
}

impl OverloadFamilies {
    pub(super) fn new(families: &Families) -> prometheus::Result<OverloadFamilies> {
        Ok(OverloadFamilies {
            spills: families.counter(
                "ingle_spills_total",
                "Times that a session was sent elsewhere because its place was too busy, by why",
                &["pool", "reason"],
            )?,
            queued: families.gauge(
                "ingle_queued_requests",
                "Requests that the gateway holds until there is room for them",
                &["pool", "backend"],
            )?,
            exits: families.counter(
                "ingle_queue_exits_total",
                "Requests that waited for room, by how that ended",
                &["pool", "backend", "result"],
            )?,
            held: families.gauge(
                "ingle_held_requests",
                "Requests that wait until a backend can serve them (pools[].hold)",
                &["pool"],
            )?,
            demand: families.gauge(
                "ingle_demand_requests",
                "Requests in flight, those that wait for room, and those that wait for a backend",
                &["pool"],
            )?,
            known: families.gauge("ingle_known_sessions", "Sessions that were seen lately", &["pool"])?,
        })
    }

    pub(super) fn spills(&self, pool: &str) -> Spills {
        let spilled = |reason: &&Reason| reason.affinity() == Affinity::Spilled;
        let child = |reason: Reason| self.spills.with_label_values(&[pool, reason.as_str()]);
        Spills(Reason::ALL.iter().filter(spilled).map(|reason| (*reason, child(*reason))).collect())
    }

    pub(super) fn exits(&self, pool: &str, backend: &str) -> Exits {
        Exits(QueueExit::ALL.map(|exit| self.exits.with_label_values(&[pool, backend, exit.as_str()])))
    }

    pub(super) fn read(&self, pool_name: &str, pool: &Pool, held: usize) {
        let busy = |member: &Member| member.backend.in_flight() + member.backend.queued();
        self.held.with_label_values(&[pool_name]).set(int(held));
        self.demand.with_label_values(&[pool_name]).set(int(pool.members().iter().map(busy).sum::<usize>() + held));
        self.known.with_label_values(&[pool_name]).set(int(pool.sessions().len()));
    }

    pub(super) fn look_at(&self, pool: &str, backend: &Backend) {
        self.queued.with_label_values(&[pool, backend.name()]).set(int(backend.queued()));
    }
}

/// Spills of one pool, by reason.
pub(super) struct Spills(Vec<(Reason, IntCounter)>);

impl Spills {
    pub(super) fn count(&self, reason: Reason) {
        if let Some((_, counter)) = self.0.iter().find(|(counted, _)| *counted == reason) {
            counter.inc();
        }
    }
}

/// Ends of waits at one backend.
pub(super) struct Exits([IntCounter; 4]);

impl Exits {
    pub(super) fn count(&self, exit: QueueExit) {
        self.0[exit as usize].inc();
    }
}
