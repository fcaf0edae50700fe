//! Percentiles of times, in bounded memory.

use std::time::Duration;

use serde::Serialize;

/// Values that are kept exactly; of more, an even sample is kept.
const CAPACITY: usize = 100_000;

/// Times, for percentiles. Exact up to 100,000 values, beyond that from a uniform sample (reservoir sampling,
/// algorithm R); mean, maximum and count are always exact.
#[derive(Clone, Debug)]
pub struct Samples {
    kept: Vec<Duration>,
    count: u64,
    sum: Duration,
    max: Duration,
    rng: fastrand::Rng,
}

/// What [`Samples`] say. Seconds; all 0 when there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Number of values.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest value.
    pub max: f64,
}

impl Samples {
    /// No values yet; the seed decides which values stay when there are too many.
    pub fn new(seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { kept: Vec::new(), count: 0, sum: Duration::ZERO, max: Duration::ZERO, rng }
    }

    /// Adds a value.
    pub fn add(&mut self, value: Duration) {
        self.count += 1;
        self.sum += value;
        self.max = self.max.max(value);
        if self.kept.len() < CAPACITY {
            self.kept.push(value);
        } else if let Ok(index) = usize::try_from(self.rng.u64(0..self.count))
            && let Some(slot) = self.kept.get_mut(index)
        {
            *slot = value;
        }
    }

    /// Mean and percentiles (nearest rank) of the values so far.
    pub fn summary(&self) -> Summary {
        if self.count == 0 {
            return Summary::default();
        }
        let mut sorted = self.kept.clone();
        sorted.sort_unstable();
        Summary {
            count: self.count,
            mean: self.sum.as_secs_f64() / self.count as f64,
            p50: rank(&sorted, 50).as_secs_f64(),
            p90: rank(&sorted, 90).as_secs_f64(),
            p99: rank(&sorted, 99).as_secs_f64(),
            max: self.max.as_secs_f64(),
        }
    }
}

/// Nearest rank: the smallest value that at least `percent` % of all values do not exceed.
fn rank(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut samples = Samples::new(1);
        (1..=200).rev().for_each(|i| samples.add(Duration::from_secs(i)));
        let expected = Summary { count: 200, mean: 100.5, p50: 100.0, p90: 180.0, p99: 198.0, max: 200.0 };
        assert_eq!(samples.summary(), expected);
        assert_eq!(Samples::new(1).summary(), Summary::default());
    }

    #[test]
    fn memory_is_bounded_and_the_sample_is_even() {
        let mut samples = Samples::new(1);
        (0..300_000).for_each(|i| samples.add(Duration::from_secs(i)));
        assert_eq!(samples.kept.len(), CAPACITY);
        let summary = samples.summary();
        assert_eq!((summary.count, summary.max), (300_000, 299_999.0));
        assert!((summary.p50 - 150_000.0).abs() < 3_000.0, "{summary:?}");
    }
}
