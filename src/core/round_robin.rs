//! Smooth weighted round robin: whose turn it is among the backends that can take a request.

use parking_lot::Mutex;

/// The turns of a pool's members.
///
/// The algorithm is the one that nginx introduced in 1.3.1 (commit 52327e0627f4, 2012): every candidate's credit grows
/// by its weight, the highest credit wins and pays the sum of the weights. Over a cycle of that sum each gets exactly
/// its weight's share, evenly spaced: weights 5, 1, 1 give `a a b a c a a`, not `a a a a a b c`.
#[derive(Debug)]
pub struct RoundRobin {
    credit: Mutex<Vec<i64>>,
}

impl RoundRobin {
    /// A round of `members` members, all with the same credit.
    #[must_use]
    pub fn new(members: usize) -> RoundRobin {
        RoundRobin { credit: Mutex::new(vec![0; members]) }
    }

    /// The member whose turn it is among the candidates, which come as (index, weight). `None` without candidates.
    pub fn next(&self, candidates: impl Iterator<Item = (usize, u32)>) -> Option<usize> {
        let mut credit = self.credit.lock();
        let mut total = 0;
        let mut best: Option<usize> = None;
        for (index, weight) in candidates {
            let weight = i64::from(weight);
            total += weight;
            credit[index] += weight;
            if best.is_none_or(|best| credit[index] > credit[best]) {
                best = Some(index);
            }
        }
        if let Some(best) = best {
            credit[best] -= total;
        }
        best
    }

    /// The credit of every member, so that a rebuilt pool goes on where the old one was.
    #[must_use]
    pub fn credit(&self) -> Vec<i64> {
        self.credit.lock().clone()
    }

    /// A round that goes on with the given credit, among members whose weights sum to `total`.
    ///
    /// No round gives or takes more than that sum. What older, greater weights left behind is cut to it: a member
    /// would otherwise take or miss as many turns in a row as the old weights were greater.
    #[must_use]
    pub fn resume(mut credit: Vec<i64>, total: i64) -> RoundRobin {
        credit.iter_mut().for_each(|credit| *credit = (*credit).clamp(-total, total));
        RoundRobin { credit: Mutex::new(credit) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(round: &RoundRobin, weights: &[u32], n: usize) -> Vec<usize> {
        (0..n).map(|_| round.next(weights.iter().copied().enumerate()).unwrap()).collect()
    }

    #[test]
    fn turns_are_spread_over_the_cycle() {
        assert_eq!(turns(&RoundRobin::new(3), &[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn nobody_to_choose_from_is_none() {
        assert_eq!(RoundRobin::new(3).next(std::iter::empty()), None);
    }

    proptest! {
        #[test]
        fn every_cycle_is_exact(weights in prop::collection::vec(1u32..20, 1..12), cycles in 1usize..4) {
            let round = RoundRobin::new(weights.len());
            let sum = weights.iter().sum::<u32>() as usize;
            for _ in 0..cycles {
                let seen = turns(&round, &weights, sum);
                for (index, weight) in weights.iter().enumerate() {
                    prop_assert_eq!(seen.iter().filter(|i| **i == index).count(), *weight as usize);
                }
            }
        }
    }
}
