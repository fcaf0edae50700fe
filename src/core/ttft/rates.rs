//! What a pool learns: how fast prompts are read, and how long a cache keeps what it has seen.

use parking_lot::Mutex;

use super::super::Millis;
use super::super::usage::Tokens;
use super::number::{Number, Ratio};
use super::waiting::Expected;

/// The learned rates of a pool, over all its backends.
///
/// One per pool; it outlives a change of the config. Writers take a lock; readers read atomics. Whatever it has learned
/// is a ratio of sums, so it does not matter in what unit times are given, as long as it is always the same.
#[derive(Debug)]
pub struct Rates {
    sums: Mutex<Sums>,
    bytes_per_ms: Number,
    held: [Number; AGES],
    behind: Number,
    size: Number,
    answer: Number,
    whole: Number,
}

#[derive(Debug)]
struct Sums {
    bytes_per_ms: Ratio,
    held: [Ratio; AGES],
    behind: Ratio,
    size: Ratio,
    answer: Ratio,
    whole: Ratio,
}

/// A request got its first token.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstToken {
    pub(super) expected: Expected,
    /// Milliseconds since its dispatch, or since the first token before it, whichever was later.
    pub(super) took: Millis,
    /// Its backend reports cached tokens, so that the time need not tell of them.
    pub(super) reported: bool,
    /// How many still wait at its backend.
    pub(super) behind: usize,
    /// How many answers were under way there since the first token before it.
    pub(super) answering: usize,
    /// Milliseconds since the first token before it.
    pub(super) since: Millis,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates {
            sums: Mutex::new(Sums {
                bytes_per_ms: Ratio::default(),
                held: [Ratio::default(); AGES],
                behind: Ratio::default(),
                size: Ratio::default(),
                answer: Ratio::default(),
                whole: Ratio::default(),
            }),
            bytes_per_ms: Number::default(),
            held: std::array::from_fn(|_| Number::new(1.0)),
            behind: Number::default(),
            size: Number::default(),
            answer: Number::default(),
            whole: Number::default(),
        }
    }
}

impl Rates {
    /// Bytes of prompt that a backend of weight 1 reads in a millisecond; 0 while that is not known.
    #[must_use]
    pub fn bytes_per_ms(&self) -> f64 {
        self.bytes_per_ms.get()
    }

    /// The share of what a backend saw `age` milliseconds ago that it probably still has, 0 to 1. 1 while not known.
    #[must_use]
    pub fn held(&self, age: Millis) -> f64 {
        self.held[bucket(age)].get()
    }

    /// How many of this gateway's requests wait at a backend behind one that gets its first token, on average.
    #[must_use]
    pub fn behind(&self) -> f64 {
        self.behind.get()
    }

    /// The bytes to read of a request, on average.
    #[must_use]
    pub fn size(&self) -> f64 {
        self.size.get()
    }

    /// Milliseconds from a first token to the end of an answer, on average, by Little's law: the time that answers
    /// spend under way, by their number. 0 while that is not known.
    #[must_use]
    pub fn answer(&self) -> f64 {
        self.answer.get()
    }

    /// The share of answers that come in one piece, of which no first token is seen, 0 to 1.
    #[must_use]
    pub fn whole(&self) -> f64 {
        self.whole.get()
    }

    /// An answer came in one piece.
    pub(super) fn learn_whole(&self) {
        observe(&mut self.sums.lock().whole, &self.whole, 1.0, 1.0);
    }

    pub(super) fn learn_first_token(&self, seen: FirstToken) {
        let expected = seen.expected;
        let mut sums = self.sums.lock();
        observe(&mut sums.whole, &self.whole, 0.0, 1.0);
        observe(&mut sums.behind, &self.behind, seen.behind as f64, 1.0);
        observe(&mut sums.size, &self.size, expected.estimate as f64, 1.0);
        observe(&mut sums.answer, &self.answer, seen.answering as f64 * seen.since as f64, 1.0);
        if expected.seen == 0 {
            let ms = seen.took as f64 * f64::from(expected.weight);
            observe(&mut sums.bytes_per_ms, &self.bytes_per_ms, expected.bytes as f64, ms);
        } else if !seen.reported && self.bytes_per_ms() > 0.0 {
            let read = seen.took as f64 * f64::from(expected.weight) * self.bytes_per_ms();
            self.learn_held(&mut sums, expected, expected.bytes as f64 - read);
        }
    }

    /// Takes in a backend's own figures. Only tokens are known there, so the share of the prompt stands for bytes.
    pub(super) fn learn_cached(&self, expected: Expected, usage: Tokens) {
        if expected.seen > 0 && usage.prompt > 0 {
            let cached = usage.cached as f64 / usage.prompt as f64 * expected.bytes as f64;
            self.learn_held(&mut self.sums.lock(), expected, cached);
        }
    }

    fn learn_held(&self, sums: &mut Sums, expected: Expected, cached: f64) {
        let (at, seen) = (bucket(expected.age), expected.seen as f64);
        if let Some(share) = sums.held[at].observe(HELD_DECAY, cached.clamp(0.0, seen), seen) {
            self.held[at].set(share.clamp(0.0, 1.0));
        }
    }
}

fn observe(ratio: &mut Ratio, at: &Number, over: f64, under: f64) {
    if let Some(value) = ratio.observe(DECAY, over, under) {
        at.set(value);
    }
}

/// The bucket of an idle age: one per power of two.
fn bucket(age: Millis) -> usize {
    ((Millis::BITS - age.leading_zeros()) as usize).min(AGES - 1)
}

/// Buckets of idle ages. The last one begins at 2^38 ms, some nine years.
const AGES: usize = 40;
/// How much each older observation counts: the last fifty weigh as much as all before them (simulated: .9 is no better).
pub(super) const DECAY: f64 = 0.98;
/// The same for one age of the cache, which has fewer observations.
const HELD_DECAY: f64 = 0.95;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first_token(bytes: u64, took: Millis) -> FirstToken {
        let expected = Expected { bytes, seen: 0, age: 0, estimate: bytes, weight: 1 };
        FirstToken { expected, took, reported: true, behind: 0, answering: 0, since: 0 }
    }

    proptest! {
        /// Whatever it believed before, by whatever factor that was wrong.
        #[test]
        fn the_rate_is_soon_what_it_really_is(
            wrong in prop::sample::select(vec![4u64, 16, 64, 256]),
            sizes in prop::collection::vec(4_000u64..400_000, 250..300),
        ) {
            let rates = Rates::default();
            sizes[..50].iter().for_each(|bytes| rates.learn_first_token(first_token(*bytes, bytes / wrong)));
            prop_assert!((rates.bytes_per_ms() / wrong as f64 - 1.0).abs() < 0.01);
            sizes[50..].iter().for_each(|bytes| rates.learn_first_token(first_token(*bytes, bytes / 32)));
            prop_assert!((rates.bytes_per_ms() / 32.0 - 1.0).abs() < 0.15, "{}", rates.bytes_per_ms());
        }

        #[test]
        fn shares_stay_shares(figures in prop::collection::vec((1u64..1 << 40, 0u64..1 << 40, 0u64..1 << 45, any::<u64>()), 1..50)) {
            let rates = Rates::default();
            for (bytes, seen, took, age) in figures {
                let expected = Expected { bytes, seen: seen.min(bytes), age, estimate: bytes, weight: 1 };
                rates.learn_first_token(FirstToken { expected, reported: false, ..first_token(bytes, took) });
                rates.learn_cached(expected, Tokens { prompt: bytes, cached: seen.min(bytes) });
                prop_assert!((0.0..=1.0).contains(&rates.held(age)));
                prop_assert!(rates.bytes_per_ms() >= 0.0 && rates.bytes_per_ms().is_finite());
            }
        }
    }

    #[test]
    fn what_backends_report_is_learned_by_age() {
        let rates = Rates::default();
        let expected = |age| Expected { bytes: 10_000, seen: 8_000, age, estimate: 2_000, weight: 1 };
        for _ in 0..200 {
            rates.learn_cached(expected(1_000), Tokens { prompt: 2_500, cached: 2_000 });
            rates.learn_cached(expected(1_000_000), Tokens { prompt: 2_500, cached: 500 });
        }
        assert!((rates.held(1_000) - 1.0).abs() < 1e-9, "all of the 8,000 bytes seen are four fifths of the prompt");
        assert!((rates.held(1_000_000) - 0.25).abs() < 1e-9);
        assert!((rates.held(60_000) - 1.0).abs() < 1e-9, "of other ages nothing is known");
    }

    #[test]
    fn without_reports_the_time_tells_what_was_cached() {
        let rates = Rates::default();
        (0..100).for_each(|_| rates.learn_first_token(first_token(32_000, 1_000)));
        let expected = Expected { bytes: 32_000, seen: 32_000, age: 5_000, estimate: 0, weight: 1 };
        for _ in 0..200 {
            rates.learn_first_token(FirstToken { expected, reported: false, ..first_token(32_000, 500) });
        }
        assert!((rates.held(5_000) - 0.5).abs() < 0.01);
        rates.learn_first_token(FirstToken { expected, reported: true, ..first_token(32_000, 1_000) });
        assert!((rates.held(5_000) - 0.5).abs() < 0.01, "who reports is not judged by the time");
    }
}
