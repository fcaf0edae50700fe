//! The preference order of a session: the published hash, tier by tier.

use std::cmp::Ordering;

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

/// The claims of all members on one key: those of a fleet of usual size are computed once, the others when asked for.
pub(super) struct Claims<'a> {
    pool: &'a Pool,
    key: SessionKey,
    kept: [Claim; KEPT],
}

impl<'a> Claims<'a> {
    /// `None` without members.
    pub(super) fn new(pool: &'a Pool, key: SessionKey) -> Option<Claims<'a>> {
        let mut kept = [pool.members.first()?.claim(key); KEPT];
        for (kept, member) in kept.iter_mut().zip(&pool.members).skip(1) {
            *kept = member.claim(key);
        }
        Some(Claims { pool, key, kept })
    }

    pub(super) fn get(&self, index: usize) -> Claim {
        self.kept.get(index).copied().unwrap_or_else(|| self.pool.members[index].claim(self.key))
    }

    /// [`Pool::home`].
    pub(super) fn home(&self) -> usize {
        let members = &self.pool.members;
        (1..members.len()).fold(0, |best, index| match members[index].priority.cmp(&members[best].priority) {
            Ordering::Less => index,
            Ordering::Equal if self.get(index).beats(self.get(best)) => index,
            _ => best,
        })
    }
}

const KEPT: usize = 64;

impl Member {
    pub(super) fn claim(&self, key: SessionKey) -> Claim {
        Claim::new(key, self.name, self.weight)
    }
}
