//! Who makes a large share of the traffic, in bounded memory.

use super::session::SessionKey;

/// Counts of the sessions with the most requests: the Space-Saving algorithm (Metwally, Agrawal, El Abbadi, 2005).
///
/// Of `n` requests noted, every session with more than `n / PLACES` of them is here, and no count is too high by more
/// than that. What is known for certain is the lower bound, so nobody is accused who did not do it.
#[derive(Clone, Debug, Default)]
pub struct Heavy(Vec<Place>);

#[derive(Clone, Copy, Debug)]
struct Place {
    key: SessionKey,
    /// At least as many as there were.
    count: u64,
    /// How many of them may have been others'.
    error: u64,
}

impl Heavy {
    /// Notes a request.
    pub fn note(&mut self, key: SessionKey) {
        if let Some(place) = self.0.iter_mut().find(|place| place.key == key) {
            place.count += 1;
        } else if self.0.len() < PLACES {
            self.0.push(Place { key, count: 1, error: 0 });
        } else if let Some(least) = self.0.iter_mut().min_by_key(|place| place.count) {
            *least = Place { key, count: least.count + 1, error: least.count };
        }
    }

    /// How many requests this session had at least.
    #[must_use]
    pub fn at_least(&self, key: SessionKey) -> u64 {
        self.0.iter().find(|place| place.key == key).map_or(0, |place| place.count - place.error)
    }

    /// The sessions that may have had so many requests or more; all that have are among them, if `least` is more than
    /// `n / PLACES`.
    pub fn above(&self, least: u64) -> impl Iterator<Item = SessionKey> {
        self.0.iter().filter(move |place| place.count >= least).map(|place| place.key)
    }
}

/// How many sessions have a count. A session with 30 % of the requests is known to have at least 27 %; to look for a
/// key among so few is quicker than to hash it.
pub const PLACES: usize = 32;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_are_never_too_high_and_too_low_by_little(keys in prop::collection::vec(0u64..300, 0..2000), hot in 0u64..5) {
            let (mut heavy, mut real) = (Heavy::default(), BTreeMap::<u64, u64>::new());
            let keys: Vec<u64> = keys.into_iter().map(|key| if key < 80 { hot } else { key }).collect();
            for key in &keys {
                heavy.note(SessionKey::from_bits(*key));
                *real.entry(*key).or_default() += 1;
            }
            let slack = (keys.len() / PLACES) as u64;
            for (key, real) in &real {
                let least = heavy.at_least(SessionKey::from_bits(*key));
                prop_assert!(least <= *real, "{key}: {least} of {real}");
                prop_assert!(least + slack >= *real, "{key}: {least} of {real}");
                let above = heavy.above(slack + 1).any(|above| above.bits() == *key);
                prop_assert!(above || *real <= slack, "{key} had {real} and is not there");
            }
            prop_assert!(heavy.0.len() <= PLACES);
        }
    }
}
