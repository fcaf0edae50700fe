//! The one clock of the process.

use std::time::Instant;

use crate::core::Millis;

/// Monotonic time since the process began. The core gets its time from here, as an argument.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn now(self) -> Millis {
        Millis::try_from(self.0.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }
}
