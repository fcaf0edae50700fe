//! Slow start: what a backend that recovered or joined gets of what is new.

use ingle::core::pool::Settings;
use ingle::core::{Affinity, Millis, Observation, Pool, Reason};
use proptest::prelude::*;

use crate::fleet::{IDLE_TTL, THRESHOLDS, down_at, key, pool, select, settings, spec, specs, tried, turn, up_at};

/// When it recovered, and how long it takes to warm up.
const BACK: Millis = 10_000;
const RAMP: Millis = 60_000;

fn slowly() -> Settings {
    Settings { slow_start: RAMP, ..settings() }
}

/// A pool of equals in which the first one was down and is back since [`BACK`].
fn recovered(members: usize) -> Pool {
    let pool = pool(&specs(&vec![1; members]), slowly());
    down_at(&pool, 0, 1000);
    up_at(&pool, 0, BACK);
    pool
}

/// Of the sessions whose home is member 0, those that it gets.
fn got(pool: &Pool, sessions: usize, now: Millis) -> (Vec<usize>, usize) {
    let own: Vec<usize> = (0..sessions).filter(|n| pool.home(key(*n)) == Some(0)).collect();
    let gets = |n: &usize| select(pool, Some(key(*n)), &tried(&[]), now).unwrap().member == 0;
    let got = own.iter().copied().filter(gets).collect();
    (got, own.len())
}

#[test]
fn its_share_of_new_sessions_grows_and_who_was_let_in_stays_in() {
    let pool = recovered(4);
    let mut before = Vec::new();
    for percent in [0, 10, 25, 50, 75, 100] {
        let (got, all) = got(&pool, 4000, BACK + RAMP * percent / 100);
        let share = 100 * got.len() / all;
        assert!(share.abs_diff(percent as usize) <= 4, "{share} % of its own after {percent} % of the time");
        assert!(before.iter().all(|n| got.contains(n)));
        before = got;
    }
    assert!(
        (0..4000).all(|n| select(&pool, Some(key(n)), &tried(&[]), BACK + RAMP).unwrap().affinity == Affinity::Home)
    );
}

#[test]
fn who_is_held_back_spills_to_the_next_and_stays_there() {
    let pool = recovered(4);
    let held_back = (0..).find(|n| pool.home(key(*n)) == Some(0)).unwrap();
    let selection = select(&pool, Some(key(held_back)), &tried(&[]), BACK).unwrap();
    assert_eq!((selection.affinity, selection.reason), (Affinity::Spilled, Some(Reason::SlowStart)));
    let next = pool.order(key(held_back))[1];
    assert_eq!(turn(&pool, key(held_back), BACK), (next, Affinity::Spilled));
    assert_eq!(turn(&pool, key(held_back), BACK + RAMP), (next, Affinity::Stayed));
}

/// A session that was there a moment ago finds its way back at once, whoever is new waits for its turn.
#[test]
fn known_sessions_are_not_held_back() {
    for stay_put in [true, false] {
        let pool = pool(&specs(&[1, 1, 1]), Settings { stay_put, ..slowly() });
        let own: Vec<usize> = (0..100).filter(|n| pool.home(key(*n)) == Some(0)).collect();
        for n in &own {
            assert_eq!(turn(&pool, key(*n), 500), (0, Affinity::Home));
        }
        down_at(&pool, 0, 1000);
        up_at(&pool, 0, BACK);
        for n in &own {
            assert_eq!(turn(&pool, key(*n), BACK), (0, Affinity::Home));
        }
        assert_eq!(got(&pool, 1000, BACK).0.len(), own.len(), "all others are new");
        // After a silence it is as new as anybody.
        let idle = pool.rebuild(&specs(&[1, 1, 1]), Settings { slow_start: 2 * IDLE_TTL, ..slowly() });
        assert!(got(&idle, 100, BACK + IDLE_TTL).0.len() < own.len());
    }
}

#[test]
fn keyless_requests_come_by_its_grown_share() {
    let pool = recovered(3);
    for (percent, turns, expected) in [(25, 225, 25), (50, 250, 50), (100, 300, 100)] {
        let now = BACK + RAMP * percent / 100;
        let seen = (0..turns).filter(|_| select(&pool, None, &tried(&[]), now).unwrap().member == 0).count();
        assert!(seen.abs_diff(expected) <= 1, "{seen} of {turns} after {percent} %");
    }
}

/// A gateway that starts, or a rack whose power is back: nobody is warmer than the others, so nobody holds back.
#[test]
fn who_began_together_warms_up_together() {
    let fresh = pool(&specs(&[1, 1, 1]), slowly());
    let all_home = |pool: &Pool, now: Millis| {
        (0..200).all(|n| select(pool, Some(key(n)), &tried(&[]), now).unwrap().affinity == Affinity::Home)
    };
    assert!(all_home(&fresh, 0), "all were there before the gateway");
    let rack = pool(&specs(&[1, 1, 1]), slowly());
    (0..3).for_each(|member| down_at(&rack, member, 1000));
    (0..3).for_each(|member| up_at(&rack, member, BACK));
    assert!(all_home(&rack, BACK) && all_home(&rack, BACK + 1) && all_home(&rack, BACK + RAMP / 2));
}

/// Who loads its model while the gateway starts has come later than those who did not.
#[test]
fn who_is_not_ready_at_the_start_warms_up() {
    let pool = Pool::new(&specs(&[1, 1]), slowly());
    pool.members()[0].backend.observe(Observation::ProbeLoading, THRESHOLDS, 0);
    up_at(&pool, 1, 0);
    up_at(&pool, 0, BACK);
    assert!(got(&pool, 200, BACK).0.is_empty());
}

#[test]
fn a_backend_that_joins_leaves_sessions_where_they_are() {
    let old = pool(&specs(&[1, 1]), slowly());
    let places: Vec<_> = (0..300).map(|n| turn(&old, key(n), 0).0).collect();
    let mut fleet = specs(&[1, 1]);
    fleet.push(spec("new", 1, 0));
    let new = old.rebuild(&fleet, slowly());
    up_at(&new, 2, BACK);
    let moved = |now: Millis| (0..300).filter(|n| turn(&new, key(*n), now).0 != places[*n]).count();
    assert_eq!(moved(BACK), 0, "they are new there, and their caches are here");
    assert_eq!(moved(BACK + RAMP), 0, "and here they stay until they are idle");
    assert!(moved(BACK + RAMP + IDLE_TTL) > 70, "a third of them");
}

/// The spare goes on with what the first tier is not warm enough for.
#[test]
fn a_spare_helps_out_while_the_only_one_warms_up() {
    let pool = pool(&[spec("gpu0", 1, 0), spec("spare", 1, 1)], slowly());
    down_at(&pool, 0, 1000);
    up_at(&pool, 0, BACK);
    let (half, all) = got(&pool, 1000, BACK + RAMP / 2);
    assert!(half.len().abs_diff(all / 2) < 50, "{} of {all}", half.len());
    down_at(&pool, 1, BACK);
    assert_eq!(got(&pool, 100, BACK).0.len(), 100, "nobody else is there");
}

proptest! {
    /// Warming up refuses nobody: as without it, whoever asks gets somebody while one is available.
    #[test]
    fn nobody_is_refused(up in 1u8..64, since in prop::collection::vec(0u64..100_000, 6), now in 0u64..200_000) {
        let pool = pool(&specs(&[1, 2, 3, 1, 2, 3]), slowly());
        for (member, since) in (0..6).zip(since) {
            down_at(&pool, member, 0);
            if up >> member & 1 == 1 {
                up_at(&pool, member, since);
            }
        }
        for n in 0..20 {
            let selection = select(&pool, Some(key(n)), &tried(&[]), now).unwrap();
            prop_assert!(up >> selection.member & 1 == 1);
            prop_assert!(select(&pool, None, &tried(&[]), now).is_some());
        }
    }
}
