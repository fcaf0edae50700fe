//! Why a session would go where it would go.

use super::super::Millis;
use super::super::session::SessionKey;
use super::super::ttft::{self, Terms};
use super::asked::Asked;
use super::{Ask, Patience, Policy, Pool, Reason, Tried, Verdict};

/// Why a session would go where it would go.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Where a request would go now.
    pub verdict: Verdict,
    /// How often the session has been seen, if it is known.
    pub turns: Option<u32>,
    /// All members, in the order of the session's preference: home first.
    pub members: Vec<MemberView>,
}

/// A member as one session sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemberView {
    /// The index in [`Pool::members`].
    pub member: usize,
    /// Why it is not the one, if it is for anything but the preference: what bars it, hinders it, or makes it spill.
    pub obstacle: Option<Reason>,
    /// Requests that are there.
    pub in_flight: usize,
    /// Requests that wait for room there.
    pub queued: usize,
    /// The most that may be there, if there is a limit.
    pub limit: Option<u64>,
    /// The most that may be there before sessions spill, as things are now; with the hash and a balance factor.
    pub bound: Option<u64>,
    /// How far it has warmed up, 0 to 1.
    pub warmth: f64,
    /// Whether the session's last turn was there.
    pub last: bool,
    /// What it has seen of the session.
    pub seen: Option<SeenThere>,
    /// The terms of its score, in bytes of prompt; with `least_ttft`.
    pub terms: Option<Terms>,
}

/// What a backend has seen of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenThere {
    /// The length of the last prompt.
    pub bytes: u64,
    /// How long ago that was.
    pub age: Millis,
    /// Whether the backend has served without a break since, so that it may still be cached.
    pub warm: bool,
}

impl Pool {
    /// Explains where a request of this session, with a body of so many bytes, would go now. Nothing is noted.
    #[must_use]
    pub fn explain(&self, key: SessionKey, bytes: u64, now: Millis) -> Explanation {
        let waits = self.settings.overload.max_waiting > 0;
        let patience = if waits { Patience::Waits } else { Patience::Spills };
        let (ask, tried) = (Ask { key: Some(key), bytes, patience }, Tried::default());
        let verdict = self.select(&ask, &tried, now);
        let asked = Asked::new(self, ask, &tried, now);
        let order = self.order(key);
        let members = order.iter().map(|index| asked.view(key, *index, order[0])).collect();
        Explanation { verdict, turns: asked.known().map(|known| known.turns), members }
    }
}

impl Asked<'_> {
    fn view(&self, key: SessionKey, index: usize, home: usize) -> MemberView {
        let backend = &self.member(index).backend;
        let place = self.known().and_then(|known| known.at(backend.id()));
        let hash = self.pool.settings.policy == Policy::ConsistentHash;
        let terms = || {
            let candidate = self.candidate(self.member(index).claim(key), index, home);
            let expected = ttft::expect(&self.pool.rates, self.ask.bytes, &candidate, self.now);
            ttft::score(self.lean(), &self.pool.rates, expected, &candidate, self.now)
        };
        MemberView {
            member: index,
            obstacle: self.obstacle(index),
            in_flight: backend.in_flight(),
            queued: backend.queued(),
            limit: self.pool.limit(index),
            bound: self.bound(index),
            warmth: self.warmth(index),
            last: self.last() == Some(index),
            seen: place.map(|place| SeenThere {
                bytes: u64::from(place.bytes),
                age: self.now.saturating_sub(place.seen),
                warm: backend.warm(place.seen),
            }),
            terms: (!hash).then(terms),
        }
    }
}
