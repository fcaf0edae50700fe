//! What says how well affinity works.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::Families;
use crate::core::hints::{Hint, Move};

/// The families.
pub(super) struct WatchFamilies {
    moves: IntCounterVec,
    hints: IntGaugeVec,
}

impl WatchFamilies {
    pub(super) fn new(families: &Families) -> prometheus::Result<WatchFamilies> {
        Ok(WatchFamilies {
            moves: families.counter(
                "ingle_session_moves_total",
                "Turns that were not on the backend of their session's turn before, by why",
                &["pool", "reason"],
            )?,
            hints: families.gauge(
                "ingle_hint",
                "Whether something says that affinity does less than it could; the log says what to do",
                &["pool", "hint"],
            )?,
        })
    }

    /// The children of a pool.
    pub(super) fn pool(&self, pool: &str) -> WatchMetrics {
        WatchMetrics {
            moves: Move::ALL.map(|reason| self.moves.with_label_values(&[pool, reason.as_str()])),
            hints: Hint::ALL.map(|hint| self.hints.with_label_values(&[pool, hint.as_str()])),
        }
    }
}

/// What is counted and said of one pool's affinity.
pub struct WatchMetrics {
    moves: [IntCounter; Move::ALL.len()],
    hints: [IntGauge; Hint::ALL.len()],
}

impl WatchMetrics {
    /// Counts a session that moved.
    pub fn moved(&self, reason: Move) {
        self.moves[reason as usize].inc();
    }

    /// Says whether a hint holds.
    pub fn hint(&self, hint: Hint, holds: bool) {
        self.hints[hint as usize].set(i64::from(holds));
    }
}
