//! Requests without a session, fail-open, and the in-flight guard.

use ingle::core::pool::{Balance, Settings};
use ingle::core::{Affinity, InFlight, Pool};
use proptest::prelude::*;

use crate::fleet::{down, key, pool, select, settings, spec, specs, tried, up};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Exact over a cycle of those who can serve, whoever else is listed: down, draining, or of a higher tier.
    #[test]
    fn round_robin_is_exact_over_a_cycle(
        weights in prop::collection::vec(1u32..20, 1..12),
        out: u16,
        cycles in 1usize..4,
    ) {
        prop_assume!((0..weights.len()).any(|i| out >> i & 1 == 0));
        let mut fleet = specs(&weights);
        fleet.push(spec("spare", 1000, 1));
        let pool = pool(&fleet, settings());
        let serves = |member: usize| out >> member & 1 == 0;
        for member in (0..weights.len()).filter(|member| !serves(*member)) {
            if member % 2 == 0 { down(&pool, member) } else { pool.members()[member].backend.set_draining(true, 0) }
        }
        let cycle: u32 = (0..weights.len()).filter(|i| serves(*i)).map(|i| weights[i]).sum();
        for _ in 0..cycles {
            let seen = turns(&pool, cycle as usize);
            for (member, weight) in weights.iter().enumerate() {
                let turns = seen.iter().filter(|seen| **seen == member).count();
                prop_assert_eq!(turns, if serves(member) { *weight as usize } else { 0 });
            }
        }
    }

    /// Whoever has the lowest (in flight + 1) / weight, whatever comes and goes.
    #[test]
    fn least_requests_takes_the_least_loaded(
        weights in prop::collection::vec(1u32..20, 1..12),
        ends in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let pool = pool(&specs(&weights), Settings { balance: Balance::LeastRequests, ..settings() });
        let mut there: Vec<InFlight> = Vec::new();
        for end in ends {
            let selection = select(&pool, None, &tried(&[]), 0).unwrap();
            // Cross-multiplied, so that nothing is rounded.
            let (load, weight) = load(&pool, selection.member);
            for other in 0..weights.len() {
                let (other_load, other_weight) = self::load(&pool, other);
                prop_assert!(load * other_weight <= other_load * weight, "member {} is less loaded", other);
            }
            there.push(pool.members()[selection.member].backend.enter());
            if end % 3 == 0 {
                let gone = usize::from(end) % there.len();
                drop(there.swap_remove(gone));
            }
        }
        drop(there);
        prop_assert!(pool.members().iter().all(|member| member.backend.in_flight() == 0));
    }
}

/// Among idle equals it is by turns: sequential requests do not all go to the first of the file.
#[test]
fn least_requests_takes_turns_among_equals() {
    let pool = pool(&specs(&[1, 1, 1]), Settings { balance: Balance::LeastRequests, ..settings() });
    assert_eq!(turns(&pool, 6), [0, 1, 2, 0, 1, 2]);
    let there = pool.members()[1].backend.enter();
    assert!(!turns(&pool, 6).contains(&1));
    drop(there);
    assert!(turns(&pool, 3).contains(&1));
}

#[test]
fn a_keyless_retry_goes_elsewhere() {
    for balance in [Balance::RoundRobin, Balance::LeastRequests] {
        let pool = pool(&specs(&[1, 5, 1]), Settings { balance, fail_open: true, ..settings() });
        for _ in 0..20 {
            let mut been = tried(&[]);
            let mut seen: Vec<_> = (0..3)
                .map(|_| {
                    let selection = select(&pool, None, &been, 0).unwrap();
                    assert_eq!(selection.affinity, Affinity::Balanced);
                    been.push(selection.member);
                    selection.member
                })
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2]);
            assert_eq!(select(&pool, None, &been, 0), None, "everybody was tried, and they are healthy");
        }
    }
}

/// Sidecar calls between the turns of a session change nothing for it.
#[test]
fn keyless_requests_do_not_influence_keyed_ones() {
    let pool = pool(&specs(&[1, 2, 3]), settings());
    let before: Vec<_> = (0..300).map(|n| select(&pool, Some(key(n)), &tried(&[]), 0)).collect();
    for (n, before) in before.iter().enumerate() {
        turns(&pool, n % 5);
        assert_eq!(select(&pool, Some(key(n)), &tried(&[]), 0), *before);
    }
}

#[test]
fn with_nobody_healthy_fail_open_tries_the_order() {
    let pool = pool(&specs(&[1, 2, 3, 1]), Settings { fail_open: true, ..settings() });
    (0..4).for_each(|member| down(&pool, member));
    pool.members()[1].backend.set_draining(true, 0);
    for n in 0..200 {
        let mut been = tried(&[]);
        for member in pool.order(key(n)).into_iter().filter(|member| *member != 1) {
            let selection = select(&pool, Some(key(n)), &been, 0).unwrap();
            assert_eq!((selection.member, selection.affinity), (member, Affinity::FailOpen));
            been.push(member);
        }
        assert_eq!(select(&pool, Some(key(n)), &been, 0), None);
    }
    let mut seen = vec![0; 4];
    for _ in 0..50 {
        let selection = select(&pool, None, &tried(&[]), 0).unwrap();
        assert_eq!(selection.affinity, Affinity::FailOpen);
        seen[selection.member] += 1;
    }
    assert_eq!(seen, [10, 0, 30, 10]);
}

#[test]
fn fail_open_ends_with_the_first_healthy_backend() {
    let pool = pool(&specs(&[1, 1]), Settings { fail_open: true, ..settings() });
    (0..2).for_each(|member| down(&pool, member));
    up(&pool, 1);
    let selected: Vec<_> = (0..50).map(|n| select(&pool, Some(key(n)), &tried(&[]), 0).unwrap()).collect();
    assert!(selected.iter().all(|selection| selection.member == 1 && selection.affinity != Affinity::FailOpen));
    assert_eq!(select(&pool, Some(key(0)), &tried(&[1]), 0), None, "a healthy one was tried: not the moment to guess");
}

#[test]
fn without_fail_open_nobody_is_nobody() {
    let unknown = Pool::new(&specs(&[1, 1]), settings());
    let draining = pool(&specs(&[1, 1]), Settings { fail_open: true, ..settings() });
    draining.members().iter().for_each(|member| member.backend.set_draining(true, 0));
    for (pool, why) in [(&unknown, "nobody has been probed yet"), (&draining, "draining is an operator's word")] {
        assert_eq!(select(pool, Some(key(1)), &tried(&[]), 0), None, "{why}");
        assert_eq!(select(pool, None, &tried(&[]), 0), None, "{why}");
    }
    let empty = Pool::new(&[], Settings { fail_open: true, ..settings() });
    assert_eq!((select(&empty, Some(key(1)), &tried(&[]), 0), select(&empty, None, &tried(&[]), 0)), (None, None));
    assert_eq!(empty.home(key(1)), None);
}

#[test]
fn a_draining_member_gets_nothing_and_keeps_its_claim() {
    let pool = pool(&specs(&[1, 1, 1]), settings());
    let homes: Vec<_> = (0..300).map(|n| pool.home(key(n))).collect();
    pool.members()[2].backend.set_draining(true, 0);
    for (n, home) in homes.iter().enumerate() {
        let selection = select(&pool, Some(key(n)), &tried(&[]), 0).unwrap();
        let moved = *home == Some(2);
        assert_eq!(selection.affinity, if moved { Affinity::Failover } else { Affinity::Home });
        assert_eq!((selection.member != 2, pool.home(key(n))), (true, *home));
    }
    assert_eq!(turns(&pool, 4), [0, 1, 0, 1]);
    pool.members()[2].backend.set_draining(false, 0);
    assert!(
        (0..300).all(|n| select(&pool, Some(key(n)), &tried(&[]), 0).map(|selection| selection.member) == homes[n])
    );
}

#[test]
fn in_flight_returns_to_zero_however_a_request_ends() {
    let pool = pool(&specs(&[1]), settings());
    let backend = &pool.members()[0].backend;
    let guards: Vec<_> = (0..10).map(|_| backend.enter()).collect();
    assert_eq!((backend.in_flight(), backend.requests()), (10, 10));
    drop(guards);
    let panicked = std::thread::scope(|scope| {
        let request = scope.spawn(|| {
            let _there = backend.enter();
            std::panic::resume_unwind(Box::new("a request that panics"));
        });
        request.join().is_err()
    });
    assert!(panicked);
    assert_eq!((backend.in_flight(), backend.requests()), (0, 11));
}

fn turns(pool: &Pool, n: usize) -> Vec<usize> {
    (0..n).map(|_| select(pool, None, &tried(&[]), 0).unwrap().member).collect()
}

/// Requests there if this one goes there, and the weight.
fn load(pool: &Pool, member: usize) -> (usize, usize) {
    let member = &pool.members()[member];
    (member.backend.in_flight() + 1, member.weight as usize)
}
