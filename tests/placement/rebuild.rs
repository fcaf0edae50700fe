//! What outlives a change of the config: everything of a backend, by its name.

use std::sync::Arc;

use ingle::core::pool::{Balance, MemberSpec, Settings};
use ingle::core::{Affinity, Observation, Pool, Seed, State};
use proptest::prelude::*;

use crate::fleet::{THRESHOLDS, down, key, pool, select, settings, spec, specs, tried};

#[test]
fn a_backend_keeps_its_health_load_and_counts_by_name() {
    let old = pool(&specs(&[1, 1, 1]), settings());
    down(&old, 0);
    old.members()[2].backend.set_draining(true, 0);
    let there = old.members()[1].backend.enter();
    let specs = [spec("new", 1, 0), spec("gpu2", 9, 1), spec("gpu1", 5, 0), spec("gpu0", 1, 0)];
    let new = old.rebuild(&specs, settings());
    let backend = |name: &str| &new.members()[new.position(name).unwrap()].backend;
    assert_eq!(backend("gpu0").state(), State::Unhealthy);
    assert_eq!(
        (backend("gpu1").state(), backend("gpu1").in_flight(), backend("gpu1").requests()),
        (State::Healthy, 1, 1)
    );
    assert!(backend("gpu2").draining());
    assert_eq!(backend("new").state(), State::Warming);
    assert_eq!(new.members().iter().map(|member| member.weight).collect::<Vec<_>>(), [1, 9, 5, 1]);
    drop(there);
    assert_eq!(backend("gpu1").in_flight(), 0, "a request of the old snapshot ends in the new one too");
    old.members()[1].backend.observe(Observation::ProbeLoading, THRESHOLDS, 0);
    assert_eq!(backend("gpu1").state(), State::Warming);
}

#[test]
fn sessions_stay_where_they_are_across_a_rebuild() {
    let old = pool(&specs(&[1, 1, 1, 1]), settings());
    let order = old.order(key(7));
    let selection = select(&old, Some(key(7)), &tried(&order[..1]), 0).unwrap();
    old.landed(key(7), selection, 0);
    let mut specs = specs(&[1, 1, 1, 1, 1]);
    specs.reverse();
    let affinity = |specs: &[MemberSpec], settings: Settings| {
        let new = old.rebuild(specs, settings);
        let selected = select(&new, Some(key(7)), &tried(&[]), 1).unwrap();
        let at_its_place = Arc::ptr_eq(&new.members()[selected.member].backend, &old.members()[order[1]].backend);
        (selected.affinity, at_its_place, new.displaced())
    };
    assert_eq!(affinity(&specs, settings()), (Affinity::Stayed, true, 1));
    let immediately = Settings { stay_put: false, ..settings() };
    assert_eq!(affinity(&specs[1..], immediately), (Affinity::Home, false, 0));
    let another_seed = Settings { seed: Seed::new("other keys"), ..settings() };
    assert_eq!(affinity(&specs[1..], another_seed).2, 0, "the keys of another seed are other keys");
    specs.retain(|spec| spec.name != format!("gpu{}", order[1]));
    assert_eq!(affinity(&specs, settings()).2, 0, "its place is gone");
}

/// Gone and back under the same name is a new backend: of what ran there before, nothing is known.
#[test]
fn a_backend_that_was_removed_begins_anew() {
    let first = pool(&specs(&[1, 1]), settings());
    let second = first.rebuild(&specs(&[1]), settings());
    let third = second.rebuild(&specs(&[1, 1]), settings());
    assert_eq!(third.members()[0].backend.state(), State::Healthy);
    assert_eq!(third.members()[1].backend.state(), State::Warming);
}

proptest! {
    /// The turns go on as if nothing had happened, wherever in the file the backends are now.
    #[test]
    fn round_robin_goes_on_where_it_was(
        weights in prop::collection::vec(1u32..20, 1..10),
        before in 0usize..60,
        shift in 0usize..10,
    ) {
        let fleet = specs(&weights);
        let (undisturbed, old) = (pool(&fleet, settings()), pool(&fleet, settings()));
        turns(&undisturbed, before);
        turns(&old, before);
        let mut moved = fleet.clone();
        moved.rotate_left(shift % fleet.len());
        // Ties go to the first of the file, so only a rebuild in the same order must repeat the very turns.
        prop_assert_eq!(turns(&old.rebuild(&fleet, settings()), 50), turns(&undisturbed, 50));
        let mut counts = vec![0i64; fleet.len()];
        let rebuilt = old.rebuild(&moved, settings());
        let cycle = weights.iter().sum::<u32>() as usize;
        (0..cycle).for_each(|_| counts[index(&rebuilt)] += 1);
        for (count, weight) in counts.iter().zip(&weights) {
            prop_assert!((count - i64::from(*weight)).abs() <= 2, "{:?} for {:?}", counts, weights);
        }
    }

    /// Whatever credit there was under the old weights, the first cycles under the new ones are fair.
    #[test]
    fn a_reweight_does_not_starve_anybody(
        old in prop::collection::vec(1u32..=1000, 2..8),
        before in 0usize..3000,
        new in prop::collection::vec(1u32..5, 8),
    ) {
        let new = &new[..old.len()];
        let first = pool(&specs(&old), settings());
        turns(&first, before);
        let second = first.rebuild(&specs(new), settings());
        let cycle = new.iter().sum::<u32>() as usize;
        let mut counts = vec![0usize; new.len()];
        (0..4 * cycle).for_each(|_| counts[index(&second)] += 1);
        for (count, weight) in counts.iter().zip(new) {
            prop_assert!(*count >= *weight as usize, "{:?} turns in 4 cycles of {:?} after {:?}", counts, new, old);
        }
    }
}

#[test]
fn another_balance_applies_at_once() {
    let old = pool(&specs(&[1, 1]), settings());
    let new = old.rebuild(&specs(&[1, 1]), Settings { balance: Balance::LeastRequests, ..settings() });
    let _there = new.members()[0].backend.enter();
    assert_eq!(turns(&new, 4), ["gpu1"; 4]);
}

/// The names of those whose turn it is.
fn turns(pool: &Pool, n: usize) -> Vec<String> {
    (0..n).map(|_| format!("gpu{}", index(pool))).collect()
}

/// The number in the name of the next one.
fn index(pool: &Pool) -> usize {
    let member = select(pool, None, &tried(&[]), 0).unwrap().member;
    pool.members()[member].backend.name()["gpu".len()..].parse().unwrap()
}
