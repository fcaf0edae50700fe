//! What is counted of the process's log.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::IntCounter;

use super::families::Families;
use crate::log;

pub(super) struct LogMetrics {
    dropped: IntCounter,
    /// What of the process's count is in `dropped`.
    seen: AtomicU64,
}

impl LogMetrics {
    pub(super) fn new(families: &Families) -> prometheus::Result<LogMetrics> {
        let dropped = families.counter(
            "ingle_log_lines_dropped_total",
            "Lines of the log and the access log that standard error did not take in time",
            &[],
        )?;
        Ok(LogMetrics { dropped: dropped.with_label_values::<&str>(&[]), seen: AtomicU64::new(0) })
    }

    /// Takes over what the log has counted.
    pub(super) fn read(&self) {
        let dropped = log::stderr().dropped();
        self.dropped.inc_by(dropped.saturating_sub(self.seen.fetch_max(dropped, Ordering::Relaxed)));
    }
}
