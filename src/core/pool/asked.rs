//! One request and the pool that is asked: who may take it, and why another may not.

use std::cell::{Cell, OnceCell};

use super::super::Millis;
use super::super::sessions::Known;
use super::{Ask, DrainSessions, MaxInFlight, Member, Patience, Policy, Pool, Reason, Tried};

/// A request that is to be placed. What costs more than a glance is looked up once, when it is first needed.
pub(super) struct Asked<'a> {
    pub(super) pool: &'a Pool,
    pub(super) ask: Ask,
    pub(super) tried: &'a Tried,
    pub(super) now: Millis,
    known: OnceCell<Option<Known>>,
    /// How far the backend has warmed up that has come furthest.
    warmest: OnceCell<f64>,
    load: Cell<Option<Load>>,
}

/// What the available members of a tier have to do, those included who wait for them.
#[derive(Clone, Copy)]
struct Load {
    tier: u32,
    requests: u64,
    weight: u64,
}

impl<'a> Asked<'a> {
    pub(super) fn new(pool: &'a Pool, ask: Ask, tried: &'a Tried, now: Millis) -> Asked<'a> {
        let (known, warmest, load) = (OnceCell::new(), OnceCell::new(), Cell::new(None));
        Asked { pool, ask, tried, now, known, warmest, load }
    }

    /// What is known of its session.
    pub(super) fn known(&self) -> Option<&Known> {
        let look = || self.ask.key.and_then(|key| self.pool.known(key, self.now));
        self.known.get_or_init(look).as_ref()
    }

    /// Why this member is not the one to take the request, if there is a reason, the hardest first.
    pub(super) fn obstacle(&self, index: usize) -> Option<Reason> {
        self.barred(index).or_else(|| {
            let reasons = [Reason::Stalled, Reason::SlowStart, Reason::MaxInFlight, Reason::Balance];
            let hindrances = [Self::shunned, Self::held_back, Self::full, Self::busy];
            reasons.into_iter().zip(hindrances).find_map(|(reason, hinders)| {
                let hindered = hinders(self, index);
                hindered.then_some(reason)
            })
        })
    }

    /// Whether it could take the request: it may, and has room.
    pub(super) fn can(&self, index: usize) -> bool {
        self.barred(index).is_none() && !self.full(index)
    }

    /// Whether it could take the request, and nothing is to be said for its warming up first, or for leaving it alone.
    pub(super) fn ready(&self, index: usize) -> bool {
        self.can(index) && !self.held_back(index) && !self.shunned(index)
    }

    /// Why this member may not take the request, however much room there is.
    pub(super) fn barred(&self, index: usize) -> Option<Reason> {
        let backend = &self.member(index).backend;
        if !backend.state().serves() {
            Some(Reason::Unhealthy)
        } else if backend.drains_since().is_some_and(|since| !self.may_go_on(index, since)) {
            Some(Reason::Draining)
        } else {
            self.tried.contains(index).then_some(Reason::Tried)
        }
    }

    /// Whether the session may go on at a member that drains: it was there last, and its cache is warm.
    fn may_go_on(&self, index: usize, since: Millis) -> bool {
        let drain = self.pool.settings.drain;
        if drain.sessions == DrainSessions::AtOnce
            || drain.deadline.is_some_and(|deadline| self.now.saturating_sub(since) >= deadline)
        {
            return false;
        }
        let backend = &self.member(index).backend;
        let last = self.known().map(Known::last).filter(|last| last.backend == backend.id());
        last.is_some_and(|last| !self.idle(last.seen) && backend.warm(last.seen))
    }

    /// Whether a member that warms up has no turn for this session yet: it is new there, and its lot is beyond the
    /// share that has passed. A lot depends on the session alone, so who was let in once is let in from then on.
    pub(super) fn held_back(&self, index: usize) -> bool {
        if self.needs_no_room() {
            return false;
        }
        let slow_start = self.pool.settings.slow_start;
        let backend = &self.member(index).backend;
        let Some(key) = self.ask.key.filter(|_| slow_start > 0 && backend.warmed(slow_start, self.now) < 1.0) else {
            return false;
        };
        lot(key.bits()) >= self.warmth(index) && !self.has_cache(index)
    }

    /// Whether a member is known to have the session's cache, which is worth waiting for.
    pub(super) fn keeps_cache(&self, index: usize) -> bool {
        let backend = &self.member(index).backend;
        let place = self.known().and_then(|known| known.at(backend.id()));
        place.is_some_and(|place| !self.idle(place.seen) && backend.warm(place.seen))
    }

    /// Where a request waits, if all that may take it are full: where it waits already, or else the first that has room in
    /// its line.
    pub(super) fn waits_at(&self, first: impl Fn(&dyn Fn(usize) -> bool) -> Option<usize>) -> Option<usize> {
        let may = |index: usize| self.barred(index).is_none();
        match self.ask.patience {
            Patience::Spills | Patience::NeedsNoRoom => None,
            Patience::Called(at) | Patience::InLine(at) if may(at) => Some(at),
            // Also if the one that it waited for can't take it any more.
            patience => first(&|index| may(index) && self.has_line(index)).or_else(|| {
                let displaces = patience == Patience::Displaces && self.pool.settings.overload.max_waiting > 0;
                if displaces { first(&may) } else { None }
            }),
        }
    }

    /// Whether the session was at a member lately.
    fn has_cache(&self, index: usize) -> bool {
        let id = self.member(index).backend.id();
        self.known().and_then(|known| known.at(id)).is_some_and(|place| !self.idle(place.seen))
    }

    /// Whether a member serves only those whose cache it has: it does not answer, while others do.
    pub(super) fn shunned(&self, index: usize) -> bool {
        self.member(index).backend.on_trial() && !self.has_cache(index)
    }

    /// Whether this request could be a trial of a member, which could have gone `before` milliseconds ago.
    pub(super) fn could_try(&self, index: usize, before: Millis) -> bool {
        let backend = &self.member(index).backend;
        // What takes no slot shows nothing of the model.
        !self.needs_no_room()
            && backend.trial_due(before, self.now)
            && !backend.draining()
            && !self.tried.contains(index)
            && !self.full(index)
    }

    /// How far a member has warmed up, 0 to 1, by the measure of who has come furthest: where all have begun together,
    /// nobody holds back for anybody.
    pub(super) fn warmth(&self, index: usize) -> f64 {
        let slow_start = self.pool.settings.slow_start;
        let warmed = |member: &Member| member.backend.warmed(slow_start, self.now);
        let own = warmed(self.member(index));
        if slow_start == 0 || own >= 1.0 {
            return 1.0;
        }
        let available = || self.pool.members.iter().filter(|member| member.backend.available());
        let warmest = *self.warmest.get_or_init(|| available().map(warmed).fold(0.0, f64::max));
        if own >= warmest { 1.0 } else { own / warmest }
    }

    /// Whether it has as many requests as it may have.
    pub(super) fn full(&self, index: usize) -> bool {
        !self.needs_no_room() && self.pool.limit(index).is_some_and(|limit| self.load_at(index) >= limit)
    }

    /// Whether the request takes no slot.
    pub(super) fn needs_no_room(&self) -> bool {
        self.ask.patience == Patience::NeedsNoRoom
    }

    /// Whether it has too much of what there is to do.
    pub(super) fn busy(&self, index: usize) -> bool {
        if self.needs_no_room() {
            return false;
        }
        let load = self.load_at(index);
        // The sum over all is needed only beyond the floor.
        load >= u64::from(self.pool.settings.overload.balance_floor)
            && self.bound(index).is_some_and(|bound| load >= bound)
    }

    /// The most requests that a member may have before sessions leave it: `max(floor, ceil(factor * requests * share))`,
    /// where this request is one of them, and the share is that of its weight among the available ones of its tier.
    /// `None` if there is no such bound, as there is none for one that drains, and none with `least_ttft`.
    pub(super) fn bound(&self, index: usize) -> Option<u64> {
        let overload = self.pool.settings.overload;
        let member = self.member(index);
        let weighed = self.pool.settings.policy == Policy::ConsistentHash && member.backend.available();
        let factor = overload.balance_factor.filter(|_| weighed)?;
        let Load { requests, weight, .. } = self.load(member.priority);
        let share = factor * requests as f64 * f64::from(member.weight) / weight as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and no more than u64::MAX"
        )]
        let share = share.ceil() as u64;
        Some(share.max(u64::from(overload.balance_floor)))
    }

    /// The requests at a member and before this one in its queue.
    pub(super) fn load_at(&self, index: usize) -> u64 {
        let backend = &self.member(index).backend;
        let before = if self.ask.patience == Patience::Called(index) { 0 } else { backend.queued() };
        (backend.in_flight() + before) as u64
    }

    fn load(&self, tier: u32) -> Load {
        if let Some(load) = self.load.get().filter(|load| load.tier == tier) {
            return load;
        }
        // A request that waits is counted among those that wait.
        let own = u64::from(!matches!(self.ask.patience, Patience::Called(_) | Patience::InLine(_)));
        let mut load = Load { tier, requests: own, weight: 0 };
        for member in self.pool.members.iter().filter(|member| member.priority == tier && member.backend.available()) {
            load.requests += (member.backend.in_flight() + member.backend.queued()) as u64;
            load.weight += u64::from(member.weight);
        }
        self.load.set(Some(load));
        load
    }

    /// Whether the request would wait for room at a member, and may.
    pub(super) fn would_wait(&self, index: usize) -> bool {
        match self.ask.patience {
            Patience::Waits => self.has_line(index),
            Patience::Displaces => self.pool.settings.overload.max_waiting > 0,
            Patience::Called(at) | Patience::InLine(at) => at == index,
            Patience::Spills | Patience::NeedsNoRoom => false,
        }
    }

    /// Whether one more may wait for a member.
    fn has_line(&self, index: usize) -> bool {
        self.member(index).backend.queued() < self.pool.settings.overload.max_waiting as usize
    }

    /// The lowest tier of the members that `admit` lets pass. `None` if it lets nobody pass, unless there is but one tier:
    /// then nobody needs to be asked.
    pub(super) fn lowest_tier(&self, admit: impl Fn(usize) -> bool) -> Option<u32> {
        if let Some(tier) = self.pool.only_tier {
            return Some(tier);
        }
        (0..self.pool.members.len()).filter(|index| admit(*index)).map(|index| self.member(index).priority).min()
    }

    pub(super) fn in_tier(&self, index: usize, tier: u32) -> bool {
        self.member(index).priority == tier
    }

    pub(super) fn member(&self, index: usize) -> &'a Member {
        &self.pool.members[index]
    }

    fn idle(&self, seen: Millis) -> bool {
        self.now.saturating_sub(seen) >= self.pool.settings.idle_ttl
    }
}

impl Pool {
    /// The most requests that a member may have.
    pub(super) fn limit(&self, index: usize) -> Option<u64> {
        match self.settings.overload.max_in_flight {
            MaxInFlight::Off => None,
            MaxInFlight::Fixed(limit) => Some(u64::from(limit)),
            MaxInFlight::Auto => self.members[index].backend.slots().map(u64::from),
        }
    }
}

/// A session's lot, evenly spread over 0 to 1 and independent of its home: the finaliser of `SplitMix64`.
fn lot(bits: u64) -> f64 {
    let mut z = bits;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / TWO_POW_53
}

const TWO_POW_53: f64 = 9_007_199_254_740_992.0;
