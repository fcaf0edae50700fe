//! How often something may happen: so many times a second, some of them at once.
//!
//! This is the generic cell rate algorithm in its form "virtual scheduling" (ITU-T I.371, annex A): of everything that
//! happened it keeps one number, when the next event would be due if all came evenly (the theoretical arrival time). Who
//! comes earlier than that by more than a tolerance is refused. It allows what a token bucket does, without a bucket to
//! fill, so its state is one atomic and nothing runs in the background.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Millis;

/// How often something may happen: a value, without the state of anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// From one event to the next, in nanoseconds: at least 1.
    interval: u64,
    /// How many intervals the theoretical arrival time is ahead of now once everything is used up, in nanoseconds.
    burst: u64,
}

/// What somebody has used of a rate. New ones have used nothing.
#[derive(Debug, Default)]
pub struct Limiter {
    /// The theoretical arrival time of the next event: nanoseconds of the caller's clock.
    due: AtomicU64,
}

impl Rate {
    /// `count` events in each `period`, of which `burst` may come at once. What is 0 counts as 1.
    ///
    /// An interval is rounded up to nanoseconds. So the rate is never exceeded, and missed by less than 0.1 % at a million a
    /// second, by less than one part in a million at a thousand.
    #[must_use]
    pub fn new(count: u32, period: Millis, burst: u32) -> Rate {
        let interval = nanos(period).div_ceil(count.max(1).into()).max(1);
        Rate { interval, burst: interval.saturating_mul(burst.max(1).into()) }
    }
}

impl Limiter {
    /// Whether an event may happen now; if so, it is counted. The rate may be another one at each call: a debt that this
    /// one could not have run into becomes the largest that it could.
    ///
    /// # Errors
    ///
    /// If it may not: after how many milliseconds the next one may. It is exact, unless others come in between.
    pub fn allow(&self, rate: Rate, now: Millis) -> Result<(), Millis> {
        let now = nanos(now);
        let empty = now.saturating_add(rate.burst);
        let mut seen = self.due.load(Ordering::Relaxed);
        loop {
            let of_another_rate = seen > empty.saturating_add(APART);
            let from = if of_another_rate { empty } else { seen.max(now) };
            let due = from.saturating_add(rate.interval);
            let allowed = due <= empty;
            let wait = due.saturating_sub(empty).div_ceil(NANOS);
            if !allowed && !of_another_rate {
                return Err(wait);
            }
            // Only this number tells of the events, so no other memory has to be in step with it.
            let new = if allowed { due } else { from };
            match self.due.compare_exchange_weak(seen, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) if allowed => return Ok(()),
                Ok(_) => return Err(wait),
                Err(other) => seen = other,
            }
        }
    }

    /// Whether nothing of what was used matters any more: a new one would say the same at any rate.
    #[must_use]
    pub fn rested(&self, now: Millis) -> bool {
        self.due.load(Ordering::Relaxed) <= nanos(now)
    }
}

fn nanos(time: Millis) -> u64 {
    time.saturating_mul(NANOS)
}

const NANOS: u64 = 1_000_000;
/// How far apart two threads' notions of now may be, in nanoseconds: one may have been put to sleep since it looked.
const APART: u64 = 1000 * NANOS;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Millis = 1000;

    fn allowed(limiter: &Limiter, rate: Rate, now: Millis) -> u32 {
        (0..).find(|_| limiter.allow(rate, now).is_err()).unwrap()
    }

    #[test]
    fn a_burst_at_once_then_one_for_each_interval() {
        let (limiter, rate) = (Limiter::default(), Rate::new(10, SECOND, 3));
        assert_eq!(allowed(&limiter, rate, 5000), 3);
        assert_eq!(limiter.allow(rate, 5000), Err(100));
        assert_eq!(limiter.allow(rate, 5099), Err(1));
        assert_eq!(allowed(&limiter, rate, 5100), 1);
        assert_eq!(allowed(&limiter, rate, 5350), 2, "half an interval is kept");
        assert_eq!(allowed(&limiter, rate, 5400), 1);
        assert_eq!(allowed(&limiter, rate, 999_000), 3, "no more than the burst is saved up");
    }

    #[test]
    fn a_thousand_a_second_are_a_thousand() {
        let (limiter, rate) = (Limiter::default(), Rate::new(1000, SECOND, 5));
        assert_eq!((0..10_000).map(|now| allowed(&limiter, rate, now)).sum::<u32>(), 5 + 9_999);
    }

    #[test]
    fn a_slow_clock_loses_nothing_that_the_burst_covers() {
        let (limiter, rate) = (Limiter::default(), Rate::new(1000, SECOND, 10));
        assert_eq!((0..1000).map(|tick| allowed(&limiter, rate, tick * 10)).sum::<u32>(), 10_000);
    }

    #[test]
    fn odd_rates_are_never_exceeded() {
        for count in [3, 7, 999, 999_999, 1_000_000] {
            let (limiter, rate) = (Limiter::default(), Rate::new(count, SECOND, count));
            allowed(&limiter, rate, 0);
            let later = allowed(&limiter, rate, SECOND);
            assert!(later <= count && f64::from(later) >= f64::from(count) * 0.999 - 1.0, "{later} of {count}");
        }
    }

    #[test]
    fn it_has_rested_when_everything_is_there_again() {
        let (limiter, rate) = (Limiter::default(), Rate::new(10, SECOND, 3));
        assert!(limiter.rested(0));
        allowed(&limiter, rate, 0);
        assert!(!limiter.rested(299));
        assert!(limiter.rested(300));
    }

    #[test]
    fn a_new_rate_counts_at_once() {
        let limiter = Limiter::default();
        let (slow, fast) = (Rate::new(1, 3600 * SECOND, 1), Rate::new(100, SECOND, 100));
        assert_eq!(limiter.allow(slow, 0), Ok(()));
        assert_eq!(limiter.allow(slow, 0), Err(3600 * SECOND));
        assert_eq!(limiter.allow(fast, 0), Err(10), "who has nothing left waits for the first of the new rate");
        assert_eq!(limiter.allow(fast, 10), Ok(()));
        assert_eq!(allowed(&limiter, slow, 10), 0, "and a debt stays one");
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing_away() {
        let (limiter, rate) = (Limiter::default(), Rate::new(10, SECOND, 3));
        assert_eq!(allowed(&limiter, rate, 1000), 3);
        assert_eq!(allowed(&limiter, rate, 0), 0);
        assert_eq!(allowed(&limiter, rate, 1100), 1);
        assert!(limiter.allow(rate, u64::MAX).is_ok());
    }

    #[test]
    fn threads_share_it_exactly() {
        let (limiter, rate) = (Arc::new(Limiter::default()), Rate::new(1, 3600 * SECOND, 1000));
        let count = |limiter: Arc<Limiter>| move || (0..1000).filter(|_| limiter.allow(rate, 0).is_ok()).count();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(count(Arc::clone(&limiter)))).collect();
        assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 1000);
    }

    proptest! {
        /// In any window: no more than the burst and what the rate gives meanwhile. And who waits as told is let in.
        #[test]
        fn no_window_has_more_than_it_may(
            count in 1_u32..5000,
            period in prop::sample::select(vec![SECOND, 60 * SECOND, 3600 * SECOND]),
            burst in 1_u32..50,
            steps in prop::collection::vec((0_u64..2000, 1_usize..20), 1..80),
        ) {
            let (limiter, rate) = (Limiter::default(), Rate::new(count, period, burst));
            let (mut now, mut events) = (0, Vec::new());
            for (pause, tries) in steps {
                now += pause;
                for _ in 0..tries {
                    match limiter.allow(rate, now) {
                        Ok(()) => events.push(now),
                        Err(wait) => {
                            prop_assert!(wait > 0);
                            prop_assert_eq!(limiter.allow(rate, now + wait - 1), Err(1));
                        }
                    }
                }
                if let Err(wait) = limiter.allow(rate, now) {
                    now += wait;
                    prop_assert_eq!(limiter.allow(rate, now), Ok(()));
                }
                events.push(now);
            }
            for (first, from) in events.iter().enumerate() {
                for (last, to) in events.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (to - from) * u64::from(count) / period;
                    prop_assert!((last - first + 1) as u64 <= most, "{} from {from} to {to}", last - first + 1);
                }
            }
        }

        /// Whatever the rates were: from a change on, no more than the new one's burst and what it gives.
        #[test]
        fn a_change_of_rate_owes_and_gives_nothing(
            rates in prop::collection::vec((1_u32..1000, 1_u32..100, 0_u64..5000), 1..10),
        ) {
            let (limiter, mut now) = (Limiter::default(), 0);
            for (count, burst, pause) in rates {
                let rate = Rate::new(count, SECOND, burst);
                match limiter.allow(rate, now) {
                    Ok(()) => prop_assert!(allowed(&limiter, rate, now) < burst),
                    Err(wait) => {
                        prop_assert!(wait <= SECOND + SECOND.div_ceil(count.into()), "{}", wait);
                        prop_assert_eq!(limiter.allow(rate, now + wait), Ok(()));
                        now += wait;
                    }
                }
                now += pause;
            }
        }
    }
}
