//! The sessions that are known: where each was last, how long its prompt was there, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Millis;
use super::backend::BackendId;
use super::recent::Recent;
use super::session::SessionKey;

/// A bounded table of known sessions. Whoever was active least recently leaves first.
///
/// It is cut into parts with a lock each, so that requests that end at once do not wait for each other. A part has its
/// share of the bound and its own order of leaving; a table of fewer than [`SMALL`] sessions is one part.
#[derive(Debug)]
pub struct Sessions {
    parts: Vec<Mutex<Part>>,
    /// Where a session is in the table nobody outside can tell, so nobody can make ids that meet in one place.
    hasher: ahash::RandomState,
    len: AtomicUsize,
    away: AtomicUsize,
    max: usize,
}

type Part = Recent<SessionKey, Known>;

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
    /// Whether the session is now where this turn was answered.
    pub moves: bool,
}

impl Sessions {
    /// A table of at most `max` sessions, at least 1.
    #[must_use]
    pub fn new(max: usize) -> Sessions {
        let max = max.max(1);
        let parts = if max < SMALL { 1 } else { PARTS };
        let part = |index: usize| Mutex::new(Recent::new(max / parts + usize::from(index < max % parts)));
        Sessions {
            parts: (0..parts).map(part).collect(),
            hasher: ahash::RandomState::new(),
            len: AtomicUsize::new(0),
            away: AtomicUsize::new(0),
            max,
        }
    }

    /// The table for another bound: this one if the bound is the same, else a new one with what fits of it.
    #[must_use]
    pub fn resized(self: &Arc<Self>, max: usize) -> Arc<Sessions> {
        if max.max(1) == self.max {
            return Arc::clone(self);
        }
        let new = Sessions::new(max);
        for part in &self.parts {
            let mut sessions: Vec<(SessionKey, Known)> = Vec::with_capacity(part.lock().len());
            sessions.extend(part.lock().iter().map(|(key, known)| (key, *known)));
            for (key, known) in sessions.into_iter().rev() {
                let (part, hash) = new.find(key);
                new.insert(&mut part.lock(), key, hash, known);
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
        if self.is_empty() {
            return None;
        }
        let (part, hash) = self.find(key);
        part.lock().get(key, hash).copied()
    }

    /// Notes that a turn with a prompt of `bytes` is answered by `at`, and returns which turn it is. `is_cached` decides
    /// whether what a place has seen can still be cached there.
    ///
    /// A shorter prompt, such as that of a title, does not erase a longer one: what is cached of that stays. One that is
    /// much shorter and was answered elsewhere does not move the session either.
    pub fn landed(
        &self,
        key: SessionKey,
        at: BackendId,
        bytes: u64,
        away: bool,
        now: Millis,
        is_cached: impl Fn(Place) -> bool,
    ) -> Turn {
        let place = Place { backend: at, bytes: u32::try_from(bytes).unwrap_or(u32::MAX), seen: now };
        let (part, hash) = self.find(key);
        let mut part = part.lock();
        match part.get_mut(key, hash) {
            Some(known) => {
                let before = known.last();
                if before.backend != at && is_side_call(place, before) && is_cached(before) {
                    known.side_call(place);
                    return Turn { number: known.turns, from: None, moves: false };
                }
                self.count_away(known.away, away);
                known.turn(place, away, is_cached);
                Turn { number: known.turns, from: Some(before).filter(|before| before.backend != at), moves: true }
            }
            None => {
                self.insert(&mut part, key, hash, Known { places: [place, NOWHERE], turns: 1, away });
                Turn { number: 1, from: None, moves: true }
            }
        }
    }

    /// Notes that a session was active until now, if `at` is still where it was last.
    pub fn active(&self, key: SessionKey, at: BackendId, now: Millis) {
        let (part, hash) = self.find(key);
        let mut part = part.lock();
        if part.get(key, hash).is_some_and(|known| known.places[0].backend == at)
            && let Some(known) = part.get_mut(key, hash)
        {
            known.places[0].seen = now;
        }
    }

    /// Drops sessions that have been silent for `ttl` milliseconds; of very many, some at a time.
    pub fn expire(&self, ttl: Millis, now: Millis) {
        for part in &self.parts {
            let mut part = part.lock();
            for _ in 0..DROPPED_AT_ONCE {
                if part.oldest().is_none_or(|known| now.saturating_sub(known.last().seen) < ttl) {
                    break;
                }
                if let Some(known) = part.pop_oldest() {
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

    /// Takes in a session that is not in the part; whoever was active least recently makes room.
    fn insert(&self, part: &mut Part, key: SessionKey, hash: u32, known: Known) {
        self.count_away(false, known.away);
        match part.insert(key, hash, known) {
            Some(gone) => self.count_away(gone.away, false),
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

    /// The part where a session is, and its hash there.
    fn find(&self, key: SessionKey) -> (&Mutex<Part>, u32) {
        let hash = self.hasher.hash_one(key);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half; the upper one chooses the part")]
        let in_part = hash as u32;
        (&self.parts[(hash >> 32) as usize % self.parts.len()], in_part)
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

    fn turn(&mut self, mut place: Place, away: bool, is_cached: impl Fn(Place) -> bool) {
        if let Some(before) = self.at(place.backend).filter(|before| is_cached(*before)) {
            place.bytes = place.bytes.max(before.bytes);
        }
        if self.places[0].backend != place.backend {
            self.places[1] = self.places[0];
        }
        self.places[0] = place;
        self.turns = self.turns.saturating_add(1);
        self.away = away;
    }

    /// A turn that was answered elsewhere and leaves the session where it is. It takes the second place only if less was
    /// seen there.
    fn side_call(&mut self, place: Place) {
        self.turns = self.turns.saturating_add(1);
        if self.places[1].bytes <= place.bytes {
            self.places[1] = place;
        }
    }
}

/// Whether a prompt is too short to be the next turn of a session that has this place. A length of 0 is not known.
fn is_side_call(prompt: Place, place: Place) -> bool {
    prompt.bytes > 0 && prompt.bytes < place.bytes / 2
}

/// A table of fewer sessions is not cut into parts: the longest silent of all leaves first.
pub const SMALL: usize = 1024;
const PARTS: usize = 16;
/// Sessions that one call to [`Sessions::expire`] drops from a part: less than a millisecond's work.
const DROPPED_AT_ONCE: usize = 4096;
/// No backend's number.
const NOWHERE: Place = Place { backend: BackendId(u32::MAX), bytes: 0, seen: 0 };
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: BackendId = BackendId(0);
    const B: BackendId = BackendId(1);
    const C: BackendId = BackendId(2);
    /// All that was seen is still cached.
    const ALL: fn(Place) -> bool = |_| true;
    const NOTHING: fn(Place) -> bool = |_| false;

    fn key(bits: u64) -> SessionKey {
        SessionKey::from_bits(bits)
    }

    #[test]
    fn the_last_two_places_are_known() {
        let sessions = Sessions::new(10);
        sessions.landed(key(1), A, 100, false, 1, ALL);
        sessions.landed(key(1), B, 200, true, 2, ALL);
        sessions.landed(key(1), B, 300, true, 3, ALL);
        let known = sessions.get(key(1)).unwrap();
        assert_eq!((known.last().backend, known.turns, known.away), (B, 3, true));
        assert_eq!(known.at(A), Some(Place { backend: A, bytes: 100, seen: 1 }));
        assert_eq!(known.at(B), Some(Place { backend: B, bytes: 300, seen: 3 }));
        sessions.landed(key(1), C, 400, true, 4, ALL);
        assert_eq!(sessions.get(key(1)).unwrap().at(A), None);
    }

    fn bytes_at(sessions: &Sessions, at: BackendId) -> Option<u32> {
        sessions.get(key(1))?.at(at).map(|place| place.bytes)
    }

    #[test]
    fn shorter_prompt_does_not_erase_a_longer_one() {
        let sessions = Sessions::new(10);
        sessions.landed(key(1), A, 30_000, false, 1, ALL);
        sessions.landed(key(1), A, 85, false, 2, ALL);
        assert_eq!(bytes_at(&sessions, A), Some(30_000));
        sessions.landed(key(1), A, 31_000, false, 3, ALL);
        assert_eq!(bytes_at(&sessions, A), Some(31_000));
        sessions.landed(key(1), A, 85, false, 4, NOTHING);
        assert_eq!(bytes_at(&sessions, A), Some(85), "the cache was lost");
    }

    #[test]
    fn side_call_elsewhere_does_not_move_a_session() {
        let sessions = Sessions::new(10);
        sessions.landed(key(1), A, 30_000, false, 1, ALL);
        let turn = sessions.landed(key(1), B, 85, true, 2, ALL);
        assert_eq!(turn, Turn { number: 2, from: None, moves: false });
        let known = sessions.get(key(1)).unwrap();
        assert_eq!((known.last().backend, known.last().bytes, known.away), (A, 30_000, false));
        assert_eq!((bytes_at(&sessions, B), sessions.away()), (Some(85), 0));
        for (bytes, is_cached, moves) in [(85, NOTHING, true), (20_000, ALL, true), (0, ALL, true)] {
            let sessions = Sessions::new(10);
            sessions.landed(key(1), A, 30_000, false, 1, ALL);
            assert_eq!(sessions.landed(key(1), B, bytes, true, 2, is_cached).moves, moves, "{bytes}");
            assert_eq!(sessions.get(key(1)).unwrap().last().backend, B);
        }
    }

    #[test]
    fn side_call_takes_the_place_of_a_shorter_one_only() {
        let sessions = Sessions::new(10);
        sessions.landed(key(1), C, 20_000, true, 1, ALL);
        sessions.landed(key(1), A, 30_000, false, 2, ALL);
        sessions.landed(key(1), B, 85, true, 3, ALL);
        assert_eq!((bytes_at(&sessions, C), bytes_at(&sessions, B)), (Some(20_000), None));
    }

    #[test]
    fn an_answer_that_ends_keeps_its_session_active_unless_it_has_moved_on() {
        let sessions = Sessions::new(10);
        sessions.landed(key(1), A, 1, false, 1, ALL);
        sessions.active(key(1), A, 5);
        assert_eq!(sessions.get(key(1)).unwrap().last().seen, 5);
        sessions.landed(key(1), B, 1, false, 6, ALL);
        sessions.active(key(1), A, 7);
        assert_eq!(sessions.get(key(1)).unwrap().at(A).map(|place| place.seen), Some(5));
        sessions.active(key(2), A, 7);
        assert_eq!(sessions.get(key(2)), None);
    }

    #[test]
    fn whoever_is_silent_for_long_leaves() {
        let sessions = Sessions::new(10_000);
        (0..1000).for_each(|n| _ = sessions.landed(key(n), A, 1, n % 2 == 0, n, ALL));
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
        (0..100).for_each(|n| _ = sessions.landed(key(n), A, 1, true, n, ALL));
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
                sessions.landed(key(session), A, 1, away, now, ALL);
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
