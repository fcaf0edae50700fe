//! Weighted rendezvous hashing: a session key and the names of the backends become a preference order.
//!
//! Every pair of a key and a backend has a score, and the order is by score, highest first. A score depends on the
//! two alone, so removing a backend moves only its own keys, each to the next of its own order; adding one takes only
//! its share; and every gateway with the same file computes the same order, in any language:
//!
//! ```text
//! seed  = XXH3_64(hash_seed)                          XXH3_64 of UTF-8 bytes, seed 0
//! key   = XXH3_64(session id, seed)
//! name  = XXH3_64(backend name, seed)
//! h     = XXH3_64(key ++ name)                        8 + 8 bytes, little-endian, seed 0
//! u     = ((h >> 12) + 0.5) / 2^52                    in (0, 1), exact in a double
//! score = weight / -ln(u)
//! ```
//!
//! The score makes a backend win in exact proportion to its weight: `-ln(u)` is exponentially distributed, and the
//! smallest of exponential variables divided by their rates belongs to each with probability rate / sum of rates
//! (Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", SPAA 2005; draft-ietf-bess-weighted-hrw).

use std::cmp::Ordering;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::session::SessionKey;

/// What `affinity.hash_seed` becomes. Gateways that share it agree on every home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// The seed of a configured text; the empty text is a seed like any other.
    #[must_use]
    pub fn new(text: &str) -> Seed {
        Seed(xxh3_64(text.as_bytes()))
    }

    pub(super) fn get(self) -> u64 {
        self.0
    }
}

/// A backend's name as the hash sees it; computed once, when a pool is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameHash(u64);

impl NameHash {
    /// The hash of a backend's name.
    #[must_use]
    pub fn new(name: &str, seed: Seed) -> NameHash {
        NameHash(xxh3_64_with_seed(name.as_bytes(), seed.0))
    }
}

/// One backend's claim on one key. The greatest claim is the key's home.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    h: u64,
    weight: u32,
}

impl Claim {
    /// The claim of a backend on a key.
    #[must_use]
    pub fn new(key: SessionKey, name: NameHash, weight: u32) -> Claim {
        let mut pair = [0; 16];
        pair[..8].copy_from_slice(&key.bits().to_le_bytes());
        pair[8..].copy_from_slice(&name.0.to_le_bytes());
        Claim { h: xxh3_64(&pair) >> 12, weight }
    }

    /// `weight / -ln(u)`: positive and finite, because u is never 0 or 1.
    #[must_use]
    pub fn score(self) -> f64 {
        f64::from(self.weight) / -self.u().ln()
    }

    fn u(self) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "h has 52 bits, and the half is one more: all that an f64 holds"
        )]
        let u = (self.h as f64 + 0.5) / TWO_POW_52;
        u
    }

    /// Whether this score is certainly greater than the other one, without a logarithm: `1 - u <= -ln(u) <= (1 - u) / u`,
    /// and what is called certain is so by more than rounding can do. Close to 1, where homes are, the bounds are tight.
    fn certainly_beats(self, other: Claim) -> bool {
        let (u, v) = (self.u(), other.u());
        f64::from(self.weight) * u * (1.0 - v) > f64::from(other.weight) * (1.0 - u) * CERTAIN
    }

    /// Whether this claim is greater than `other`.
    ///
    /// The score grows with h and with the weight, so the logarithms are needed only when the two disagree: with
    /// equal weights, never. Equal scores go by h, which the formula's rounding does not touch.
    #[must_use]
    pub fn beats(self, other: Claim) -> bool {
        match (self.h.cmp(&other.h), self.weight.cmp(&other.weight)) {
            (Ordering::Greater, Ordering::Greater | Ordering::Equal) => true,
            (Ordering::Less | Ordering::Equal, Ordering::Less | Ordering::Equal) => false,
            (Ordering::Equal, Ordering::Greater) => true,
            _ if self.certainly_beats(other) => true,
            _ if other.certainly_beats(self) => false,
            (Ordering::Greater, _) => self.score() >= other.score(),
            (Ordering::Less, _) => self.score() > other.score(),
        }
    }
}

const TWO_POW_52: f64 = 4_503_599_627_370_496.0;
/// A thousand times what rounding can add up to in a few operations.
const CERTAIN: f64 = 1.0 + 1e-12;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(id: &str, backends: &[(&str, u32)], seed: &str) -> Vec<String> {
        let seed = Seed::new(seed);
        let key = SessionKey::parse(id.as_bytes(), 256, seed).unwrap().unwrap();
        let mut claims: Vec<_> = backends
            .iter()
            .map(|(name, weight)| (Claim::new(key, NameHash::new(name, seed), *weight), *name))
            .collect();
        claims.sort_by(|(a, _), (b, _)| if a.beats(*b) { Ordering::Less } else { Ordering::Greater });
        claims.into_iter().map(|(_, name)| name.to_owned()).collect()
    }

    proptest! {
        /// `beats` is a shortcut; it must say what the scores say.
        #[test]
        fn the_shortcut_agrees_with_the_formula(a in 0u64..1 << 52, b in 0u64..1 << 52, wa in 1u32..1000, wb in 1u32..1000) {
            let (a, b) = (Claim { h: a, weight: wa }, Claim { h: b, weight: wb });
            if a.score() != b.score() {
                prop_assert_eq!(a.beats(b), a.score() > b.score());
            }
            prop_assert!(!(a.beats(b) && b.beats(a)));
        }

        #[test]
        fn an_order_does_not_depend_on_the_order_of_the_file(id in "[a-z0-9]{1,40}", n in 2usize..20, turn in 0usize..20) {
            let names: Vec<String> = (0..n).map(|i| format!("gpu{i}")).collect();
            let mut backends: Vec<(&str, u32)> = names.iter().zip((1..=3).cycle()).map(|(name, weight)| (name.as_str(), weight)).collect();
            let before = order(&id, &backends, "");
            backends.rotate_left(turn % n);
            prop_assert_eq!(before, order(&id, &backends, ""));
        }

        #[test]
        fn removing_a_backend_leaves_the_others_in_their_order(id in "[a-z0-9]{1,40}", n in 2usize..20, gone in 0usize..20) {
            let names: Vec<String> = (0..n).map(|i| format!("gpu{i}")).collect();
            let backends: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
            let gone = &names[gone % n];
            let mut before = order(&id, &backends, "s");
            before.retain(|name| name != gone);
            let rest: Vec<_> = backends.iter().copied().filter(|(name, _)| name != gone).collect();
            prop_assert_eq!(before, order(&id, &rest, "s"));
        }
    }

    proptest! {
        /// The shortcut says what the formula says, for all weights and places of u.
        #[test]
        fn who_beats_is_by_the_score(a in 0u64..1 << 52, b in 0u64..1 << 52, near in 0u64..1 << 20, v in 1u32..=1000, w in 1u32..=1000) {
            for (a, b) in [(a, b), ((1 << 52) - 1 - near, b), (a, a.saturating_sub(near)), (near, b & 0xfffff)] {
                let (one, other) = (Claim { h: a, weight: v }, Claim { h: b, weight: w });
                let equal = one.score().total_cmp(&other.score()).is_eq();
                prop_assert!(equal || one.beats(other) == (one.score() > other.score()), "{one:?} {other:?}");
                prop_assert!(one.beats(other) != other.beats(one) || (a, v) == (b, w));
            }
        }
    }

    #[test]
    fn extreme_claims_have_finite_scores() {
        for h in [0, (1 << 52) - 1] {
            let score = Claim { h, weight: 1000 }.score();
            assert!(score.is_finite() && score > 0.0, "{h}: {score}");
        }
    }
}
