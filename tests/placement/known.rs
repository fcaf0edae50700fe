//! The table of known sessions through a pool, and what is explained of a session.

use ingle::core::pool::{Overload, Policy, Settings};
use ingle::core::{Affinity, Ask, Reason, Seed, SessionKey};
use proptest::prelude::*;

use crate::fleet::{any_specs, busy, down, key, name, pool, select, settings, specs, tried, turn};

#[test]
fn the_table_survives_a_rebuild_but_not_another_seed() {
    let old = pool(&specs(&[1, 1, 1]), settings());
    (0..50).for_each(|n| assert_eq!(turn(&old, key(n), 0).1, Affinity::Home));
    assert_eq!(old.sessions().len(), 50);
    let new = old.rebuild(&specs(&[1, 1, 1, 1]), settings());
    assert_eq!(new.sessions().len(), 50);
    turn(&old, key(50), 1);
    assert_eq!(new.sessions().len(), 51, "a request that began before the reload is known after it");
    assert_eq!(new.rebuild(&specs(&[1]), Settings { max_sessions: 20, ..settings() }).sessions().len(), 20);
    let other = Settings { seed: Seed::new("other keys"), ..settings() };
    assert!(new.rebuild(&specs(&[1]), other).sessions().is_empty());
}

/// Gone and back under the same name is another backend: what the one before has seen does not count.
#[test]
fn a_removed_backend_takes_its_places_along() {
    let first = pool(&specs(&[1, 1]), Settings { policy: Policy::LeastTtft, ..settings() });
    let at = turn(&first, key(7), 0).0;
    let rest: Vec<_> = specs(&[1, 1]).into_iter().filter(|spec| spec.name != name(&first, at)).collect();
    let back = first.rebuild(&rest, *first.settings()).rebuild(&specs(&[1, 1]), *first.settings());
    let explained = back.explain(key(7), 0, 1);
    assert_eq!(explained.turns, Some(1));
    assert!(explained.members.iter().all(|member| member.seen.is_none() && !member.last));
}

#[test]
fn sessions_are_known_by_their_turns_and_where_they_were() {
    let pool = pool(&specs(&[1, 1]), settings());
    let home = pool.home(key(7)).unwrap();
    for (now, bytes) in [(1, 100), (2, 250)] {
        let selection = pool.select(&Ask::new(Some(key(7)), bytes), &tried(&[]), now).selection().unwrap();
        pool.landed(key(7), selection, now);
        pool.active(key(7), selection, now + 5);
    }
    let known = pool.sessions().get(key(7)).unwrap();
    assert_eq!((known.turns, known.away, known.last().bytes, known.last().seen), (2, false, 250, 7));
    assert_eq!(known.last().backend, pool.members()[home].backend.id());
    pool.expire(5 * 60 * 60 * 1000);
    assert!(pool.sessions().is_empty());
}

#[test]
fn explained_is_who_is_in_the_way_and_why() {
    let overload = Overload { balance_factor: Some(1.25), balance_floor: 4, ..Overload::OFF };
    let pool = pool(&specs(&[1, 1, 1, 1]), Settings { overload, ..settings() });
    let order = pool.order(key(7));
    let _there = busy(&pool, order[0], 10);
    down(&pool, order[1]);
    pool.members()[order[2]].backend.set_draining(true, 0);
    let explained = pool.explain(key(7), 1000, 0);
    let members: Vec<_> = explained.members.iter().map(|member| (member.member, member.obstacle)).collect();
    let reasons = [Some(Reason::Balance), Some(Reason::Unhealthy), Some(Reason::Draining), None];
    assert_eq!(members, order.iter().copied().zip(reasons).collect::<Vec<_>>());
    assert_eq!((explained.members[0].in_flight, explained.members[0].bound), (10, Some(7)), "ceil(1.25 * 11 / 2)");
    let selection = explained.verdict.selection().unwrap();
    assert_eq!((selection.member, selection.affinity), (order[3], Affinity::Spilled));
}

proptest! {
    /// With either policy: the one that is selected is in nobody's way, and asking changes nothing.
    #[test]
    fn explained_is_what_happens(specs in any_specs(), sessions in prop::collection::vec(0u64..20, 1..60), score: bool) {
        let policy = if score { Policy::LeastTtft } else { Policy::ConsistentHash };
        let pool = pool(&specs, Settings { policy, ..settings() });
        let mut there = Vec::new();
        for (now, session) in (0..).zip(sessions) {
            let key = SessionKey::from_bits(session);
            let ask = Ask::new(Some(key), 1000 * (1 + session));
            let explained = pool.explain(key, ask.bytes, now);
            let verdict = pool.select(&ask, &tried(&[]), now);
            prop_assert_eq!(explained.verdict, verdict);
            prop_assert_eq!(explained.members.iter().map(|m| m.member).collect::<Vec<_>>(), pool.order(key));
            let selection = verdict.selection().unwrap();
            let chosen = explained.members.iter().find(|member| member.member == selection.member).unwrap();
            prop_assert_eq!(chosen.obstacle, None);
            prop_assert_eq!(chosen.terms.is_some(), score);
            prop_assert_eq!(select(&pool, Some(key), &tried(&[]), now).is_some(), true);
            there.push(pool.enter(&selection, now));
            pool.landed(key, selection, now);
        }
    }
}
