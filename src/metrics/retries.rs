//! What is counted of attempts after the first one of a request.

use prometheus::{IntCounter, IntCounterVec};

use super::families::Families;
use crate::core::retry::RetryReason;

pub(super) struct RetryFamilies {
    retries: IntCounterVec,
    resumed: IntCounterVec,
}

impl RetryFamilies {
    pub(super) fn new(families: &Families) -> prometheus::Result<RetryFamilies> {
        Ok(RetryFamilies {
            retries: families.counter(
                "ingle_retries_total",
                "Attempts after the first of a request, by what made them necessary",
                &["pool", "reason"],
            )?,
            resumed: families.counter(
                "ingle_streams_resumed_total",
                "Attempts that continued a stream whose head was out",
                &["pool"],
            )?,
        })
    }

    pub(super) fn pool(&self, pool: &str) -> RetryMetrics {
        RetryMetrics {
            retries: RetryReason::ALL.map(|reason| self.retries.with_label_values(&[pool, reason.as_str()])),
            resumed: self.resumed.with_label_values(&[pool]),
        }
    }
}

/// What is counted of the retries of one pool.
pub struct RetryMetrics {
    retries: [IntCounter; 9],
    resumed: IntCounter,
}

impl RetryMetrics {
    /// Counts a retry.
    pub fn count(&self, reason: RetryReason) {
        self.retries[reason as usize].inc();
    }

    /// Counts an attempt that continued a stream whose head the client had.
    pub fn resumed(&self) {
        self.resumed.inc();
    }
}
