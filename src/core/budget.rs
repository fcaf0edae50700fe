//! The retry budget: a share of recent requests, so that retries never amplify an outage.

use parking_lot::Mutex;

use super::Millis;

/// Counts requests and retries of the last ten seconds.
///
/// Finagle introduced budgets of this form (`RetryBudget`, 2016): a fixed number of retries per request would multiply
/// the load of a pool that is failing because of its load.
#[derive(Debug)]
pub struct RetryBudget {
    share: f64,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    second: u64,
    requests: [u32; SECONDS],
    retries: [u32; SECONDS],
}

impl RetryBudget {
    /// A budget of `share` (0 to 1) of the requests of the last ten seconds, and at least [`FLOOR`] retries.
    #[must_use]
    pub fn new(share: f64) -> RetryBudget {
        RetryBudget { share, window: Mutex::default() }
    }

    /// Counts a request.
    pub fn request(&self, now: Millis) {
        let mut window = self.window.lock();
        let slot = window.advance(now);
        window.requests[slot] = window.requests[slot].saturating_add(1);
    }

    /// Takes one retry from the budget. False if there is none left.
    #[must_use]
    pub fn retry(&self, now: Millis) -> bool {
        let mut window = self.window.lock();
        let slot = window.advance(now);
        let allowed = (self.share * f64::from(sum(&window.requests))).max(f64::from(FLOOR));
        if f64::from(sum(&window.retries)) + 1.0 > allowed {
            return false;
        }
        window.retries[slot] = window.retries[slot].saturating_add(1);
        true
    }
}

impl Window {
    /// Empties the slots of seconds that have passed; returns the slot of this one.
    fn advance(&mut self, now: Millis) -> usize {
        let second = now / 1000;
        let passed = second.saturating_sub(self.second).min(SECONDS as u64);
        for back in 0..passed {
            let slot = slot(second - back);
            self.requests[slot] = 0;
            self.retries[slot] = 0;
        }
        self.second = self.second.max(second);
        slot(self.second)
    }
}

fn slot(second: u64) -> usize {
    usize::try_from(second % SECONDS as u64).unwrap_or_default()
}

fn sum(counts: &[u32]) -> u32 {
    counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
}

/// Retries that are always allowed in the window, so that a quiet gateway can retry at all.
pub const FLOOR: u32 = 10;
const SECONDS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(budget: &RetryBudget, now: Millis) -> usize {
        (0..1000).take_while(|_| budget.retry(now)).count()
    }

    #[test]
    fn a_quiet_gateway_has_the_floor() {
        assert_eq!(spend(&RetryBudget::new(0.2), 0), 10);
    }

    #[test]
    fn a_busy_gateway_has_its_share() {
        let budget = RetryBudget::new(0.2);
        (0..500).for_each(|i| budget.request(i * 10));
        assert_eq!(spend(&budget, 5000), 100);
    }

    #[test]
    fn what_is_ten_seconds_old_no_longer_counts() {
        let budget = RetryBudget::new(0.2);
        (0..500).for_each(|_| budget.request(500));
        assert_eq!(spend(&budget, 9_999), 100);
        assert_eq!(spend(&budget, 10_000), 0, "the requests are gone, the retries not yet");
        assert_eq!(spend(&budget, 19_999), 10);
    }

    #[test]
    fn a_clock_that_stands_or_leaps_is_harmless() {
        let budget = RetryBudget::new(1.0);
        budget.request(u64::MAX);
        assert!(budget.retry(0));
        assert!(budget.retry(u64::MAX));
    }
}
