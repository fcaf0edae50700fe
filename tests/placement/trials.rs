//! Backends that have to show whether they answer well: which requests try them, and which avoid them.

use ingle::core::health::ErrorAnswer;
use ingle::core::pool::{Balance, Policy, Settings};
use ingle::core::{Affinity, Ask, Millis, Observation, Patience, Pool, Reason, Selection, SessionKey};

use crate::fleet::{THRESHOLDS, down_at, key, pool, settings, specs, tried, turn, up_at};

/// Errors for two sessions, until the member does not serve any more.
fn fail(pool: &Pool, member: usize, now: Millis) {
    let backend = &pool.members()[member].backend;
    for origin in 0..u64::from(THRESHOLDS.errors) {
        let error = ErrorAnswer { origin, has_alternative: pool.has_alternative(member) };
        backend.observe(Observation::TrafficError(error), THRESHOLDS, now);
    }
    assert!(!backend.state().serves() && backend.on_trial());
}

fn stall(pool: &Pool, member: usize, now: Millis) {
    pool.members()[member].backend.observe(Observation::Stalled, THRESHOLDS, now);
}

fn ask(pool: &Pool, key: Option<SessionKey>, now: Millis) -> Selection {
    pool.select(&Ask::new(key, 100), &tried(&[]), now).selection().unwrap()
}

/// Sends a request, which stays there.
fn send(pool: &Pool, key: Option<SessionKey>, now: Millis) -> Selection {
    let selection = ask(pool, key, now);
    drop(pool.enter(&selection, now));
    selection
}

/// Sessions whose home is this member.
fn sessions_of(pool: &Pool, member: usize) -> impl Iterator<Item = SessionKey> {
    (0..).map(key).filter(move |key| pool.home(*key) == Some(member))
}

#[test]
fn one_request_at_a_time_tries_a_failing_backend() {
    for balance in [Balance::RoundRobin, Balance::LeastRequests] {
        let pool = pool(&specs(&[1, 1]), Settings { balance, ..settings() });
        fail(&pool, 0, 0);
        let tries: Vec<Millis> = (0..200).map(|n| n * 100).filter(|now| send(&pool, None, *now).member == 0).collect();
        assert_eq!(tries, [1000, 3000, 7000, 15_000]);
    }
}

#[test]
fn sessions_try_their_home_and_no_other() {
    for policy in [Policy::ConsistentHash, Policy::LeastTtft] {
        let pool = pool(&specs(&[1, 1, 1]), Settings { policy, ..settings() });
        let (mine, theirs) = (sessions_of(&pool, 0).next(), sessions_of(&pool, 1).next());
        fail(&pool, 0, 0);
        assert_ne!(send(&pool, mine, 999).member, 0);
        let other = send(&pool, theirs, 1000);
        assert_eq!((other.member, other.is_trial), (1, false), "{policy:?}");
        let trial = send(&pool, mine, 1000);
        assert_eq!((trial.member, trial.affinity, trial.is_trial), (0, Affinity::Home, true), "{policy:?}");
        assert_ne!(send(&pool, mine, 1000).member, 0, "one");
    }
}

#[test]
fn cache_elsewhere_is_left_only_for_an_overdue_trial() {
    let pool = pool(&specs(&[1, 1, 1]), settings());
    let session = sessions_of(&pool, 0).next().unwrap();
    fail(&pool, 0, 0);
    let (place, _) = turn(&pool, session, 10);
    assert_ne!(place, 0);
    for (now, is_trial) in [(1000, false), (5999, false), (6000, true)] {
        assert_eq!(ask(&pool, Some(session), now).is_trial, is_trial, "{now}");
    }
}

#[test]
fn failed_trial_leads_elsewhere() {
    let pool = pool(&specs(&[1, 1]), settings());
    fail(&pool, 0, 0);
    let trial = send(&pool, None, 1000);
    assert!(trial.is_trial && pool.has_another(Patience::Spills, &tried(&[0])));
    assert_eq!(pool.select(&Ask::new(None, 0), &tried(&[0]), 1000).selection().unwrap().member, 1);
}

#[test]
fn failing_backend_serves_while_no_other_is_there() {
    for fail_open in [true, false] {
        let pool = pool(&specs(&[1, 1]), Settings { fail_open, ..settings() });
        fail(&pool, 0, 0);
        down_at(&pool, 1, 0);
        for session in [None, sessions_of(&pool, 1).next()] {
            let open = pool.select(&Ask::new(session, 0), &tried(&[1]), 10).selection();
            assert_eq!(open.map(|open| (open.member, open.affinity)), Some((0, Affinity::FailOpen)), "{fail_open}");
        }
        assert_eq!(pool.has_another(Patience::Spills, &tried(&[0])), fail_open, "the other one is dead");
    }
}

#[test]
fn last_backend_that_answers_is_not_given_up() {
    let pool = pool(&specs(&[1, 1]), settings());
    fail(&pool, 0, 0);
    assert!(!pool.has_alternative(1));
    up_at(&pool, 1, 0);
}

#[test]
fn stalled_backend_keeps_its_sessions_only() {
    for policy in [Policy::ConsistentHash, Policy::LeastTtft] {
        let pool = pool(&specs(&[1, 1]), Settings { policy, ..settings() });
        let mut sessions = sessions_of(&pool, 0);
        let (known, new) = (sessions.next().unwrap(), sessions.next().unwrap());
        assert_eq!(turn(&pool, known, 0), (0, Affinity::Home));
        stall(&pool, 0, 10);
        assert_eq!(ask(&pool, Some(known), 20).member, 0, "{policy:?}");
        let spilled = ask(&pool, Some(new), 20);
        assert_eq!((spilled.member, spilled.reason), (1, Some(Reason::Stalled)), "{policy:?}");
        assert!((0..10).all(|_| ask(&pool, None, 20).member == 1));
        stall(&pool, 1, 30);
        let members: Vec<usize> = (0..10).map(|_| ask(&pool, None, 40).member).collect();
        assert!(members.contains(&0) && members.contains(&1), "nothing else is there: {members:?}");
    }
}

#[test]
fn quick_errors_do_not_win() {
    for (balance, policy) in
        [(Balance::LeastRequests, Policy::ConsistentHash), (Balance::RoundRobin, Policy::LeastTtft)]
    {
        let pool = pool(&specs(&[1, 1]), Settings { balance, policy, ..settings() });
        let error = ErrorAnswer { origin: 1, has_alternative: true };
        for _ in 0..3 {
            pool.members()[0].backend.observe(Observation::TrafficError(error), THRESHOLDS, 0);
        }
        let session = if policy == Policy::LeastTtft { sessions_of(&pool, 0).next() } else { None };
        for now in [0, 9_999] {
            assert_eq!(ask(&pool, session, now).member, 1, "{balance:?} {policy:?}");
        }
        assert!((0..3).any(|_| ask(&pool, session, 10_000).member == 0), "not for ever");
    }
}
