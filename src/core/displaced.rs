//! The sessions that are away from home, and where their caches are now.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

use super::Millis;
use super::backend::Backend;
use super::session::SessionKey;

/// A bounded table of displaced sessions, each with the backend it stays on until it has been idle for long.
///
/// Only sessions away from home are here. While there are none, looking one up costs one relaxed load. Whoever was
/// used least recently leaves first: it is the one that has been idle longest, so its cache is the coldest.
#[derive(Debug)]
pub struct Displaced {
    table: Mutex<LruCache<SessionKey, Stay, ahash::RandomState>>,
    len: AtomicUsize,
    idle_ttl: Millis,
}

#[derive(Debug)]
struct Stay {
    at: Arc<Backend>,
    seen: Millis,
}

impl Displaced {
    /// A table of at most `max` sessions, each kept until it has been idle for `idle_ttl` milliseconds.
    #[must_use]
    pub fn new(max: usize, idle_ttl: Millis) -> Displaced {
        let max = NonZeroUsize::new(max).unwrap_or(NonZeroUsize::MIN);
        let table = LruCache::unbounded_with_hasher(ahash::RandomState::new());
        let displaced = Displaced { table: Mutex::new(table), len: AtomicUsize::new(0), idle_ttl };
        // Resized rather than created with the bound: creation would allocate all of it.
        displaced.table.lock().resize(max);
        displaced
    }

    /// How many sessions are away, those included that have gone idle and were not seen since.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether every session is at home.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where a session stays, if it is away and has not been idle for too long. Asking is not being active.
    #[must_use]
    pub fn place(&self, key: SessionKey, now: Millis) -> Option<Arc<Backend>> {
        if self.is_empty() {
            return None;
        }
        let table = self.table.lock();
        let stay = table.peek(&key)?;
        (now.saturating_sub(stay.seen) < self.idle_ttl).then(|| Arc::clone(&stay.at))
    }

    /// Notes that a session is active at `at`, where its cache is now.
    pub fn stay(&self, key: SessionKey, at: &Arc<Backend>, now: Millis) {
        let mut table = self.table.lock();
        table.put(key, Stay { at: Arc::clone(at), seen: now });
        self.len.store(table.len(), Ordering::Relaxed);
    }

    /// Notes that a session was active until now, if `at` is still where it stays.
    pub fn touch(&self, key: SessionKey, at: &Arc<Backend>, now: Millis) {
        let mut table = self.table.lock();
        if table.peek(&key).is_some_and(|stay| Arc::ptr_eq(&stay.at, at)) {
            table.put(key, Stay { at: Arc::clone(at), seen: now });
        }
    }

    /// Notes that a session is at home again.
    pub fn forget(&self, key: SessionKey) {
        if self.is_empty() {
            return;
        }
        let mut table = self.table.lock();
        table.pop(&key);
        self.len.store(table.len(), Ordering::Relaxed);
    }

    /// Drops the sessions that have gone idle, so that the table and its count say what is.
    pub fn expire(&self, now: Millis) {
        if self.is_empty() {
            return;
        }
        let mut table = self.table.lock();
        while table.peek_lru().is_some_and(|(_, stay)| now.saturating_sub(stay.seen) >= self.idle_ttl) {
            table.pop_lru();
        }
        self.len.store(table.len(), Ordering::Relaxed);
    }

    /// Moves over the sessions whose backend `keep` approves of, least recently seen first.
    pub fn adopt(&self, old: &Displaced, keep: impl Fn(&Arc<Backend>) -> bool) {
        let old = old.table.lock();
        let mut table = self.table.lock();
        for (key, stay) in old.iter().rev().filter(|(_, stay)| keep(&stay.at)) {
            table.put(*key, Stay { at: Arc::clone(&stay.at), seen: stay.seen });
        }
        self.len.store(table.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::BackendId;

    fn key(bits: u64) -> SessionKey {
        SessionKey::from_bits(bits)
    }

    #[test]
    fn a_session_stays_until_it_has_been_idle() {
        let displaced = Displaced::new(10, 100);
        let at = Arc::new(Backend::new(BackendId(1), "gpu1", false));
        displaced.stay(key(1), &at, 0);
        assert!(displaced.place(key(1), 99).is_some(), "active 99 ms ago");
        assert!(displaced.place(key(1), 100).is_none(), "to ask for it did not make it active");
        displaced.stay(key(1), &at, 100);
        assert!(displaced.place(key(1), 199).is_some(), "each turn begins the wait anew");
    }

    #[test]
    fn the_longest_idle_session_leaves_a_full_table() {
        let displaced = Displaced::new(2, 100);
        let at = Arc::new(Backend::new(BackendId(1), "gpu1", false));
        displaced.stay(key(1), &at, 0);
        displaced.stay(key(2), &at, 1);
        displaced.stay(key(1), &at, 2);
        displaced.stay(key(3), &at, 3);
        assert_eq!(displaced.len(), 2);
        assert!(displaced.place(key(2), 4).is_none());
        assert!(displaced.place(key(1), 4).is_some());
    }

    #[test]
    fn expiry_drops_just_the_idle_ones() {
        let displaced = Displaced::new(10, 100);
        let at = Arc::new(Backend::new(BackendId(1), "gpu1", false));
        displaced.stay(key(1), &at, 0);
        displaced.stay(key(2), &at, 50);
        displaced.expire(100);
        assert_eq!(displaced.len(), 1);
        assert!(displaced.place(key(2), 100).is_some());
    }
}
