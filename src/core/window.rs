//! What happened in the last minutes, in buckets of time.

use super::Millis;

/// A ring of buckets, each of which has what happened in its piece of time. Bounded: it has as many as it began with.
///
/// It covers the piece of time that runs and the whole ones before it, so between `(buckets - 1) * grain` and
/// `buckets * grain` milliseconds. Time may stand still, but what comes late (a thread that had been held up) counts as
/// happening in the newest bucket: none is ever filled again.
#[derive(Clone, Debug)]
pub struct Window<T> {
    buckets: Box<[T]>,
    grain: Millis,
    /// The number of the newest bucket: its time divided by the grain.
    newest: u64,
}

impl<T: Default> Window<T> {
    /// An empty window of `buckets` (at least 1) pieces of `grain` milliseconds (at least 1) each.
    #[must_use]
    pub fn new(buckets: usize, grain: Millis) -> Window<T> {
        Window { buckets: (0..buckets.max(1)).map(|_| T::default()).collect(), grain: grain.max(1), newest: 0 }
    }

    /// The bucket of now. What the window has left behind is forgotten.
    pub fn at(&mut self, now: Millis) -> &mut T {
        let number = (now / self.grain).max(self.newest);
        let passed = (number - self.newest).min(self.len());
        for step in 0..passed {
            let place = self.place(number - step);
            self.buckets[place] = T::default();
        }
        self.newest = number;
        let place = self.place(number);
        &mut self.buckets[place]
    }

    /// The buckets that are in the window now, each with its age: 0 is the one that runs, `n` was over between `n - 1`
    /// and `n` grains ago.
    pub fn buckets(&self, now: Millis) -> impl Iterator<Item = (u64, &T)> {
        let number = (now / self.grain).max(self.newest);
        let oldest = (number + 1).saturating_sub(self.len());
        (oldest..=self.newest).rev().map(move |n| (number - n, &self.buckets[self.place(n)]))
    }

    fn len(&self) -> u64 {
        self.buckets.len() as u64
    }

    fn place(&self, number: u64) -> usize {
        usize::try_from(number % self.len()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(window: &Window<u64>, now: Millis) -> u64 {
        window.buckets(now).map(|(_, count)| count).sum()
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut window = Window::<u64>::new(3, 10);
        *window.at(5) += 1;
        *window.at(19) += 2;
        assert_eq!(window.buckets(29).map(|(age, count)| (age, *count)).collect::<Vec<_>>(), [(1, 2), (2, 1)]);
        assert_eq!((sum(&window, 30), sum(&window, 39), sum(&window, 40)), (2, 2, 0));
        *window.at(1_000_000) += 4;
        assert_eq!(sum(&window, 1_000_000), 4, "a long silence leaves nothing behind");
    }

    #[test]
    fn what_comes_late_counts_as_happening_now() {
        let mut window = Window::<u64>::new(3, 10);
        *window.at(50) += 1;
        *window.at(10) += 1;
        assert_eq!(window.buckets(10).map(|(age, count)| (age, *count)).next(), Some((0, 2)));
    }

    proptest! {
        #[test]
        fn it_has_what_a_list_of_all_events_would_have(
            len in 1usize..8, grain in 1u64..20, steps in prop::collection::vec(0u64..60, 0..80),
        ) {
            let (mut window, mut all, mut now) = (Window::<u64>::new(len, grain), Vec::new(), 0);
            for step in steps {
                now += step;
                *window.at(now) += 1;
                all.push(now / grain);
                let expected = all.iter().filter(|number| now / grain - **number < len as u64).count();
                prop_assert_eq!(sum(&window, now), expected as u64);
            }
        }
    }
}
