//! Draining: sessions go on where their caches are, for a while; nobody new comes.

use ingle::core::pool::{Drain, DrainSessions, Settings};
use ingle::core::{Affinity, Ask, Millis, Reason, Verdict};

use crate::fleet::{IDLE_TTL, down_at, key, pool, select, settings, specs, tried, turn, up_at};

const DEADLINE: Millis = 10 * IDLE_TTL;

fn until_idle() -> Settings {
    Settings { drain: Drain { sessions: DrainSessions::UntilIdle, deadline: Some(DEADLINE) }, ..settings() }
}

#[test]
fn known_sessions_go_on_and_new_ones_go_elsewhere() {
    let pool = pool(&specs(&[1, 1, 1]), until_idle());
    let home = pool.home(key(7)).unwrap();
    let other = (8..).find(|n| pool.home(key(*n)) == Some(home)).unwrap();
    turn(&pool, key(7), 0);
    pool.members()[home].backend.set_draining(true, 1);
    assert_eq!(turn(&pool, key(7), 2), (home, Affinity::Home));
    let new = select(&pool, Some(key(other)), &tried(&[]), 2).unwrap();
    assert_eq!((new.affinity, new.reason), (Affinity::Failover, Some(Reason::Draining)));
    assert!((0..30).all(|_| select(&pool, None, &tried(&[]), 2).unwrap().member != home));
    pool.members()[home].backend.set_draining(false, 3);
    assert_eq!(turn(&pool, key(other), 3), (home, Affinity::Home), "back in rotation, with all that is its own");
}

#[test]
fn a_session_leaves_when_it_has_been_idle() {
    let pool = pool(&specs(&[1, 1, 1]), until_idle());
    let order = pool.order(key(7));
    turn(&pool, key(7), 0);
    pool.members()[order[0]].backend.set_draining(true, 1);
    for n in 1..5 {
        assert_eq!(turn(&pool, key(7), n * (IDLE_TTL - 1)), (order[0], Affinity::Home));
    }
    assert_eq!(turn(&pool, key(7), 4 * (IDLE_TTL - 1) + IDLE_TTL), (order[1], Affinity::Failover));
}

#[test]
fn a_session_leaves_at_the_deadline() {
    let pool = pool(&specs(&[1, 1, 1]), until_idle());
    let order = pool.order(key(7));
    let backend = &pool.members()[order[0]].backend;
    turn(&pool, key(7), 100);
    backend.set_draining(true, 100);
    // Whoever says it again does not put the deadline off.
    backend.set_draining(true, 5000);
    let mut now = 100;
    while now + IDLE_TTL / 2 < DEADLINE + 100 {
        now += IDLE_TTL / 2;
        assert_eq!(turn(&pool, key(7), now), (order[0], Affinity::Home));
    }
    assert_eq!(turn(&pool, key(7), DEADLINE + 100), (order[1], Affinity::Failover));
    let forever = Settings { drain: Drain { deadline: None, ..until_idle().drain }, ..until_idle() };
    let pool = pool.rebuild(&specs(&[1, 1, 1]), forever);
    let selection = select(&pool, Some(key(7)), &tried(&[]), DEADLINE + 100).unwrap();
    assert_eq!(selection.member, order[1], "it has moved");
}

#[test]
fn at_once_is_at_once() {
    let at_once = Drain { sessions: DrainSessions::AtOnce, deadline: None };
    let pool = pool(&specs(&[1, 1, 1]), Settings { drain: at_once, ..settings() });
    let order = pool.order(key(7));
    turn(&pool, key(7), 0);
    pool.members()[order[0]].backend.set_draining(true, 1);
    assert_eq!(turn(&pool, key(7), 2), (order[1], Affinity::Failover));
}

/// A displaced session goes on at its place, and one that has left for another is not called back.
#[test]
fn only_the_last_place_counts() {
    let pool = pool(&specs(&[1, 1, 1]), Settings { stay_put: false, ..until_idle() });
    let order = pool.order(key(7));
    turn(&pool, key(7), 0);
    down_at(&pool, order[0], 1);
    assert_eq!(turn(&pool, key(7), 2), (order[1], Affinity::Failover));
    pool.members()[order[1]].backend.set_draining(true, 3);
    assert_eq!(turn(&pool, key(7), 4).0, order[1], "where it was last");
    up_at(&pool, order[0], 5);
    pool.members()[order[0]].backend.set_draining(true, 5);
    assert_eq!(turn(&pool, key(7), 6).0, order[1], "home drains, too, and has nothing of it");
}

/// A restart in the middle of a drain: the cache is lost, and so is the reason to go on there.
#[test]
fn a_crash_ends_what_was_left_to_finish() {
    let pool = pool(&specs(&[1, 1, 1]), until_idle());
    let order = pool.order(key(7));
    turn(&pool, key(7), 10);
    pool.members()[order[0]].backend.set_draining(true, 11);
    down_at(&pool, order[0], 12);
    up_at(&pool, order[0], 13);
    assert_eq!(turn(&pool, key(7), 14), (order[1], Affinity::Failover));
}

#[test]
fn a_retry_does_not_go_back() {
    let pool = pool(&specs(&[1, 1]), until_idle());
    let home = pool.home(key(7)).unwrap();
    turn(&pool, key(7), 0);
    pool.members()[home].backend.set_draining(true, 1);
    let retry = select(&pool, Some(key(7)), &tried(&[home]), 2).unwrap();
    assert_eq!((retry.member, retry.reason), (1 - home, Some(Reason::Tried)));
}

/// With everybody draining, the sessions that are there go on; whoever is new gets nobody, fail-open or not.
#[test]
fn a_fleet_that_drains_takes_nobody_new() {
    let pool = pool(&specs(&[1, 1]), Settings { fail_open: true, ..until_idle() });
    let home = turn(&pool, key(7), 0).0;
    pool.members().iter().for_each(|member| member.backend.set_draining(true, 1));
    assert_eq!(turn(&pool, key(7), 2), (home, Affinity::Home));
    for ask in [Ask::new(Some(key(8)), 0), Ask::new(None, 0)] {
        assert_eq!(pool.select(&ask, &tried(&[]), 2), Verdict::Nobody);
    }
}

#[test]
fn how_many_are_left_is_known() {
    let pool = pool(&specs(&[1, 1, 1]), until_idle());
    let mut expected = vec![0; 3];
    (0..90).for_each(|n| expected[turn(&pool, key(n), 0).0] += 1);
    assert_eq!(pool.sessions_at(1), expected);
    down_at(&pool, 0, 1);
    let own: Vec<_> = (0..90).filter(|n| pool.home(key(*n)) == Some(0)).collect();
    for n in &own {
        expected[turn(&pool, key(*n), IDLE_TTL - 1).0] += 1;
    }
    expected[0] = 0;
    assert_eq!(pool.sessions_at(IDLE_TTL - 1), expected);
    assert_eq!(pool.sessions_at(IDLE_TTL).iter().sum::<usize>(), own.len(), "the others have been idle");
}
