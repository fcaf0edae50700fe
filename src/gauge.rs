//! How much of something is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bounded quantity of something that is in use now.
#[derive(Clone, Default)]
pub struct Gauge(Arc<AtomicUsize>);

/// A part of a [`Gauge`]'s quantity; it is given back when this drops.
pub struct Share {
    gauge: Gauge,
    quantity: usize,
}

impl Gauge {
    /// The quantity in use.
    #[must_use]
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes `quantity`, if no more than `max` is in use then.
    #[must_use]
    pub fn take(&self, quantity: usize, max: usize) -> Option<Share> {
        let before = self.0.fetch_add(quantity, Ordering::Relaxed);
        let share = Share { gauge: self.clone(), quantity };
        (before.saturating_add(quantity) <= max).then_some(share)
    }
}

impl Share {
    /// Takes `quantity` more, if no more than `max` is in use then.
    #[must_use]
    pub fn grow(&mut self, quantity: usize, max: usize) -> bool {
        let before = self.gauge.0.fetch_add(quantity, Ordering::Relaxed);
        self.quantity += quantity;
        before.saturating_add(quantity) <= max
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.gauge.0.fetch_sub(self.quantity, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_never_passes_its_bound_and_gives_everything_back() {
        let gauge = Gauge::default();
        let mut first = gauge.take(6, 10).unwrap();
        assert!(gauge.take(5, 10).is_none());
        assert_eq!(gauge.get(), 6, "what was refused is not in use");
        assert!(first.grow(4, 10));
        assert!(!first.grow(1, 10));
        drop(first);
        assert_eq!(gauge.get(), 0);
    }
}
