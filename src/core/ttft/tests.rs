//! What the policy promises, whatever the load.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::hash::{Claim, NameHash};
use super::super::usage::Usage;
use super::super::{Millis, Seed, SessionKey};
use super::*;

/// Backends, and what one gateway knows of them and of sessions.
struct Fleet {
    lean: Lean,
    rates: Rates,
    backends: Vec<(Arc<Waiting>, NameHash, u32)>,
    sessions: HashMap<SessionKey, (usize, Seen)>,
}

impl Fleet {
    fn new(weights: &[u32], gateways: u32) -> Fleet {
        let name = |i| NameHash::new(&format!("gpu{i}"), Seed::new(""));
        Fleet {
            lean: Lean::new(gateways),
            rates: Rates::default(),
            backends: (0..).zip(weights).map(|(i, weight)| (Arc::default(), name(i), *weight)).collect(),
            sessions: HashMap::new(),
        }
    }

    fn claim(&self, key: SessionKey, member: usize) -> Claim {
        Claim::new(key, self.backends[member].1, self.backends[member].2)
    }

    fn home(&self, key: SessionKey) -> usize {
        let better = |best, other| if self.claim(key, other).beats(self.claim(key, best)) { other } else { best };
        (0..self.backends.len()).reduce(better).unwrap()
    }

    fn candidate(&self, key: SessionKey, member: usize) -> Candidate<'_> {
        let (waiting, _, weight) = &self.backends[member];
        let place = self.sessions.get(&key).filter(|(at, _)| *at == member);
        Candidate {
            member,
            waiting,
            weight: *weight,
            claim: self.claim(key, member),
            home: self.home(key) == member,
            seen: place.map(|(_, seen)| *seen),
            last: place.is_some(),
            slots: None,
            errors: 0,
        }
    }

    fn choose(&self, key: SessionKey, bytes: u64, now: Millis) -> Choice {
        let candidates = (0..self.backends.len()).map(|member| self.candidate(key, member));
        choose(self.lean, &self.rates, bytes, candidates, now).unwrap()
    }

    fn enter(&self, member: usize, bytes: u64, now: Millis) -> Ticket {
        self.backends[member].0.enter(Expected { bytes, seen: 0, age: 0, estimate: bytes, weight: 1 }, now)
    }

    fn terms(&self, key: SessionKey, bytes: u64, member: usize, now: Millis) -> Terms {
        let candidate = self.candidate(key, member);
        score(self.lean, &self.rates, expect(&self.rates, bytes, &candidate, now), &candidate, now)
    }
}

/// One step of a history: which session, how long a prompt, how much later, which of the waiting ones gets its token,
/// how much of it was cached.
type Step = (u64, u64, u64, prop::sample::Index, u64);

fn history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0u64..12, 100u64..400_000, 0u64..3_000, any::<prop::sample::Index>(), 0u64..=100), 1..120)
}

/// Plays a history with all times multiplied; where the requests went.
fn play(steps: &[Step], weights: &[u32], gateways: u32, times: u64) -> (Fleet, Vec<usize>) {
    let mut fleet = Fleet::new(weights, gateways);
    let mut there: Vec<(SessionKey, Choice, Ticket)> = Vec::new();
    let (mut now, mut chosen) = (1, Vec::new());
    for (session, bytes, later, which, cached) in steps {
        now += later;
        let key = SessionKey::from_bits(session.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let choice = fleet.choose(key, *bytes, now * times);
        chosen.push(choice.member);
        there.push((key, choice, fleet.backends[choice.member].0.enter(choice.expected, now * times)));
        if there.len() > 6 {
            let (key, choice, ticket) = there.swap_remove(which.index(there.len()));
            now += later / 2;
            ticket.first_token(&fleet.rates, now * times);
            ticket.usage(&fleet.rates, Usage { prompt: 100, cached: Some(*cached) });
            fleet.sessions.insert(key, (choice.member, Seen { bytes: choice.expected.bytes, at: now * times }));
        }
    }
    (fleet, chosen)
}

proptest! {
    /// 32 is a power of two, so that not even rounding differs.
    #[test]
    fn the_unit_of_time_does_not_matter(steps in history(), gateways in 1u32..4, times in prop::sample::select(vec![2u64, 32, 1024])) {
        let weights = [1, 2, 1, 4];
        prop_assert_eq!(play(&steps, &weights, gateways, 1).1, play(&steps, &weights, gateways, times).1);
    }

    #[test]
    fn no_term_is_ever_negative(steps in history(), gateways in 1u32..4, bytes in 0u64..1 << 40, later in 0u64..1 << 40) {
        let (fleet, _) = play(&steps, &[1, 2, 1, 4], gateways, 1);
        for session in 0u64..12 {
            let key = SessionKey::from_bits(session.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            for member in 0..4 {
                let terms = fleet.terms(key, bytes, member, 400_000 + later);
                for term in [terms.wait, terms.recompute, terms.decoding, terms.total] {
                    prop_assert!(term >= 0.0 && term.is_finite(), "{terms:?}");
                }
                prop_assert!(terms.speed > 0.0);
            }
        }
    }

    #[test]
    fn more_to_read_before_it_never_makes_a_backend_better(
        steps in history(), bytes in 1u64..400_000, more in 1u64..400_000, member in 0usize..4,
    ) {
        let (fleet, _) = play(&steps, &[1, 2, 1, 4], 1, 1);
        let (key, now) = (SessionKey::from_bits(77), 500_000);
        let before = fleet.terms(key, bytes, member, now).total;
        let others: Vec<f64> = (0..4).map(|other| fleet.terms(key, bytes, other, now).total).collect();
        let _more = fleet.enter(member, more, now);
        prop_assert!(fleet.terms(key, bytes, member, now).total > before);
        for other in (0..4).filter(|other| *other != member) {
            prop_assert_eq!(fleet.terms(key, bytes, other, now).total, others[other]);
        }
    }

    #[test]
    fn who_knows_nothing_is_the_consistent_hash(bits: u64, n in 1usize..40, gateways in 1u32..4, bytes in 0u64..1 << 30, now: u64) {
        let (fleet, key) = (Fleet::new(&vec![1; n], gateways), SessionKey::from_bits(bits));
        prop_assert_eq!(fleet.choose(key, bytes, now).member, fleet.home(key));
    }

    #[test]
    fn what_was_seen_attracts(bits: u64, member in 0usize..8, bytes in 4_000u64..1 << 30, gateways in 1u32..4) {
        let mut fleet = Fleet::new(&[1; 8], gateways);
        let key = SessionKey::from_bits(bits);
        fleet.sessions.insert(key, (member, Seen { bytes, at: 1_000 }));
        prop_assert_eq!(fleet.choose(key, bytes + 1_000, 2_000).member, member);
        fleet.backends[member].0.went_cold(1_500);
        prop_assert_eq!(fleet.choose(key, bytes + 1_000, 2_000).member, fleet.home(key), "the cache is lost");
    }

    #[test]
    fn a_session_leaves_a_long_queue_and_not_a_short_one(bits: u64, bytes in 40_000u64..1 << 30) {
        let mut fleet = Fleet::new(&[1; 8], 1);
        let (key, home) = (SessionKey::from_bits(bits), fleet.home(SessionKey::from_bits(bits)));
        fleet.sessions.insert(key, (home, Seen { bytes, at: 1_000 }));
        let _short = fleet.enter(home, 1_500, 2_000);
        prop_assert_eq!(fleet.choose(key, bytes, 2_000).member, home);
        let _long = fleet.enter(home, 2 * bytes, 2_000);
        prop_assert_ne!(fleet.choose(key, bytes, 2_000).member, home);
    }
}

#[test]
fn three_times_the_weight_is_three_times_as_fast_until_it_turns_out_otherwise() {
    let fleet = Fleet::new(&[1, 3], 1);
    let key = SessionKey::from_bits(1);
    let slow = fleet.terms(key, 10_000, 0, 10).total;
    assert!((slow / fleet.terms(key, 10_000, 1, 10).total - 3.0).abs() < 1e-9);
    let mut now = 10;
    for _ in 0..300 {
        for member in [0, 1] {
            let expected = fleet.choose(key, 32_000, now).expected;
            let weight = fleet.backends[member].2;
            let ticket = fleet.backends[member].0.enter(Expected { weight, ..expected }, now);
            now += 1_000;
            ticket.first_token(&fleet.rates, now);
        }
    }
    let ratio = fleet.terms(key, 10_000, 0, now).total / fleet.terms(key, 10_000, 1, now).total;
    assert!((0.8..1.3).contains(&ratio), "both took a second for the same prompt: {ratio}");
}

#[test]
fn without_a_free_slot_a_backend_costs_the_end_of_an_answer() {
    let fleet = Fleet::new(&[1], 1);
    let key = SessionKey::from_bits(1);
    let mut answers = Vec::new();
    for turn in 1..=200u64 {
        let ticket = fleet.enter(0, 32_000, turn * 1_000);
        ticket.first_token(&fleet.rates, turn * 1_000 + 500);
        answers.push(ticket);
        if answers.len() > 4 {
            answers.remove(0);
        }
    }
    let with = |slots| {
        let candidate = Candidate { slots, ..fleet.candidate(key, 0) };
        score(fleet.lean, &fleet.rates, expect(&fleet.rates, 1_000, &candidate, 300_000), &candidate, 300_000)
    };
    assert_eq!(with(None), with(Some(5)), "one is free");
    // Four answers at a time, one more each second: one takes four seconds, and 64 bytes are read in a millisecond.
    let wait = with(Some(4)).wait;
    assert!((50_000.0..80_000.0).contains(&wait), "{wait}: until the next one of four has ended, a second");
    assert!(with(Some(2)).wait > 2.0 * wait, "three must end");
}

#[test]
fn a_recomputed_byte_weighs_more_the_more_wait_behind_it() {
    let (lean, rates) = (Lean::new(1), Rates::default());
    assert!((lean.recompute(&rates) - 1.5).abs() < 1e-9);
    let fleet = Fleet::new(&[1], 1);
    for turn in 0..200 {
        let tickets: Vec<Ticket> = (0..5).map(|_| fleet.enter(0, 1_000, turn * 100)).collect();
        tickets.iter().zip(1..).for_each(|(ticket, later)| ticket.first_token(&fleet.rates, turn * 100 + later));
    }
    assert!((fleet.rates.behind() - 2.0).abs() < 0.1, "4, 3, 2, 1 and none: {}", fleet.rates.behind());
    assert!((lean.recompute(&fleet.rates) - 3.5).abs() < 0.1);
    assert!((Lean::new(3).recompute(&fleet.rates) - 7.5).abs() < 0.3, "others see twice as many");
    assert!(Lean::new(1000).recompute(&fleet.rates) < 32.0, "bounded");
}
