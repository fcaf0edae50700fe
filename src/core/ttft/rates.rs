//! What a pool learns: how fast prompts are read, and how long a cache keeps what it has seen.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::super::Millis;
use super::super::usage::Usage;
use super::waiting::Expected;

/// The learned rates of a pool, over all its backends.
///
/// One per pool; it outlives a change of the config. Writers take a lock; readers read atomics.
#[derive(Debug)]
pub struct Rates {
    sums: Mutex<Sums>,
    /// The bits of an `f64`; 0 while nothing is learned.
    bytes_per_ms: AtomicU64,
    /// Per log2 of the idle age: the share of what was seen that is still cached, the bits of an `f64`.
    held: [AtomicU64; AGES],
}

#[derive(Debug)]
struct Sums {
    bytes: f64,
    ms: f64,
    held: [(f64, f64); AGES],
}

/// A request got its first token.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstToken {
    pub(super) expected: Expected,
    /// Milliseconds since its dispatch, or since the first token before it, whichever was later.
    pub(super) took: Millis,
    /// Its backend reports cached tokens, so the time need not tell of them.
    pub(super) reported: bool,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates {
            sums: Mutex::new(Sums { bytes: 0.0, ms: 0.0, held: [(0.0, 0.0); AGES] }),
            bytes_per_ms: AtomicU64::new(0),
            held: std::array::from_fn(|_| AtomicU64::new(1f64.to_bits())),
        }
    }
}

impl Rates {
    /// Bytes of prompt that a backend reads in a millisecond; 0 while that is not known.
    #[must_use]
    pub fn bytes_per_ms(&self) -> f64 {
        f64::from_bits(self.bytes_per_ms.load(Ordering::Relaxed))
    }

    /// The share of what a backend saw `age` milliseconds ago that it probably still has, 0 to 1.
    #[must_use]
    pub fn held(&self, age: Millis) -> f64 {
        f64::from_bits(self.held[bucket(age)].load(Ordering::Relaxed))
    }

    pub(super) fn learn_first_token(&self, seen: FirstToken) {
        let expected = seen.expected;
        if expected.seen == 0 {
            let mut sums = self.sums.lock();
            sums.bytes = sums.bytes * RATE_DECAY + expected.bytes as f64;
            sums.ms = sums.ms * RATE_DECAY + seen.took as f64;
            if sums.ms > 0.0 {
                self.bytes_per_ms.store((sums.bytes / sums.ms).to_bits(), Ordering::Relaxed);
            }
        } else if !seen.reported && self.bytes_per_ms() > 0.0 {
            let read = seen.took as f64 * self.bytes_per_ms();
            self.learn_held(expected, expected.bytes as f64 - read);
        }
    }

    /// Takes in a backend's own figures. Only tokens are known there, so the share of the prompt stands for bytes.
    pub(super) fn learn_cached(&self, expected: Expected, usage: Usage) {
        if expected.seen > 0 && usage.prompt > 0 {
            self.learn_held(expected, usage.cached as f64 / usage.prompt as f64 * expected.bytes as f64);
        }
    }

    fn learn_held(&self, expected: Expected, cached: f64) {
        let seen = expected.seen as f64;
        let at = bucket(expected.age);
        let mut sums = self.sums.lock();
        let (held, of) = &mut sums.held[at];
        *held = *held * HELD_DECAY + cached.clamp(0.0, seen);
        *of = *of * HELD_DECAY + seen;
        let share = *held / *of;
        self.held[at].store(share.clamp(0.0, 1.0).to_bits(), Ordering::Relaxed);
    }
}

fn bucket(age: Millis) -> usize {
    (Millis::BITS - age.leading_zeros()).min(AGES as u32 - 1) as usize
}

/// Buckets of idle ages: the last one begins at 2^38 ms, some nine years.
const AGES: usize = 40;
/// How much an older observation of the speed counts; notes on policies, simulated.
const RATE_DECAY: f64 = 0.98;
/// How much an older observation of a cache counts.
const HELD_DECAY: f64 = 0.95;
