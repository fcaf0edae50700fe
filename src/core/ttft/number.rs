//! A number that one thread writes under a lock and all read without one.

use std::sync::atomic::{AtomicU64, Ordering};

/// An `f64` by its bits; 0 at first.
#[derive(Debug, Default)]
pub(super) struct Number(AtomicU64);

impl Number {
    pub(super) fn new(value: f64) -> Number {
        Number(AtomicU64::new(value.to_bits()))
    }

    pub(super) fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// A mean in which each older observation counts a little less.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ratio {
    over: f64,
    under: f64,
}

impl Ratio {
    /// Takes in an observation of `over` per `under`. `None` while all that was observed is per nothing.
    pub(super) fn observe(&mut self, decay: f64, over: f64, under: f64) -> Option<f64> {
        self.over = self.over * decay + over;
        self.under = self.under * decay + under;
        (self.under > 0.0).then(|| self.over / self.under)
    }
}
