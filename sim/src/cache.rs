//! The prefix KV cache: block hashes, least recently used out first.

use std::num::NonZeroUsize;

use lru::LruCache;

/// Blocks that are in the KV cache. Holds no text, only the chained hashes.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    blocks: Option<LruCache<u64, ()>>,
}

impl PrefixCache {
    /// A cache of at most `capacity` blocks; 0 keeps nothing.
    pub(crate) fn new(capacity: usize) -> Self {
        // Not pre-allocated: a big capacity costs nothing until it is used.
        let blocks = NonZeroUsize::new(capacity).map(|capacity| {
            let mut cache = LruCache::unbounded();
            cache.resize(capacity);
            cache
        });
        Self { blocks }
    }

    /// How many of the first blocks are cached, without a gap.
    pub(crate) fn matched(&self, blocks: &[u64]) -> usize {
        self.blocks.as_ref().map_or(0, |cache| blocks.iter().take_while(|block| cache.contains(block)).count())
    }

    /// Puts a text's blocks in. The last block of a text goes out before its first one, so what stays is a prefix.
    pub(crate) fn insert(&mut self, blocks: &[u64]) {
        if let Some(cache) = &mut self.blocks {
            for block in blocks.iter().take(cache.cap().get()).rev() {
                cache.put(*block, ());
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        if let Some(cache) = &mut self.blocks {
            cache.clear();
        }
    }

    /// Blocks held.
    pub(crate) fn len(&self) -> usize {
        self.blocks.as_ref().map_or(0, LruCache::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_text_goes_first_and_from_its_end() {
        let mut cache = PrefixCache::new(6);
        cache.insert(&[1, 2, 3]);
        cache.insert(&[11, 12, 13]);
        cache.insert(&[1, 2, 3]);
        cache.insert(&[21, 22]);
        assert_eq!(cache.matched(&[1, 2, 3]), 3);
        assert_eq!(cache.matched(&[11, 12, 13]), 1, "its two last blocks made room");
        assert_eq!(cache.matched(&[21, 22, 23]), 2);
        assert_eq!(cache.len(), 6);
    }

    #[test]
    fn a_gap_ends_the_match() {
        let mut cache = PrefixCache::new(10);
        cache.insert(&[1, 3]);
        assert_eq!(cache.matched(&[1, 2, 3]), 1);
    }

    #[test]
    fn a_text_larger_than_the_cache_keeps_its_beginning() {
        let mut cache = PrefixCache::new(2);
        cache.insert(&[1, 2, 3]);
        assert_eq!(cache.matched(&[1, 2, 3]), 2);
        let mut none = PrefixCache::new(0);
        none.insert(&[1]);
        assert_eq!(none.matched(&[1]), 0);
    }
}
