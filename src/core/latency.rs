//! Quantiles of how long something took in the last minutes.

use super::Millis;
use super::window::Window;

/// Durations of the last five minutes, in a fixed amount of memory (about 2 KiB).
#[derive(Clone, Debug)]
pub struct Latencies {
    window: Window<Histogram>,
}

/// The median and the 99th percentile, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantiles {
    /// Half took at most this.
    pub p50: Millis,
    /// 99 of 100 took at most this.
    pub p99: Millis,
}

/// Counts by duration: exact below 8 ms, then eight bins for each doubling, so that a bin is at most 12.5 % wide. The last
/// one has everything longer than `LONGEST`.
#[derive(Clone, Debug)]
pub struct Histogram([u32; BINS]);

impl Default for Histogram {
    fn default() -> Self {
        Histogram([0; BINS])
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies { window: Window::new(BUCKETS, GRAIN) }
    }
}

impl Latencies {
    /// Counts one.
    pub fn note(&mut self, took: Millis, now: Millis) {
        self.window.at(now).note(took);
    }

    /// The quantiles of those counted in the last five minutes, rounded up to the end of their bin. `None` if there are none.
    #[must_use]
    pub fn quantiles(&self, now: Millis) -> Option<Quantiles> {
        let mut sum = Histogram::default();
        self.add_to(&mut sum, now);
        sum.quantiles()
    }

    /// Adds those counted in the last five minutes.
    pub fn add_to(&self, sum: &mut Histogram, now: Millis) {
        self.window.buckets(now).for_each(|(_, histogram)| sum.add(histogram));
    }
}

impl Histogram {
    /// Counts one.
    pub fn note(&mut self, took: Millis) {
        let count = &mut self.0[bin(took)];
        *count = count.saturating_add(1);
    }

    /// The quantiles, rounded up to the end of their bin. `None` if nothing was counted.
    #[must_use]
    pub fn quantiles(&self) -> Option<Quantiles> {
        let all: u64 = self.0.iter().copied().map(u64::from).sum();
        let quantile = |percent: u64| {
            let rank = (all * percent).div_ceil(100).max(1);
            let mut below = 0;
            self.0.iter().position(|count| {
                below += u64::from(*count);
                below >= rank
            })
        };
        Some(Quantiles { p50: longest(quantile(50)?), p99: longest(quantile(99)?) })
    }

    fn add(&mut self, other: &Histogram) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum = sum.saturating_add(count));
    }
}

fn bin(took: Millis) -> usize {
    let took = took.min(LONGEST);
    // The three bits after the first one choose among the eight bins of a doubling.
    let doubling = took.checked_ilog2().unwrap_or_default().saturating_sub(3);
    usize::try_from(u64::from(doubling) * 8 + (took >> doubling)).unwrap_or(BINS - 1)
}

/// The longest duration in a bin.
fn longest(bin: usize) -> Millis {
    let bin = bin as u64;
    let doubling = (bin / 8).saturating_sub(1);
    ((bin - doubling * 8 + 1) << doubling) - 1
}

/// An hour and ten minutes, in milliseconds. No longer wait for a first token matters on a page.
const LONGEST: Millis = (1 << 22) - 1;
const BINS: usize = (22 - 3 + 1) * 8;
const BUCKETS: usize = 6;
const GRAIN: Millis = 60_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bins_follow_each_other_without_a_gap() {
        assert_eq!((bin(0), bin(7), bin(8), bin(15), bin(16), bin(17)), (0, 7, 8, 15, 16, 16));
        assert_eq!((bin(LONGEST), bin(Millis::MAX)), (BINS - 1, BINS - 1));
        for of in 0..BINS {
            assert_eq!((bin(longest(of)), bin(longest(of) + 1)), (of, (of + 1).min(BINS - 1)));
        }
    }

    #[test]
    fn old_durations_are_forgotten() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantiles(0), None);
        latencies.note(5, 0);
        latencies.note(900, 200_000);
        assert_eq!(latencies.quantiles(299_999), Some(Quantiles { p50: 5, p99: 959 }));
        assert_eq!(latencies.quantiles(400_000), Some(Quantiles { p50: 959, p99: 959 }));
        assert_eq!(latencies.quantiles(900_000), None);
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_a_sorted_list(mut all in prop::collection::vec(0_u64..5_000_000, 1..300)) {
            let mut latencies = Latencies::default();
            all.iter().for_each(|took| latencies.note(*took, 7));
            all.sort_unstable();
            let exact = |percent: usize| all[(all.len() * percent).div_ceil(100).max(1) - 1].min(LONGEST);
            let quantiles = latencies.quantiles(7).unwrap();
            for (is, exact) in [(quantiles.p50, exact(50)), (quantiles.p99, exact(99))] {
                prop_assert!(is >= exact && is <= exact + exact / 8, "{is} for {exact}");
            }
        }
    }
}
