//! When a request has waited for its first output for so long that its backend is taken to hang.

use super::Millis;

/// Whether a request that has waited this long is stalled, where half of the requests of its pool waited at most `median`.
/// While that is not known, nothing is.
#[must_use]
pub fn is_stalled(waited: Millis, median: Option<Millis>) -> bool {
    waited > STALLED_AFTER && median.is_some_and(|median| waited > median.saturating_mul(TIMES_MEDIAN))
}

/// No request is stalled before this.
pub const STALLED_AFTER: Millis = 2000;
/// A prompt can be several times as long as most.
const TIMES_MEDIAN: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stall_is_far_beyond_the_median() {
        for (waited, median, stalled) in [
            (2000, Some(10), false),
            (2001, Some(10), true),
            (3000, Some(300), false),
            (3001, Some(300), true),
            (100_000, None, false),
            (Millis::MAX, Some(Millis::MAX), false),
        ] {
            assert_eq!(is_stalled(waited, median), stalled, "{waited} {median:?}");
        }
    }
}
