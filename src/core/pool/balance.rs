//! Requests without a session: spread by turns or by load.

use super::asked::Asked;
use super::{Affinity, Balance, Verdict};

impl Asked<'_> {
    /// Whose turn it is among those who have room.
    pub(super) fn balance(&self) -> Verdict {
        if let Some(member) = self.turn(|index| self.can(index)) {
            return self.go(member, Affinity::Balanced, None);
        }
        match (0..self.pool.members.len()).any(|index| self.barred(index).is_none()) {
            true => Verdict::Full,
            false => self.fail_open(|asked| asked.turn(|index| asked.open(index))),
        }
    }

    /// Whose turn it is among the lowest tier of the members that `admit` lets pass.
    fn turn(&self, admit: impl Fn(usize) -> bool) -> Option<usize> {
        let admitted = || (0..self.pool.members.len()).filter(|index| admit(*index));
        let tier = admitted().map(|index| self.member(index).priority).min()?;
        let tier = admitted().filter(|index| self.member(*index).priority == tier);
        match self.pool.settings.balance {
            Balance::RoundRobin => self.pool.round.next(tier.map(|index| (index, self.weight(index)))),
            Balance::LeastRequests => self.least_requests(tier),
        }
    }

    /// Whoever has the fewest requests for its weight; among equals, whose turn it is.
    fn least_requests(&self, tier: impl Iterator<Item = usize> + Clone) -> Option<usize> {
        let load = |index: usize| (self.load_at(index) + 1) * LOAD_SCALE / u64::from(self.weight(index));
        let least = tier.clone().map(load).min()?;
        let equals = tier.clone().filter(|index| load(*index) == least);
        // Counts move while this runs: if no one is equal any more, anybody of the tier will do.
        let turn = self.pool.round.next(equals.map(|index| (index, self.weight(index))));
        turn.or_else(|| self.pool.round.next(tier.map(|index| (index, self.weight(index)))))
    }

    /// A member's weight in [`WEIGHT_SCALE`]ths, less while it warms up, but something.
    fn weight(&self, index: usize) -> u32 {
        let full = self.member(index).weight.saturating_mul(WEIGHT_SCALE);
        let warmth = self.warmth(index);
        if warmth >= 1.0 {
            return full;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32")]
        let share = (f64::from(full) * warmth) as u32;
        share.max(1)
    }
}

/// Turns are counted in these parts of a weight, so that one of 1 can be scaled. All weights alike: the turns are the same.
pub(super) const WEIGHT_SCALE: u32 = 1000;
/// Keeps the quotient of load and weight (at most 1,000,000 as scaled) exact enough in integers.
const LOAD_SCALE: u64 = 1_000_000_000;
