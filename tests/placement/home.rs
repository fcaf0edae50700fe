//! A key's home and preference order.

use ingle::core::pool::{Balance, MemberSpec, Settings};
use ingle::core::{Affinity, Pool, Seed, Selection};
use proptest::prelude::*;

use crate::fleet::{
    any_keys, any_specs, down, home_name, key, key_of, order_names, pool, select, settings, spec, specs, tried,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Neither health, draining, load, history, settings nor the order of the file has a say.
    #[test]
    fn an_order_depends_on_names_weights_and_tiers_only(
        specs in any_specs(),
        keys in any_keys(),
        turn in 0usize..16,
        mask: u16,
    ) {
        let plain = pool(&specs, settings());
        let mut shuffled = specs.clone();
        let len = shuffled.len();
        shuffled.rotate_left(turn % len);
        if turn % 2 == 0 {
            shuffled.reverse();
        }
        let balance = Balance::LeastRequests;
        let other = Settings { balance, fail_open: true, stay_put: false, idle_ttl: 1, ..settings() };
        let other = Pool::new(&shuffled, other);
        for (member, part) in other.members().iter().enumerate() {
            part.backend.set_draining(mask >> member & 1 == 1, 0);
        }
        let _there = other.members()[0].backend.enter();
        for key in keys {
            let _ = select(&other, None, &tried(&[]), 5);
            prop_assert_eq!(order_names(&plain, key), order_names(&other, key));
            prop_assert_eq!(home_name(&plain, key), home_name(&other, key));
        }
    }

    /// `home`, `order` and what `select` gives when one attempt after the other fails are one and the same order.
    #[test]
    fn select_walks_down_the_order(specs in any_specs(), keys in any_keys(), mask: u16) {
        let pool = pool(&specs, settings());
        (0..specs.len()).filter(|member| mask >> member & 1 == 1).for_each(|member| down(&pool, member));
        for key in keys {
            let order = pool.order(key);
            prop_assert_eq!(order.len(), specs.len());
            prop_assert_eq!(pool.home(key), order.first().copied());
            let mut been = tried(&[]);
            for next in order.iter().filter(|member| mask >> **member & 1 == 0) {
                let selection = select(&pool, Some(key), &been, 0).unwrap();
                prop_assert_eq!(selection.member, *next);
                let at_home = *next == order[0];
                prop_assert_eq!(selection.affinity, if at_home { Affinity::Home } else { Affinity::Failover });
                been.push(*next);
            }
            prop_assert_eq!(select(&pool, Some(key), &been, 0), None);
        }
    }

    /// The fallback is the same whether the failure has been noticed or not.
    #[test]
    fn a_failure_seen_and_a_failure_tried_give_the_same_fallback(specs in any_specs(), keys in any_keys()) {
        let pool = pool(&specs, settings());
        let homes: Vec<_> = keys.iter().map(|key| pool.home(*key).unwrap()).collect();
        let place = |selection: Option<Selection>| selection.map(|selection| (selection.member, selection.affinity));
        let retry = |(key, home): (&_, &usize)| place(select(&pool, Some(*key), &tried(&[*home]), 0));
        let before: Vec<_> = keys.iter().zip(&homes).map(retry).collect();
        for ((key, home), before) in keys.iter().zip(&homes).zip(before) {
            down(&pool, *home);
            prop_assert_eq!(place(select(&pool, Some(*key), &tried(&[]), 0)), before);
            crate::fleet::up(&pool, *home);
        }
    }

    /// Lower tiers come first in the whole order.
    #[test]
    fn tiers_come_in_order(specs in any_specs(), keys in any_keys()) {
        let pool = pool(&specs, settings());
        for key in keys {
            let tiers: Vec<u32> = pool.order(key).iter().map(|member| pool.members()[*member].priority).collect();
            prop_assert!(tiers.is_sorted(), "{:?}", tiers);
        }
    }

    /// Removing one leaves everybody else's order as it was, so only its own keys move; adding is the same backwards.
    #[test]
    fn removing_and_adding_move_only_ones_own_keys(specs in any_specs(), keys in any_keys(), gone in 0usize..16) {
        prop_assume!(specs.len() > 1);
        let with = pool(&specs, settings());
        let gone = specs[gone % specs.len()].name.clone();
        let rest: Vec<_> = specs.iter().filter(|spec| spec.name != gone).cloned().collect();
        let without = pool(&rest, settings());
        for key in keys {
            let mut order = order_names(&with, key);
            order.retain(|name| *name != gone);
            prop_assert_eq!(order, order_names(&without, key));
        }
    }

    /// A heavier backend only gains keys, a lighter one only loses them, and nobody else exchanges any.
    #[test]
    fn a_reweight_moves_keys_only_to_or_from_that_backend(
        specs in any_specs(),
        keys in any_keys(),
        at in 0usize..16,
        weight in 1u32..=1000,
    ) {
        let at = at % specs.len();
        let mut changed = specs.clone();
        changed[at].weight = weight;
        let (before, after) = (pool(&specs, settings()), pool(&changed, settings()));
        for key in keys {
            let (from, to) = (before.home(key), after.home(key));
            if from != to {
                prop_assert_eq!(if weight > specs[at].weight { to } else { from }, Some(at));
            }
        }
    }

    #[test]
    fn shares_follow_weights_within_three_points(weights in prop::collection::vec(1u32..=20, 2..10)) {
        let shares = shares(&specs(&weights), 10_000);
        for (share, expected) in shares.iter().zip(expected(&weights)) {
            prop_assert!((share - expected).abs() < 0.03, "{:?} of {:?}", shares, weights);
        }
    }
}

/// Replicas: built apart, from files in different order, they agree on every session, with a seed of their own too.
#[test]
fn two_gateways_agree_on_every_session() {
    let seed = Seed::new("shared between the replicas");
    let specs = specs(&[3, 1, 1, 2, 7]);
    let mut reversed = specs.clone();
    reversed.reverse();
    let (one, other) =
        (pool(&specs, Settings { seed, ..settings() }), pool(&reversed, Settings { seed, ..settings() }));
    let unseeded = pool(&specs, settings());
    let mut moved = 0;
    for n in 0..20_000 {
        let key = key_of(&format!("chat-{n}"), seed);
        assert_eq!(order_names(&one, key), order_names(&other, key));
        moved += usize::from(home_name(&one, key) != home_name(&unseeded, key_of(&format!("chat-{n}"), Seed::new(""))));
    }
    assert!(moved > 10_000, "another seed places anew: {moved} of 20000 moved");
}

/// Chi-square of homes against weights: sharper than three points.
#[test]
fn shares_are_statistically_exact() {
    for weights in [&[1; 2][..], &[1; 8], &[1; 64], &[1, 2, 3, 4], &[1000, 1, 10, 100], &[5, 1, 1]] {
        let pool = pool(&specs(weights), settings());
        let mut seen = vec![0; weights.len()];
        (0..50_000).for_each(|n| seen[pool.home(key(n)).unwrap()] += 1);
        assert_spread(&seen, weights);
    }
}

#[test]
fn a_removed_backends_keys_spread_over_the_others_by_weight() {
    let all = specs(&[4, 1, 2, 3, 6]);
    let before = pool(&all, settings());
    let after = pool(&all[1..], settings());
    let mut seen = vec![0; 4];
    for key in (0..60_000).map(key).filter(|key| before.home(*key) == Some(0)) {
        seen[after.home(key).unwrap()] += 1;
    }
    assert_spread(&seen, &[1, 2, 3, 6]);
}

/// The same for a failure, which changes no home: the fallbacks of the one that is down spread by weight.
#[test]
fn a_dead_backends_sessions_spread_over_the_others_by_weight() {
    let pool = pool(&specs(&[4, 1, 2, 3, 6]), settings());
    down(&pool, 0);
    let mut seen = vec![0; 4];
    for n in 0..60_000 {
        let selection = select(&pool, Some(key(n)), &tried(&[]), 0).unwrap();
        match pool.home(key(n)).unwrap() {
            0 => seen[selection.member - 1] += 1,
            home => assert_eq!((selection.member, selection.affinity), (home, Affinity::Home)),
        }
    }
    assert_spread(&seen, &[1, 2, 3, 6]);
}

#[test]
fn an_added_backend_takes_just_its_share_and_evenly() {
    let weights = [1, 2, 3, 4];
    let before = pool(&specs(&weights), settings());
    let after = pool(&specs(&[1, 2, 3, 4, 5]), settings());
    let mut taken = vec![0; 4];
    for n in 0..60_000 {
        let (from, to) = (before.home(key(n)).unwrap(), after.home(key(n)).unwrap());
        if from != to {
            assert_eq!(to, 4, "a key moved, but not to the new backend");
            taken[from] += 1;
        }
    }
    let share = f64::from(taken.iter().sum::<u32>()) / 60_000.0;
    assert!((share - 5.0 / 15.0).abs() < 0.01, "{share}");
    assert_spread(&taken, &weights);
}

/// 2 of 8 to 4 of 10: the share grows from 25 % to 40 %, so 15 % of the keys have to move, and no more do.
#[test]
fn a_reweight_moves_the_minimum() {
    let (before, after) = (pool(&specs(&[2, 3, 3]), settings()), pool(&specs(&[4, 3, 3]), settings()));
    let moved = (0..60_000).filter(|n| before.home(key(*n)) != after.home(key(*n))).count();
    let share = moved as f64 / 60_000.0;
    assert!((share - 0.15).abs() < 0.01, "{share}");
}

/// All weights doubled: the same shares, so nothing moves.
#[test]
fn only_the_ratio_of_weights_counts() {
    let (before, after) = (pool(&specs(&[1, 2, 3]), settings()), pool(&specs(&[2, 4, 6]), settings()));
    assert!((0..20_000).all(|n| before.order(key(n)) == after.order(key(n))));
}

#[test]
fn a_tier_serves_only_while_the_lower_ones_are_out() {
    let specs = [spec("a", 1, 0), spec("b", 1, 0), spec("spare", 1000, 1), spec("last", 1, 7)];
    let pool = pool(&specs, settings());
    let members = |pool: &Pool| {
        let mut seen: Vec<_> = (0..200).map(|n| select(pool, Some(key(n)), &tried(&[]), 0).unwrap().member).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    };
    assert_eq!(members(&pool), [0, 1]);
    down(&pool, 0);
    assert_eq!(members(&pool), [1]);
    pool.members()[1].backend.set_draining(true, 0);
    assert_eq!(members(&pool), [2]);
    down(&pool, 2);
    assert_eq!(members(&pool), [3]);
}

fn shares(specs: &[MemberSpec], keys: usize) -> Vec<f64> {
    let pool = pool(specs, settings());
    let mut seen = vec![0.0; specs.len()];
    (0..keys).for_each(|n| seen[pool.home(key(n)).unwrap()] += 1.0 / keys as f64);
    seen
}

fn expected(weights: &[u32]) -> impl Iterator<Item = f64> {
    let sum = f64::from(weights.iter().sum::<u32>());
    weights.iter().map(move |weight| f64::from(*weight) / sum)
}

/// Pearson's chi-square against the weights: mean df, variance 2 df. Five sigma and the keys are fixed: no luck needed.
fn assert_spread(seen: &[u32], weights: &[u32]) {
    let total = f64::from(seen.iter().sum::<u32>());
    assert!(total > 4000.0, "too few keys to judge: {total}");
    let terms = seen
        .iter()
        .zip(expected(weights))
        .map(|(seen, share)| (f64::from(*seen) - share * total).powi(2) / (share * total));
    let (chi2, df) = (terms.sum::<f64>(), weights.len() as f64 - 1.0);
    assert!(chi2 < df + 5.0 * (2.0 * df).sqrt(), "chi-square {chi2:.1} with {df} degrees: {seen:?} for {weights:?}");
}
