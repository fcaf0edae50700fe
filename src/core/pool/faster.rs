//! `policy: least_ttft`: what the pool knows of a session and its backends, put to the score.

use super::super::hash::Claim;
use super::super::session::SessionKey;
use super::super::ttft::{self, Candidate, Choice, Lean, Seen};
use super::asked::Asked;
use super::order::Claims;
use super::{Affinity, Reason, Selection, Verdict};

impl Asked<'_> {
    /// Where the first token is expected soonest, among the lowest tier of those who can take the request.
    pub(super) fn by_score(&self, key: SessionKey) -> Verdict {
        let Some(claims) = Claims::new(self.pool, key) else { return Verdict::Nobody };
        let home = claims.home();
        if let Some(trial) = self.trial_at(home) {
            return trial;
        }
        let choice = self.least(&claims, home, |index| self.ready(index));
        let Some(choice) = choice.or_else(|| self.least(&claims, home, |index| self.can(index))) else {
            return self.nobody(key);
        };
        let (affinity, reason) = match choice.member {
            member if member == home => (Affinity::Home, None),
            member if self.was_last(member) => (Affinity::Stayed, None),
            _ => {
                let reason = self.obstacle(self.last().unwrap_or(home)).unwrap_or(Reason::Faster);
                (reason.affinity(), Some(reason))
            }
        };
        Verdict::Go(Selection { member: choice.member, affinity, reason, expected: choice.expected, is_trial: false })
    }

    /// The member where the session was last, if it is still in the pool.
    pub(super) fn last(&self) -> Option<usize> {
        let last = self.known()?.last().backend;
        self.pool.members.iter().position(|member| member.backend.id() == last)
    }

    fn was_last(&self, index: usize) -> bool {
        self.known().is_some_and(|known| known.last().backend == self.member(index).backend.id())
    }

    /// The best of the lowest tier of the members that `admit` lets pass.
    fn least(&self, claims: &Claims<'_>, home: usize, admit: impl Fn(usize) -> bool) -> Option<Choice> {
        let tier = self.lowest_tier(&admit)?;
        let candidates = (0..self.pool.members.len())
            .filter(|index| self.in_tier(*index, tier) && admit(*index))
            .map(|index| self.candidate(claims.get(index), index, home));
        ttft::choose(self.lean(), &self.pool.rates, self.ask.bytes, candidates, self.now)
    }

    /// What the score wants to know of a member.
    pub(super) fn candidate(&self, claim: Claim, index: usize, home: usize) -> Candidate<'_> {
        let member = self.member(index);
        let id = member.backend.id();
        let known = self.known();
        let place = known.and_then(|known| known.at(id));
        Candidate {
            member: index,
            waiting: member.backend.waiting(),
            weight: member.weight,
            claim,
            home: index == home,
            seen: place.map(|place| Seen { bytes: u64::from(place.bytes), at: place.seen }),
            last: known.is_some_and(|known| known.last().backend == id),
            slots: member.backend.slots(),
            errors: if place.is_some() { 0 } else { member.backend.error_load(self.now) },
        }
    }

    pub(super) fn lean(&self) -> Lean {
        Lean::new(self.pool.settings.gateways)
    }
}
