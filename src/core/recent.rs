//! A bounded table that forgets what was used least recently.

/// A hash table with linear probing, whose entries are also a list in the order of their use.
///
/// The `lru` crate has each entry in an allocation of its own and a hash table of pointers beside them: looking one up
/// in a table of a million waits for memory three times in a row, here mostly once. The caller brings the hashes, of
/// which the high bits count.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    slots: Vec<Slot<K, V>>,
    len: usize,
    max: usize,
    newest: u32,
    oldest: u32,
}

/// One cache line, if key and value have no more than 48 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Slot<K, V> {
    entry: Option<(K, V)>,
    hash: u32,
    newer: u32,
    older: u32,
}

impl<K: Copy + Eq, V: Copy> Recent<K, V> {
    /// A table of at most `max` entries, at least 1 and at most 2^31. It takes no memory before there are some.
    pub(super) fn new(max: usize) -> Recent<K, V> {
        Recent { slots: Vec::new(), len: 0, max: max.clamp(1, 1 << 31), newest: NONE, oldest: NONE }
    }

    /// What is there for a key. Asking is not using.
    pub(super) fn get(&self, key: K, hash: u32) -> Option<&V> {
        self.value(self.find(key, hash)?)
    }

    /// The same, to be changed; it is now the most recently used.
    pub(super) fn get_mut(&mut self, key: K, hash: u32) -> Option<&mut V> {
        let at = self.find(key, hash)?;
        if self.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
        self.slots[at as usize].entry.as_mut().map(|(_, value)| value)
    }

    /// Puts in what is not there yet, as the most recently used. Returns what had to go for it.
    pub(super) fn insert(&mut self, key: K, hash: u32, value: V) -> Option<V> {
        let gone = if self.len >= self.max { self.pop_oldest() } else { None };
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.put(key, hash, value);
        gone
    }

    /// What was used least recently.
    pub(super) fn oldest(&self) -> Option<&V> {
        self.value(self.oldest)
    }

    /// Takes out what was used least recently.
    pub(super) fn pop_oldest(&mut self) -> Option<V> {
        let at = self.oldest;
        let value = self.value(at).copied()?;
        self.unlink(at);
        self.len -= 1;
        self.close(at);
        Some(value)
    }

    /// All of them, the most recently used first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        let slot = |at: u32| self.slots.get(at as usize);
        let slots = std::iter::successors(slot(self.newest), move |newer| slot(newer.older));
        slots.filter_map(|slot| slot.entry.as_ref().map(|(key, value)| (*key, value)))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn value(&self, at: u32) -> Option<&V> {
        self.slots.get(at as usize)?.entry.as_ref().map(|(_, value)| value)
    }

    fn find(&self, key: K, hash: u32) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.ideal(hash);
        loop {
            let (other, _) = self.slots[at as usize].entry.as_ref()?;
            if *other == key {
                return Some(at);
            }
            at = self.next(at);
        }
    }

    fn put(&mut self, key: K, hash: u32, value: V) {
        let mut at = self.ideal(hash);
        while self.slots[at as usize].entry.is_some() {
            at = self.next(at);
        }
        self.slots[at as usize] = Slot { entry: Some((key, value)), hash, newer: NONE, older: NONE };
        self.link_newest(at);
        self.len += 1;
    }

    /// Twice the slots, but no more than the bound fills to three quarters.
    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(SMALLEST).min(self.max * 4 / 3 + 1);
        let mut new = Recent {
            slots: vec![Slot { entry: None, hash: 0, newer: NONE, older: NONE }; slots],
            ..Recent::new(self.max)
        };
        let mut at = self.oldest;
        while let Some(slot) = self.slots.get(at as usize) {
            if let Some((key, value)) = slot.entry {
                new.put(key, slot.hash, value);
            }
            at = slot.newer;
        }
        *self = new;
    }

    /// Empties a slot whose entry is no longer linked. Who had to make way for it moves up, so that no search ends early.
    fn close(&mut self, mut gap: u32) {
        let mut at = self.next(gap);
        while self.slots[at as usize].entry.is_some() {
            let wanted = self.distance(self.ideal(self.slots[at as usize].hash), at);
            if wanted >= self.distance(gap, at) {
                let slot = self.slots[at as usize];
                self.slots[gap as usize] = slot;
                self.set_older(slot.newer, gap);
                self.set_newer(slot.older, gap);
                gap = at;
            }
            at = self.next(at);
        }
        self.slots[gap as usize].entry = None;
    }

    fn link_newest(&mut self, at: u32) {
        let before = std::mem::replace(&mut self.newest, at);
        self.set_newer(before, at);
        let slot = &mut self.slots[at as usize];
        (slot.newer, slot.older) = (NONE, before);
    }

    fn unlink(&mut self, at: u32) {
        let Slot { newer, older, .. } = self.slots[at as usize];
        self.set_older(newer, older);
        self.set_newer(older, newer);
    }

    /// What is older than `at`; without `at`, the newest of all.
    fn set_older(&mut self, at: u32, older: u32) {
        if at == NONE { self.newest = older } else { self.slots[at as usize].older = older }
    }

    /// What is newer than `at`; without `at`, the oldest of all.
    fn set_newer(&mut self, at: u32, newer: u32) {
        if at == NONE { self.oldest = newer } else { self.slots[at as usize].newer = newer }
    }

    /// Where an entry with this hash is, if nobody is in its way.
    fn ideal(&self, hash: u32) -> u32 {
        index(((u64::from(hash) * self.slots.len() as u64) >> 32) as usize)
    }

    fn next(&self, at: u32) -> u32 {
        if at as usize + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// Steps from one slot on to another.
    fn distance(&self, from: u32, to: u32) -> usize {
        let steps = to as usize + self.slots.len() - from as usize;
        if steps >= self.slots.len() { steps - self.slots.len() } else { steps }
    }
}

/// A slot's number. The bound keeps it below [`NONE`].
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NONE)
}

const NONE: u32 = u32::MAX;
const SMALLEST: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Beside a list that is searched from end to end. The hashes are bad ones, so that chains are long.
        #[test]
        fn it_is_what_a_list_is(max in 1usize..50, steps in prop::collection::vec((0u8..4, 0u32..80), 0..400)) {
            let mut recent = Recent::new(max);
            let mut list: Vec<(u32, u32)> = Vec::new();
            for (value, (step, key)) in (0..).zip(steps) {
                // Few hashes, and the last ones near the end, where the table wraps.
                let hash = key % 7 * 715_827_882;
                let known = list.iter().position(|(other, _)| *other == key);
                prop_assert_eq!(recent.get(key, hash), known.map(|at| &list[at].1));
                match (step, known) {
                    (0, _) => {
                        let oldest = (!list.is_empty()).then(|| list.remove(0).1);
                        prop_assert_eq!(recent.oldest().copied(), oldest);
                        prop_assert_eq!(recent.pop_oldest(), oldest);
                    }
                    (_, Some(at)) => {
                        *recent.get_mut(key, hash).unwrap() = value;
                        list.remove(at);
                        list.push((key, value));
                    }
                    (_, None) => {
                        let gone = (list.len() == max).then(|| list.remove(0).1);
                        prop_assert_eq!(recent.insert(key, hash, value), gone);
                        list.push((key, value));
                    }
                }
                prop_assert_eq!(recent.len(), list.len());
                let all: Vec<_> = recent.iter().map(|(key, value)| (key, *value)).collect();
                prop_assert_eq!(all, list.iter().rev().copied().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn it_takes_what_it_needs_and_no_more() {
        let mut recent = Recent::new(100);
        assert_eq!(recent.slots.capacity(), 0);
        (0..1000u32)
            .for_each(|key| assert_eq!(recent.insert(key, key.wrapping_mul(0x9e37_79b9), ()).is_some(), key >= 100));
        assert_eq!((recent.len(), recent.slots.capacity()), (100, 134));
        assert_eq!(size_of::<Slot<u64, ([u64; 4], u32, bool)>>(), 64);
    }
}
