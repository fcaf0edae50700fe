//! The sessions that are known: where each was last, how long its prompt was there, and when.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

use super::Millis;
use super::backend::BackendId;
use super::session::SessionKey;

/// A bounded table of known sessions. Whoever was active least recently leaves first.
///
/// It is cut into parts with a lock each, so that requests that end at once do not wait for each other. A part has its
/// share of the bound and its own order of leaving; a table of fewer than [`SMALL`] sessions is one part.
#[derive(Debug)]
pub struct Sessions {
    parts: Vec<Mutex<Part>>,
    len: AtomicUsize,
    away: AtomicUsize,
    max: usize,
}

type Part = LruCache<SessionKey, Known, ahash::RandomState>;

/// What is known of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The last place first; a session that has been at one place only has nobody in the second.
    places: [Place; 2],
    /// Turns that were answered, at most [`u32::MAX`].
    pub turns: u32,
    /// Whether its last turn was away from home.
    pub away: bool,
}

/// A backend that has seen a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The backend.
    pub backend: BackendId,
    /// The length of the session's last prompt there, at most [`u32::MAX`].
    pub bytes: u32,
    /// When the session was last active there.
    pub seen: Millis,
}

/// One answered turn of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// 1 is the first that was seen.
    pub number: u32,
    /// Where the turn before was, if that was elsewhere.
    pub from: Option<Place>,
}

impl Sessions {
    /// A table of at most `max` sessions, at least 1.
    #[must_use]
    pub fn new(max: usize) -> Sessions {
        let max = max.max(1);
        let parts = if max < SMALL { 1 } else { PARTS };
        let part = |index: usize| {
            let share = max / parts + usize::from(index < max % parts);
            let mut part = LruCache::unbounded_with_hasher(ahash::RandomState::new());
            // Resized rather than created with the bound: creation would allocate all of it.
            part.resize(NonZeroUsize::new(share).unwrap_or(NonZeroUsize::MIN));
            Mutex::new(part)
        };
        Sessions { parts: (0..parts).map(part).collect(), len: AtomicUsize::new(0), away: AtomicUsize::new(0), max }
    }

    /// The table for another bound: this one if the bound is the same, else a new one with what fits of it.
    #[must_use]
    pub fn resized(self: &Arc<Self>, max: usize) -> Arc<Sessions> {
        if max.max(1) == self.max {
            return Arc::clone(self);
        }
        let new = Sessions::new(max);
        for part in &self.parts {
            for (key, known) in part.lock().iter().rev() {
                new.put(*key, *known);
            }
        }
        Arc::new(new)
    }

    /// How many sessions are known, those included that have gone idle and were not dropped yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether no session is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of them were away from home at their last turn.
    #[must_use]
    pub fn away(&self) -> usize {
        self.away.load(Ordering::Relaxed)
    }

    /// What is known of a session. Asking is not being active.
    #[must_use]
    pub fn get(&self, key: SessionKey) -> Option<Known> {
        if self.is_empty() { None } else { self.part(key).lock().peek(&key).copied() }
    }

    /// Notes that a turn with a prompt of `bytes` is answered by `at`, and says which turn it is.
    pub fn landed(&self, key: SessionKey, at: BackendId, bytes: u64, away: bool, now: Millis) -> Turn {
        let place = Place { backend: at, bytes: u32::try_from(bytes).unwrap_or(u32::MAX), seen: now };
        let mut part = self.part(key).lock();
        match part.get_mut(&key) {
            Some(known) => {
                self.count_away(known.away, away);
                let before = known.last();
                known.turn(place, away);
                Turn { number: known.turns, from: Some(before).filter(|before| before.backend != at) }
            }
            None => {
                self.insert(&mut part, key, Known { places: [place, NOWHERE], turns: 1, away });
                Turn { number: 1, from: None }
            }
        }
    }

    /// Notes that a session was active until now, if `at` is still where it was last.
    pub fn active(&self, key: SessionKey, at: BackendId, now: Millis) {
        let mut part = self.part(key).lock();
        if part.peek(&key).is_some_and(|known| known.places[0].backend == at)
            && let Some(known) = part.get_mut(&key)
        {
            known.places[0].seen = now;
        }
    }

    /// Drops sessions that have been silent for `ttl` milliseconds; of very many, some at a time.
    pub fn expire(&self, ttl: Millis, now: Millis) {
        for part in &self.parts {
            let mut part = part.lock();
            for _ in 0..DROPPED_AT_ONCE {
                if part.peek_lru().is_none_or(|(_, known)| now.saturating_sub(known.last().seen) < ttl) {
                    break;
                }
                if let Some((_, known)) = part.pop_lru() {
                    self.len.fetch_sub(1, Ordering::Relaxed);
                    self.count_away(known.away, false);
                }
            }
        }
    }

    /// Calls `each` with what is known of every session that was active less than `ttl` milliseconds ago. It walks the
    /// table, and no request lands in a part meanwhile: not for every request.
    pub fn each_active(&self, ttl: Millis, now: Millis, mut each: impl FnMut(&Known)) {
        for part in &self.parts {
            let part = part.lock();
            // The most recent first, so the first idle one ends it.
            let active = part.iter().map(|(_, known)| known);
            active.take_while(|known| now.saturating_sub(known.last().seen) < ttl).for_each(&mut each);
        }
    }

    fn put(&self, key: SessionKey, known: Known) {
        self.insert(&mut self.part(key).lock(), key, known);
    }

    /// Takes in a session that is not in the part; whoever was active least recently makes room.
    fn insert(&self, part: &mut Part, key: SessionKey, known: Known) {
        self.count_away(false, known.away);
        match part.push(key, known) {
            Some((_, gone)) => self.count_away(gone.away, false),
            None => drop(self.len.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn count_away(&self, before: bool, after: bool) {
        match (before, after) {
            (false, true) => drop(self.away.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.away.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    fn part(&self, key: SessionKey) -> &Mutex<Part> {
        // The high bits of the product depend on all bits of the key.
        let high = key.bits().wrapping_mul(GOLDEN) >> 32;
        &self.parts[high as usize % self.parts.len()]
    }
}

impl Known {
    /// Where it was last.
    #[must_use]
    pub fn last(&self) -> Place {
        self.places[0]
    }

    /// What a backend has seen of it, if it is one of its last two places.
    #[must_use]
    pub fn at(&self, backend: BackendId) -> Option<Place> {
        self.places.into_iter().find(|place| place.backend == backend)
    }

    fn turn(&mut self, place: Place, away: bool) {
        if self.places[0].backend != place.backend {
            self.places[1] = self.places[0];
        }
        self.places[0] = place;
        self.turns = self.turns.saturating_add(1);
        self.away = away;
    }
}

/// A table of fewer sessions is not cut into parts: the longest silent of all leaves first.
pub const SMALL: usize = 1024;
const PARTS: usize = 16;
/// Sessions that one call to [`Sessions::expire`] drops from a part: less than a millisecond's work.
const DROPPED_AT_ONCE: usize = 4096;
/// No backend's number.
const NOWHERE: Place = Place { backend: BackendId(u32::MAX), bytes: 0, seen: 0 };
/// 2^64 over the golden ratio, odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: BackendId = BackendId(0);
    const B: BackendId = BackendId(1);
    const C: BackendId = BackendId(2);

    fn key(bits: u64) -> SessionKey {
        SessionKey::from_bits(bits)
    }

    #[test]
    fn the_last_two_places_are_known() {
        let sessions = Sessions::new(10);
        sessions.landed(key(1), A, 100, false, 1);
        sessions.landed(key(1), B, 200, true, 2);
        sessions.landed(key(1), B, 300, true, 3);
        let known = sessions.get(key(1)).unwrap();
        assert_eq!((known.last().backend, known.turns, known.away), (B, 3, true));
        assert_eq!(known.at(A), Some(Place { backend: A, bytes: 100, seen: 1 }));
        assert_eq!(known.at(B), Some(Place { backend: B, bytes: 300, seen: 3 }));
        sessions.landed(key(1), C, 1, true, 4);
        assert_eq!(sessions.get(key(1)).unwrap().at(A), None);
    }

    #[test]
    fn an_answer_that_ends_keeps_its_session_active_unless_it_has_moved_on() {
        let sessions = Sessions::new(10);
        sessions.landed(key(1), A, 1, false, 1);
        sessions.active(key(1), A, 5);
        assert_eq!(sessions.get(key(1)).unwrap().last().seen, 5);
        sessions.landed(key(1), B, 1, false, 6);
        sessions.active(key(1), A, 7);
        assert_eq!(sessions.get(key(1)).unwrap().at(A).map(|place| place.seen), Some(5));
        sessions.active(key(2), A, 7);
        assert_eq!(sessions.get(key(2)), None);
    }

    #[test]
    fn whoever_is_silent_for_long_leaves() {
        let sessions = Sessions::new(10_000);
        (0..1000).for_each(|n| _ = sessions.landed(key(n), A, 1, n % 2 == 0, n));
        sessions.active(key(0), A, 1000);
        sessions.expire(500, 1000);
        assert_eq!((sessions.len(), sessions.away()), (500, 250));
        assert!(sessions.get(key(0)).is_some() && sessions.get(key(500)).is_none());
        let mut seen = 0;
        sessions.each_active(100, 1000, |_| seen += 1);
        assert_eq!(seen, 100, "901 to 999, and 0");
    }

    #[test]
    fn a_new_bound_keeps_the_most_recent() {
        let sessions = Arc::new(Sessions::new(5000));
        (0..100).for_each(|n| _ = sessions.landed(key(n), A, 1, true, n));
        assert!(Arc::ptr_eq(&sessions, &sessions.resized(5000)), "what runs on lands where all others look");
        let small = sessions.resized(10);
        assert_eq!((small.len(), small.away()), (10, 10));
        assert_eq!(sessions.resized(100_000).len(), 100);
    }

    proptest! {
        /// Whatever happens, the counts are those of what is there, and the bound holds.
        #[test]
        fn counts_and_bound(max in 1usize..40, steps in prop::collection::vec((0u64..60, any::<bool>(), 0u64..50), 1..300)) {
            let sessions = Sessions::new(max);
            let mut now = 0;
            for (session, away, passed) in steps {
                now += passed;
                sessions.landed(key(session), A, 1, away, now);
                if passed == 49 {
                    sessions.expire(400, now);
                }
                let (mut len, mut away) = (0, 0);
                sessions.each_active(Millis::MAX, now, |known| { len += 1; away += usize::from(known.away); });
                prop_assert_eq!((sessions.len(), sessions.away()), (len, away));
                prop_assert!(len <= max);
            }
        }
    }
}
