//! The preference order of a session: the published hash, tier by tier.

use super::super::hash::Claim;
use super::super::session::SessionKey;
use super::{Member, Pool};

impl Pool {
    /// The first of a key's preference order over all members, whatever their health.
    #[must_use]
    pub fn home(&self, key: SessionKey) -> Option<usize> {
        self.first(key, |_, _| true)
    }

    /// A key's whole preference order, home first.
    #[must_use]
    pub fn order(&self, key: SessionKey) -> Vec<usize> {
        let mut order: Vec<usize> = Vec::with_capacity(self.members.len());
        while let Some(next) = self.first(key, |index, _| !order.contains(&index)) {
            order.push(next);
        }
        order
    }

    /// The first member of a key's preference order that `admit` lets pass: the lowest tier, then the greatest claim.
    pub(super) fn first(&self, key: SessionKey, admit: impl Fn(usize, &Member) -> bool) -> Option<usize> {
        let mut best: Option<(usize, &Member, Claim)> = None;
        for (index, member) in self.members.iter().enumerate() {
            if best.is_some_and(|(_, best, _)| member.priority > best.priority) || !admit(index, member) {
                continue;
            }
            let claim = member.claim(key);
            if best.is_none_or(|(_, best, other)| member.priority < best.priority || claim.beats(other)) {
                best = Some((index, member, claim));
            }
        }
        best.map(|(index, _, _)| index)
    }
}

impl Member {
    pub(super) fn claim(&self, key: SessionKey) -> Claim {
        Claim::new(key, self.name, self.weight)
    }
}
