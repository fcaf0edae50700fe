//! Sessions away from home: they go on where their cache is, and return when it has gone cold.

use ingle::core::pool::Settings;
use ingle::core::{Affinity, SessionKey};

use crate::fleet::{IDLE_TTL, down, key, pool, select, settings, specs, tried, turn, up};

#[test]
fn failover_then_stayed_then_home_when_idle() {
    let pool = pool(&specs(&[1, 1, 1, 1]), settings());
    let order = pool.order(key(7));
    assert_eq!(turn(&pool, key(7), 0), (order[0], Affinity::Home));
    assert_eq!(pool.displaced(), 0, "a session at home costs nothing");
    down(&pool, order[0]);
    assert_eq!(turn(&pool, key(7), 1), (order[1], Affinity::Failover));
    up(&pool, order[0]);
    for n in 1..=5 {
        assert_eq!(
            turn(&pool, key(7), n * (IDLE_TTL - 1)),
            (order[1], Affinity::Stayed),
            "home is back, the cache is not"
        );
    }
    let idle = 5 * (IDLE_TTL - 1) + IDLE_TTL;
    assert_eq!(turn(&pool, key(7), idle), (order[0], Affinity::Home));
    assert_eq!(pool.displaced(), 0);
}

#[test]
fn each_failure_of_its_place_moves_a_session_once() {
    let pool = pool(&specs(&[1, 1, 1, 1]), settings());
    let order = pool.order(key(7));
    let mut now = 0;
    for place in 1..4 {
        down(&pool, order[place - 1]);
        now += 1;
        assert_eq!(turn(&pool, key(7), now), (order[place], Affinity::Failover));
        assert_eq!(turn(&pool, key(7), now), (order[place], Affinity::Stayed));
    }
    // The first to come back is not home: the session stays. Then its place fails, and home is not back yet.
    up(&pool, order[2]);
    assert_eq!(turn(&pool, key(7), now), (order[3], Affinity::Stayed));
    down(&pool, order[3]);
    assert_eq!(turn(&pool, key(7), now), (order[2], Affinity::Failover));
    up(&pool, order[0]);
    down(&pool, order[2]);
    assert_eq!(turn(&pool, key(7), now), (order[0], Affinity::Home));
    assert_eq!(pool.displaced(), 0);
}

/// Before a failure is noticed, attempts there fail one by one; the session goes where it would go afterwards.
#[test]
fn a_retry_from_ones_place_goes_where_the_failure_would_send_it() {
    let pool = pool(&specs(&[1, 1, 1, 1]), settings());
    let order = pool.order(key(7));
    down(&pool, order[0]);
    turn(&pool, key(7), 0);
    let retried = select(&pool, Some(key(7)), &tried(&[order[1]]), 1).unwrap();
    assert_eq!((retried.member, retried.affinity), (order[2], Affinity::Failover));
    down(&pool, order[1]);
    assert_eq!(select(&pool, Some(key(7)), &tried(&[]), 1), Some(retried));
}

/// No answer, no cache: only `landed` makes a place.
#[test]
fn a_session_turned_away_everywhere_goes_home() {
    let pool = pool(&specs(&[1, 1, 1]), settings());
    let mut been = tried(&[]);
    for _ in 0..3 {
        been.push(select(&pool, Some(key(7)), &been, 0).unwrap().member);
    }
    assert_eq!(select(&pool, Some(key(7)), &been, 0), None);
    assert_eq!(pool.displaced(), 0);
    assert_eq!(turn(&pool, key(7), 1), (pool.home(key(7)).unwrap(), Affinity::Home));
}

#[test]
fn return_home_immediately() {
    let pool = pool(&specs(&[1, 1, 1]), Settings { stay_put: false, ..settings() });
    let order = pool.order(key(7));
    down(&pool, order[0]);
    assert_eq!(turn(&pool, key(7), 0), (order[1], Affinity::Failover));
    assert_eq!(turn(&pool, key(7), 1), (order[1], Affinity::Failover), "nothing is remembered");
    up(&pool, order[0]);
    assert_eq!(turn(&pool, key(7), 2), (order[0], Affinity::Home));
    assert_eq!(pool.displaced(), 0);
}

#[test]
fn a_session_served_by_fail_open_stays_there_too() {
    let pool = pool(&specs(&[1, 1, 1]), Settings { fail_open: true, ..settings() });
    let order = pool.order(key(7));
    (0..3).for_each(|member| down(&pool, member));
    let home = select(&pool, Some(key(7)), &tried(&[]), 0).unwrap();
    assert_eq!((home.member, home.affinity), (order[0], Affinity::FailOpen));
    pool.landed(key(7), home, 0);
    assert_eq!(pool.displaced(), 0, "at home, if by luck");
    let other = select(&pool, Some(key(7)), &tried(&[order[0]]), 0).unwrap();
    assert_eq!((other.member, other.affinity), (order[1], Affinity::FailOpen));
    pool.landed(key(7), other, 0);
    (0..3).for_each(|member| up(&pool, member));
    assert_eq!(turn(&pool, key(7), 1), (order[1], Affinity::Stayed));
}

#[test]
fn others_are_not_displaced_by_a_failure() {
    let pool = pool(&specs(&[1, 1, 1, 1]), settings());
    down(&pool, 0);
    for n in 0..500 {
        let (member, affinity) = turn(&pool, key(n), 0);
        let moved = pool.home(key(n)) == Some(0);
        assert_eq!(affinity, if moved { Affinity::Failover } else { Affinity::Home });
        assert_eq!(pool.home(key(n)) != Some(member), moved);
    }
    let away = (0..500).filter(|n| pool.home(key(*n)) == Some(0)).count();
    assert_eq!(pool.displaced(), away);
    pool.expire(IDLE_TTL - 1);
    assert_eq!(pool.displaced(), away);
    pool.expire(IDLE_TTL);
    assert_eq!(pool.displaced(), 0);
}

#[test]
fn the_table_is_bounded_and_the_longest_silent_session_leaves() {
    let pool = pool(&specs(&[1, 1]), Settings { max_displaced: 10, ..settings() });
    let away: Vec<_> = (0..200).map(key).filter(|key| pool.home(*key) == Some(0)).take(12).collect();
    down(&pool, 0);
    for (now, key) in (0..).zip(&away) {
        turn(&pool, *key, now);
        assert!(pool.displaced() <= 10);
    }
    up(&pool, 0);
    let affinity = |key: &SessionKey| select(&pool, Some(*key), &tried(&[]), 20).unwrap().affinity;
    let outcomes: Vec<_> = away.iter().map(affinity).collect();
    assert_eq!(outcomes[..2], [Affinity::Home; 2]);
    assert_eq!(outcomes[2..], [Affinity::Stayed; 10]);
}
