//! What is counted of responses that started and did not come to their end.

use prometheus::{IntCounter, IntCounterVec};

use super::families::Families;

pub(super) struct BrokenFamily(IntCounterVec);

impl BrokenFamily {
    pub(super) fn new(families: &Families) -> prometheus::Result<BrokenFamily> {
        let help = "Responses that started and broke off, by what ended them; a client that leaves is none";
        families.counter("ingle_streams_broken_total", help, &["pool", "backend", "cause"]).map(BrokenFamily)
    }

    pub(super) fn backend(&self, pool: &str, backend: &str) -> BrokenMetrics {
        BrokenMetrics(BrokenCause::ALL.map(|cause| self.0.with_label_values(&[pool, backend, cause.as_str()])))
    }
}

/// Broken responses of one backend.
pub struct BrokenMetrics([IntCounter; BrokenCause::ALL.len()]);

impl BrokenMetrics {
    /// Counts one.
    pub fn count(&self, cause: BrokenCause) {
        self.0[cause as usize].inc();
    }

    /// How many there were.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().map(IntCounter::get).sum()
    }
}

/// What ended a response; the label `cause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenCause {
    /// The backend closed the connection, or sent an error where the stream could not be continued.
    Closed,
    /// The connection to the backend was reset or failed.
    Reset,
    /// The backend sent nothing for `timeouts.idle`, or turned unhealthy while the stream waited there.
    Idle,
    /// The request took longer than `timeouts.total`.
    Total,
    /// No output within `timeouts.first_byte` or `timeouts.first_token`, after the head had been sent.
    Limit,
    /// What the backend sent is malformed.
    Framing,
}

impl BrokenCause {
    /// All causes, in the order in which metrics list them.
    pub const ALL: [BrokenCause; 6] = [
        BrokenCause::Closed,
        BrokenCause::Reset,
        BrokenCause::Idle,
        BrokenCause::Total,
        BrokenCause::Limit,
        BrokenCause::Framing,
    ];

    /// The name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BrokenCause::Closed => "closed",
            BrokenCause::Reset => "reset",
            BrokenCause::Idle => "idle",
            BrokenCause::Total => "total",
            BrokenCause::Limit => "limit",
            BrokenCause::Framing => "framing",
        }
    }
}
