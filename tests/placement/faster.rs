//! `least_ttft` through a pool: what it makes of sessions, outcomes, tiers and failures.

use ingle::core::pool::{MaxInFlight, Overload, Policy, Settings};
use ingle::core::{Affinity, Ask, InFlight, Millis, Pool, Reason, Selection, SessionKey, Verdict};
use proptest::prelude::*;

use crate::fleet::{any_keys, down_at, key, pool, settings, spec, specs, tried, up_at};

const PROMPT: u64 = 40_000;

fn fastest() -> Settings {
    Settings { policy: Policy::LeastTtft, ..settings() }
}

fn ask(pool: &Pool, key: SessionKey, bytes: u64, now: Millis) -> Selection {
    pool.select(&Ask::new(Some(key), bytes), &tried(&[]), now).selection().unwrap()
}

/// A turn that is answered and over.
fn turn(pool: &Pool, key: SessionKey, bytes: u64, now: Millis) -> Selection {
    let selection = ask(pool, key, bytes, now);
    let there = pool.enter(&selection, now);
    there.first_token(now + 1);
    pool.landed(key, selection, now + 1);
    selection
}

/// A long prompt that awaits its first token at a member.
fn long_prompt(pool: &Pool, member: usize, now: Millis) -> InFlight {
    let mut selection = ask(pool, key(0), 10 * PROMPT, now);
    selection.member = member;
    selection.expected.estimate = 10 * PROMPT;
    pool.enter(&selection, now)
}

proptest! {
    /// Of equal backends of which nothing is known, it is the hash.
    #[test]
    fn what_knows_nothing_is_the_hash(members in 1usize..16, keys in any_keys(), bytes in 0u64..1 << 40) {
        let pool = pool(&specs(&vec![1; members]), fastest());
        for key in keys {
            let selection = ask(&pool, key, bytes, 0);
            prop_assert_eq!((Some(selection.member), selection.affinity), (pool.home(key), Affinity::Home));
        }
    }

    /// Whatever is under way, nobody goes where it was, or where nobody may go.
    #[test]
    fn who_may_not_take_it_does_not(
        sessions in prop::collection::vec((0usize..12, 1u64..100_000, any::<u8>()), 1..80),
    ) {
        let overload = Overload { max_in_flight: MaxInFlight::Fixed(6), ..Overload::OFF };
        let fleet = [spec("a", 1, 0), spec("b", 2, 0), spec("c", 1, 0), spec("spare", 4, 1)];
        let pool = pool(&fleet, Settings { overload, ..fastest() });
        let mut there = Vec::new();
        for (now, (session, bytes, dice)) in (0..).zip(sessions) {
            match dice % 16 {
                0 => down_at(&pool, usize::from(dice / 16) % 3, now),
                1 => up_at(&pool, usize::from(dice / 16) % 3, now),
                2 => there.truncate(there.len() / 2),
                _ => {}
            }
            let been = tried(&[usize::from(dice % 4)]);
            let can = |member: usize| {
                let backend = &pool.members()[member].backend;
                !been.contains(member) && backend.available() && backend.in_flight() < 6
            };
            match pool.select(&Ask::new(Some(key(session)), bytes), &been, now) {
                Verdict::Go(selection) => {
                    prop_assert!(can(selection.member));
                    prop_assert!(selection.member != 3 || !(0..3).any(can), "the spare is a spare");
                    there.push(pool.enter(&selection, now));
                    pool.landed(key(session), selection, now);
                }
                _ => prop_assert!(!(0..4).any(can)),
            }
        }
        drop(there);
        prop_assert!(pool.members().iter().all(|member| member.backend.waiting().count() == 0));
    }
}

#[test]
fn a_new_session_goes_where_fewer_bytes_wait() {
    let pool = pool(&specs(&[1, 1]), fastest());
    let home = pool.home(key(7)).unwrap();
    let there = long_prompt(&pool, home, 0);
    let spilled = ask(&pool, key(7), PROMPT, 0);
    assert_eq!((spilled.member, spilled.affinity), (1 - home, Affinity::Spilled));
    assert_eq!(spilled.reason, Some(Reason::Faster));
    drop(there);
    assert_eq!(ask(&pool, key(7), PROMPT, 0).affinity, Affinity::Home, "who left leaves no trace");
}

#[test]
fn a_session_stays_where_its_cache_is() {
    let pool = pool(&specs(&[1, 1]), fastest());
    let home = pool.home(key(7)).unwrap();
    let there = long_prompt(&pool, home, 0);
    turn(&pool, key(7), PROMPT, 0);
    drop(there);
    let stayed = turn(&pool, key(7), PROMPT + 100, 10);
    assert_eq!((stayed.member, stayed.affinity, stayed.reason), (1 - home, Affinity::Stayed, None));
    assert_eq!(stayed.expected.seen, PROMPT);
    assert_eq!(pool.displaced(), 1, "it is away from home");
}

#[test]
fn a_failure_is_told_from_a_choice() {
    let pool = pool(&specs(&[1, 1, 1]), fastest());
    let home = turn(&pool, key(7), PROMPT, 0).member;
    down_at(&pool, home, 10);
    let moved = turn(&pool, key(7), PROMPT, 20);
    assert_eq!((moved.affinity, moved.reason), (Affinity::Failover, Some(Reason::Unhealthy)));
    assert_eq!(turn(&pool, key(7), PROMPT, 30).affinity, Affinity::Stayed);
    up_at(&pool, home, 40);
    let stayed = turn(&pool, key(7), PROMPT, 50);
    assert_eq!((stayed.member, stayed.affinity), (moved.member, Affinity::Stayed), "what home had seen is gone");
}

/// One that comes back cold is like any other: the session has no more reason to go there than anywhere.
#[test]
fn what_a_crashed_backend_has_seen_is_forgotten() {
    let pool = pool(&specs(&[1, 1]), fastest());
    let at = turn(&pool, key(7), PROMPT, 10).member;
    assert!(ask(&pool, key(7), PROMPT, 20).expected.seen > 0);
    down_at(&pool, at, 30);
    up_at(&pool, at, 40);
    assert_eq!(ask(&pool, key(7), PROMPT, 50).expected.seen, 0);
}

#[test]
fn all_full_is_full() {
    let overload = Overload { max_in_flight: MaxInFlight::Fixed(1), ..Overload::OFF };
    let pool = pool(&specs(&[1, 1]), Settings { overload, fail_open: true, ..fastest() });
    let first = ask(&pool, key(7), PROMPT, 0);
    let _first = pool.enter(&first, 0);
    let second = ask(&pool, key(7), PROMPT, 0);
    assert_eq!((second.affinity, second.reason), (Affinity::Spilled, Some(Reason::MaxInFlight)));
    let _second = pool.enter(&second, 0);
    assert_eq!(pool.select(&Ask::new(Some(key(7)), PROMPT), &tried(&[]), 0), Verdict::Full);
}

/// Requests without a session go by turns, and their prompts are waited for like all others.
#[test]
fn keyless_requests_are_a_load() {
    let pool = pool(&specs(&[1, 1]), fastest());
    let home = pool.home(key(7)).unwrap();
    let selections: Vec<_> =
        (0..2).map(|_| pool.select(&Ask::new(None, PROMPT), &tried(&[]), 0).selection().unwrap()).collect();
    assert_ne!(selections[0].member, selections[1].member);
    let at_home = selections.iter().find(|selection| selection.member == home).unwrap();
    let _there = pool.enter(at_home, 0);
    assert_eq!(pool.members()[home].backend.waiting().bytes(), PROMPT);
    assert_eq!(ask(&pool, key(7), PROMPT, 0).reason, Some(Reason::Faster));
}
