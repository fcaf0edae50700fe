//! Much to do: who spills, who waits, who is refused.

use ingle::core::pool::{Balance, MaxInFlight, Overload, Settings};
use ingle::core::{Affinity, Ask, InFlight, Patience, Pool, Reason, SessionKey, Signals, Verdict};
use proptest::prelude::*;

use crate::fleet::{busy, down, down_at, key, pool, select, settings, spec, specs, tried, turn, up_at};

const BOUNDED: Overload =
    Overload { max_in_flight: MaxInFlight::Off, balance_factor: Some(1.25), balance_floor: 4, max_waiting: 0 };

fn bounded() -> Settings {
    Settings { overload: BOUNDED, ..settings() }
}

fn limited(limit: u32) -> Overload {
    Overload { max_in_flight: MaxInFlight::Fixed(limit), ..Overload::OFF }
}

fn verdict(pool: &Pool, key: SessionKey, patience: Patience) -> Verdict {
    pool.select(&Ask { key: Some(key), bytes: 0, patience }, &tried(&[]), 0)
}

/// `max(floor, ceil(factor * (total + 1) * weight / sum of weights))`, said again.
#[expect(clippy::cast_possible_truncation, reason = "a small number of requests")]
fn bound(weights: &[u32], total: usize, member: usize) -> usize {
    let sum = f64::from(weights.iter().sum::<u32>());
    (1.25 * (total + 1) as f64 * f64::from(weights[member]) / sum).ceil().max(4.0) as usize
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// At home if there is room, else at the first of the order that has room; and there always is somebody.
    #[test]
    fn a_session_goes_to_the_first_of_its_order_below_the_bound(
        there in prop::collection::vec((1u32..20, 0usize..40), 1..12),
        session: u64,
    ) {
        let (weights, loads): (Vec<_>, Vec<_>) = there.into_iter().unzip();
        let pool = pool(&specs(&weights), bounded());
        let _there: Vec<_> = (0..).zip(&loads).map(|(member, load)| busy(&pool, member, *load)).collect();
        let key = SessionKey::from_bits(session);
        let total = loads.iter().sum();
        let order = pool.order(key);
        let free = |member: &&usize| loads[**member] < bound(&weights, total, **member);
        let expected = *order.iter().find(free).unwrap();
        let selection = select(&pool, Some(key), &tried(&[]), 0).unwrap();
        prop_assert_eq!(selection.member, expected);
        let outcome = match expected == order[0] {
            true => (Affinity::Home, None),
            false => (Affinity::Spilled, Some(Reason::Balance)),
        };
        prop_assert_eq!((selection.affinity, selection.reason), outcome);
    }

    /// Whatever sessions come and go, nobody is sent to a backend beyond its bound.
    #[test]
    fn the_bound_holds_whatever_comes_and_goes(
        weights in prop::collection::vec(1u32..20, 2..8),
        ends in prop::collection::vec((0usize..30, any::<u8>()), 1..200),
    ) {
        let pool = pool(&specs(&weights), bounded());
        let mut there: Vec<InFlight> = Vec::new();
        for (now, (session, end)) in (0..).zip(ends) {
            let total = there.len();
            let (member, _) = turn(&pool, key(session), now);
            there.extend(busy(&pool, member, 1));
            let load = pool.members()[member].backend.in_flight();
            prop_assert!(load <= bound(&weights, total, member), "{} of {} at {}", load, total, member);
            if end % 3 == 0 {
                there.swap_remove(usize::from(end) % there.len());
            }
        }
    }

    /// Exactly `limit` requests at each, with a session or without, then it is full, and `fail_open` changes nothing.
    #[test]
    fn a_limit_is_never_passed(limit in 1u32..5, members in 1usize..6, keyed: u32, least: bool) {
        let balance = if least { Balance::LeastRequests } else { Balance::RoundRobin };
        let pool = pool(
            &specs(&vec![1; members]),
            Settings { overload: limited(limit), fail_open: true, balance, ..settings() },
        );
        let ask = |n: usize| Ask::new((keyed >> n & 1 == 1).then(|| key(n)), 0);
        let mut there = Vec::new();
        for n in 0..members * limit as usize {
            let selection = pool.select(&ask(n), &tried(&[]), 0).selection().unwrap();
            there.extend(busy(&pool, selection.member, 1));
        }
        for member in pool.members() {
            prop_assert_eq!(member.backend.in_flight(), limit as usize);
        }
        prop_assert_eq!(pool.select(&Ask::new(Some(key(0)), 0), &tried(&[]), 0), Verdict::Full);
        prop_assert_eq!(pool.select(&Ask::new(None, 0), &tried(&[]), 0), Verdict::Full);
        prop_assert!(!pool.has_another(Patience::Spills, &tried(&[])));
        there.pop();
        prop_assert!(pool.select(&Ask::new(None, 0), &tried(&[]), 0).selection().is_some());
        prop_assert!(pool.has_another(Patience::Spills, &tried(&[])));
    }
}

#[test]
fn a_spilled_session_stays_where_its_cache_is() {
    let pool = pool(&specs(&[1, 1, 1, 1]), bounded());
    let order = pool.order(key(7));
    let there = busy(&pool, order[0], 20);
    assert_eq!(turn(&pool, key(7), 0), (order[1], Affinity::Spilled));
    drop(there);
    assert_eq!(turn(&pool, key(7), 1), (order[1], Affinity::Stayed), "home has room again, the cache is here");
    assert_eq!(pool.displaced(), 1);
    let _both = [busy(&pool, order[0], 20), busy(&pool, order[1], 20)];
    assert_eq!(turn(&pool, key(7), 2), (order[2], Affinity::Spilled));
    assert_eq!(turn(&pool, key(7), 3), (order[2], Affinity::Stayed));
}

/// When its place has no room but home has, it goes home: that is first in its order.
#[test]
fn a_session_may_spill_home() {
    let pool = pool(&specs(&[1, 1, 1, 1]), bounded());
    let order = pool.order(key(7));
    let there = busy(&pool, order[0], 20);
    turn(&pool, key(7), 0);
    drop(there);
    let _there = busy(&pool, order[1], 20);
    assert_eq!(turn(&pool, key(7), 1), (order[0], Affinity::Home));
    assert_eq!(pool.displaced(), 0);
}

/// Load alone does not reach for the spare; a limit does, and so does a failure.
#[test]
fn a_busy_tier_keeps_its_sessions_a_full_one_does_not() {
    let fleet = [spec("a", 1, 0), spec("b", 1, 0), spec("spare", 1, 1)];
    let soft = pool(&fleet, bounded());
    let _there = [busy(&soft, 0, 50), busy(&soft, 1, 50)];
    assert!((0..100).all(|n| select(&soft, Some(key(n)), &tried(&[]), 0).unwrap().member != 2));
    let hard = pool(&fleet, Settings { overload: limited(3), ..settings() });
    let _there = [busy(&hard, 0, 3), busy(&hard, 1, 3)];
    let spilled = select(&hard, Some(key(0)), &tried(&[]), 0).unwrap();
    assert_eq!((spilled.member, spilled.reason), (2, Some(Reason::MaxInFlight)));
}

/// The hardest reason is told: a dead home is a failover, even when it was full.
#[test]
fn a_dead_home_is_no_spill() {
    let pool = pool(&specs(&[1, 1]), Settings { overload: limited(1), ..settings() });
    let home = pool.home(key(7)).unwrap();
    let _there = busy(&pool, home, 1);
    let spilled = select(&pool, Some(key(7)), &tried(&[]), 0).unwrap();
    assert_eq!((spilled.affinity, spilled.reason), (Affinity::Spilled, Some(Reason::MaxInFlight)));
    down(&pool, home);
    let moved = select(&pool, Some(key(7)), &tried(&[]), 0).unwrap();
    assert_eq!((moved.affinity, moved.reason), (Affinity::Failover, Some(Reason::Unhealthy)));
    let _all = busy(&pool, 1 - home, 1);
    assert_eq!(verdict(&pool, key(7), Patience::Spills), Verdict::Full);
}

#[test]
fn slots_are_a_limit_once_they_are_known() {
    let auto = Overload { max_in_flight: MaxInFlight::Auto, ..Overload::OFF };
    let pool = pool(&specs(&[1, 1]), Settings { overload: auto, ..settings() });
    let home = pool.home(key(7)).unwrap();
    let _there = busy(&pool, home, 9);
    assert_eq!(turn(&pool, key(7), 0), (home, Affinity::Home), "nobody has said how many it can take");
    pool.members()[home].backend.set_signals(Signals { slots: Some(9), ..Signals::default() });
    assert_eq!(turn(&pool, key(7), 0), (1 - home, Affinity::Spilled));
}

mod waiting {
    use super::*;

    fn patient(overload: Overload) -> Settings {
        Settings { overload: Overload { max_waiting: 2, ..overload }, ..settings() }
    }

    #[test]
    fn a_session_waits_where_its_cache_is_then_spills() {
        for (overload, reason) in [(limited(8), Reason::MaxInFlight), (BOUNDED, Reason::Balance)] {
            let pool = pool(&specs(&[1, 1, 1]), patient(overload));
            let order = pool.order(key(7));
            assert_eq!(turn(&pool, key(7), 0), (order[0], Affinity::Home));
            let there = busy(&pool, order[0], 8);
            let wait = Verdict::Wait { member: order[0], reason };
            assert_eq!(verdict(&pool, key(7), Patience::Waits), wait);
            assert_eq!(verdict(&pool, key(7), Patience::Called(order[0])), wait, "called too early: waits on");
            let spilled = verdict(&pool, key(7), Patience::Spills).selection().unwrap();
            assert_eq!((spilled.member, spilled.reason), (order[1], Some(reason)));
            drop(there);
            let home = verdict(&pool, key(7), Patience::Waits).selection().unwrap();
            assert_eq!((home.member, home.affinity), (order[0], Affinity::Home));
        }
    }

    #[test]
    fn session_without_a_cache_there_does_not_wait() {
        for (overload, reason) in [(limited(8), Reason::MaxInFlight), (BOUNDED, Reason::Balance)] {
            let pool = pool(&specs(&[1, 1, 1]), patient(overload));
            let order = pool.order(key(7));
            let there = busy(&pool, order[0], 8);
            let spilled = verdict(&pool, key(7), Patience::Waits).selection().unwrap();
            assert_eq!((spilled.member, spilled.reason), (order[1], Some(reason)));
            drop(there);
            // The backend was away since: what it knew is lost.
            turn(&pool, key(7), 0);
            down_at(&pool, order[0], 1);
            up_at(&pool, order[0], 2);
            let _there = busy(&pool, order[0], 8);
            assert_eq!(verdict(&pool, key(7), Patience::Waits).selection().unwrap().member, order[1]);
        }
    }

    #[test]
    fn all_wait_where_all_are_full() {
        let pool = pool(&specs(&[1, 2]), patient(limited(4)));
        let _there = [busy(&pool, 0, 4), busy(&pool, 1, 4)];
        let ask = |patience| pool.select(&Ask { key: None, bytes: 0, patience }, &tried(&[]), 0);
        let wait = |member| Verdict::Wait { member, reason: Reason::MaxInFlight };
        assert_eq!(ask(Patience::Waits), wait(1), "the shortest line for its weight");
        assert_eq!(ask(Patience::Spills), Verdict::Full);
        let mut waiting = vec![pool.members()[1].backend.queue(), pool.members()[1].backend.queue()];
        assert_eq!(ask(Patience::Waits), wait(0), "the other line has no room");
        assert_eq!([ask(Patience::InLine(1)), ask(Patience::Called(1))], [wait(1); 2]);
        waiting.push(pool.members()[0].backend.queue());
        waiting.push(pool.members()[0].backend.queue());
        assert_eq!(ask(Patience::Waits), Verdict::Full);
    }

    #[test]
    fn line_is_left_for_room_elsewhere() {
        let pool = pool(&specs(&[1, 1]), patient(limited(2)));
        let (there, _full) = (busy(&pool, 0, 2), busy(&pool, 1, 2));
        let _waiting = [pool.members()[1].backend.queue(), pool.members()[1].backend.queue()];
        let ask = |key, patience| pool.select(&Ask { key, bytes: 0, patience }, &tried(&[]), 0);
        drop(there);
        for key in [None, Some(key(7))] {
            assert_eq!(ask(key, Patience::InLine(1)).selection().unwrap().member, 0, "{key:?}");
        }
    }

    #[test]
    fn a_newcomer_does_not_overtake_who_waits() {
        let pool = pool(&specs(&[1, 1]), patient(limited(3)));
        let home = pool.home(key(7)).unwrap();
        turn(&pool, key(7), 0);
        let mut there = busy(&pool, home, 3);
        let waiting = pool.members()[home].backend.queue();
        there.pop();
        let wait = Verdict::Wait { member: home, reason: Reason::MaxInFlight };
        assert_eq!(verdict(&pool, key(7), Patience::Waits), wait, "the place that is free is for who waits");
        let called = verdict(&pool, key(7), Patience::Called(home)).selection().unwrap();
        assert_eq!((called.member, called.affinity), (home, Affinity::Home), "and it does not stand in its own way");
        drop(waiting);
        assert!(verdict(&pool, key(7), Patience::Waits).selection().is_some(), "who left the queue left no trace");
    }

    /// Those who wait are a load like any other, also for requests without a session.
    #[test]
    fn balancing_sees_who_waits() {
        let least = Settings { balance: Balance::LeastRequests, ..patient(limited(3)) };
        let pool = pool(&specs(&[1, 1]), least);
        let _there = [busy(&pool, 0, 1), busy(&pool, 1, 2)];
        let _waiting = [pool.members()[0].backend.queue(), pool.members()[0].backend.queue()];
        assert_eq!(select(&pool, None, &tried(&[]), 0).unwrap().member, 1);
    }

    #[test]
    fn a_full_queue_takes_nobody_more() {
        let pool = pool(&specs(&[1, 1]), patient(limited(3)));
        let home = pool.home(key(7)).unwrap();
        let _there = busy(&pool, home, 3);
        let _waiting = [pool.members()[home].backend.queue(), pool.members()[home].backend.queue()];
        let spilled = verdict(&pool, key(7), Patience::Waits).selection().unwrap();
        assert_eq!((spilled.member, spilled.affinity), (1 - home, Affinity::Spilled));
    }

    /// With home dead, the first of those who are full is where it would go, and so where it waits.
    #[test]
    fn the_fallback_is_worth_waiting_for_too() {
        let pool = pool(&specs(&[1, 1, 1]), patient(limited(2)));
        let order = pool.order(key(7));
        down(&pool, order[0]);
        let there = [busy(&pool, order[1], 2), busy(&pool, order[2], 2)];
        let wait = Verdict::Wait { member: order[1], reason: Reason::MaxInFlight };
        assert_eq!(verdict(&pool, key(7), Patience::Waits), wait);
        assert_eq!(verdict(&pool, key(7), Patience::Called(order[1])), wait);
        assert_eq!(verdict(&pool, key(7), Patience::Spills), Verdict::Full);
        down(&pool, order[1]);
        down(&pool, order[2]);
        assert_eq!(verdict(&pool, key(7), Patience::Called(order[1])), Verdict::Nobody);
        drop(there);
    }
}
