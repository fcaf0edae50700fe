//! Which turn of its session a request is, and whether the session had been elsewhere.

use std::num::NonZeroUsize;

use lru::LruCache;

use super::Millis;
use super::session::SessionKey;

/// A bounded table of the sessions seen lately. Whoever was seen least recently leaves first.
#[derive(Debug)]
pub struct Turns {
    table: LruCache<SessionKey, Known, ahash::RandomState>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    turns: u32,
    place: usize,
    seen: Millis,
}

/// One turn of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// 1 is the first one that was seen.
    pub number: u32,
    /// Where the turn before was, if that was elsewhere and not so long ago that its cache counts as cold.
    pub from: Option<usize>,
}

impl Turns {
    /// A table of at most `max` sessions (at least 1).
    #[must_use]
    pub fn new(max: usize) -> Turns {
        let mut table = LruCache::unbounded_with_hasher(ahash::RandomState::new());
        // Resized rather than created with the bound: creation would allocate all of it.
        table.resize(NonZeroUsize::new(max).unwrap_or(NonZeroUsize::MIN));
        Turns { table }
    }

    /// A turn of a session at a place (any number that is its backend's own). The cache of the turn before counts as cold
    /// after `idle_ttl` milliseconds.
    pub fn turn(&mut self, key: SessionKey, place: usize, now: Millis, idle_ttl: Millis) -> Turn {
        let Some(known) = self.table.get_mut(&key) else {
            self.table.put(key, Known { turns: 1, place, seen: now });
            return Turn { number: 1, from: None };
        };
        let moved = known.place != place && now.saturating_sub(known.seen) < idle_ttl;
        let from = moved.then_some(known.place);
        *known = Known { turns: known.turns.saturating_add(1), place, seen: now };
        Turn { number: known.turns, from }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_counted_and_moves_seen_unless_the_cache_is_cold() {
        let mut turns = Turns::new(2);
        let mut turn = |key: u64, place, now| {
            let turn = turns.turn(SessionKey::from_bits(key), place, now, 100);
            (turn.number, turn.from)
        };
        assert_eq!(turn(1, 0, 0), (1, None));
        assert_eq!(turn(1, 0, 50), (2, None));
        assert_eq!(turn(1, 1, 149), (3, Some(0)));
        assert_eq!(turn(1, 0, 249), (4, None), "100 ms without a turn: there was nothing left to move from");
        assert_eq!((turn(2, 0, 250), turn(3, 0, 251)), ((1, None), (1, None)));
        assert_eq!(turn(1, 0, 252), (1, None), "two were seen since: it had to leave");
    }
}
