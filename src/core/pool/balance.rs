//! Requests without a session: spread by turns or by load.

use super::asked::Asked;
use super::{Affinity, Balance, Reason, Verdict};

impl Asked<'_> {
    /// Whose turn it is among those who have room.
    pub(super) fn balance(&self) -> Verdict {
        if let Some(member) = self.turn(|index| self.ready(index)).or_else(|| self.turn(|index| self.can(index))) {
            return self.go(member, Affinity::Balanced, None);
        }
        if let Some(member) = self.waits_at(|admit| self.shortest_line(admit)) {
            return Verdict::Wait { member, reason: Reason::MaxInFlight };
        }
        match (0..self.pool.members.len()).any(|index| self.barred(index).is_none()) {
            true => Verdict::Full,
            false => self.fail_open(|asked| asked.turn(|index| asked.open(index))),
        }
    }

    /// Whoever has the least to do for its weight, of the lowest tier of the members that `admit` lets pass.
    fn shortest_line(&self, admit: &dyn Fn(usize) -> bool) -> Option<usize> {
        let tier = self.lowest_tier(admit)?;
        let line = (0..self.pool.members.len()).filter(|index| self.in_tier(*index, tier) && admit(*index));
        let load = |index: usize| (self.load_at(index), u64::from(self.member(index).weight));
        line.reduce(|shortest, other| {
            let ((least, weight), (load, other_weight)) = (load(shortest), load(other));
            if load * weight < least * other_weight { other } else { shortest }
        })
    }

    /// Whose turn it is among the lowest tier of the members that `admit` lets pass.
    fn turn(&self, admit: impl Fn(usize) -> bool) -> Option<usize> {
        let tier = self.lowest_tier(&admit)?;
        let tier = (0..self.pool.members.len()).filter(|index| self.in_tier(*index, tier) && admit(*index));
        match self.pool.settings.balance {
            _ if self.needs_no_room() => self.pool.queries.next(tier.map(|index| (index, self.weight(index)))),
            Balance::RoundRobin => self.pool.round.next(tier.map(|index| (index, self.weight(index)))),
            Balance::LeastRequests => self.least_requests(tier),
        }
    }

    /// Whoever has the fewest requests for its weight; among equals, whose turn it is.
    fn least_requests(&self, tier: impl Iterator<Item = usize> + Clone) -> Option<usize> {
        let load = |index| self.load_at(index) + u64::from(self.member(index).backend.error_load(self.now)) + 1;
        let loads = || tier.clone().map(|index| (index, load(index), self.weight(index)));
        // Cross-multiplied, so that nothing is rounded.
        let least = loads().reduce(|least, other| {
            let less = other.1 * u64::from(least.2) < least.1 * u64::from(other.2);
            if less { other } else { least }
        })?;
        let equals = loads().filter(|other| other.1 * u64::from(least.2) == least.1 * u64::from(other.2));
        // Counts move while this runs: if no one is equal any more, the one that was it will do.
        self.pool.round.next(equals.map(|(index, _, weight)| (index, weight))).or(Some(least.0))
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
