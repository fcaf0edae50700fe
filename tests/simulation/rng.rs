//! The simulation's own dice: the same on every machine and in every version of every library.

#![allow(dead_code, reason = "shared with tests/fuzz and the fuzzer's targets, none of which needs all of it")]

/// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014), or a fuzzer's bytes
/// while there are any.
pub(crate) struct Rng {
    state: u64,
    bytes: std::vec::IntoIter<u8>,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng { state: seed, bytes: Vec::new().into_iter() }
    }

    /// Two bytes for each number.
    pub(crate) fn of(bytes: &[u8]) -> Rng {
        Rng { bytes: Vec::from(bytes).into_iter(), ..Rng::new(0) }
    }

    /// Whether the bytes are used up.
    pub(crate) fn is_spent(&self) -> bool {
        self.bytes.len() == 0
    }

    pub(crate) fn next(&mut self) -> u64 {
        if let Some(low) = self.bytes.next() {
            return u64::from(u16::from_le_bytes([low, self.bytes.next().unwrap_or(0)]));
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Rng::finalize(self.state)
    }

    /// The generator's mixing of bits.
    pub(crate) fn finalize(mut z: u64) -> u64 {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to n - 1.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Another generator, independent of what this one gives from now on.
    pub(crate) fn fork(&mut self) -> Rng {
        Rng::new(self.next())
    }
}
