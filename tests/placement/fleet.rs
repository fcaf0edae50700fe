//! Pools to test with.

use ingle::core::pool::{Balance, Drain, DrainSessions, MemberSpec, Overload, Policy, Settings};
use ingle::core::{
    Affinity, Ask, Cause, InFlight, Millis, Observation, Pool, Seed, Selection, SessionKey, Thresholds, Tried,
};
use proptest::prelude::*;

pub(crate) const THRESHOLDS: Thresholds = Thresholds { healthy: 2, unhealthy: 3, errors: 4 };
pub(crate) const IDLE_TTL: Millis = 600_000;

/// The defaults of the config, with a small table of displaced sessions.
pub(crate) fn settings() -> Settings {
    Settings {
        seed: Seed::new(""),
        balance: Balance::RoundRobin,
        fail_open: false,
        stay_put: true,
        idle_ttl: IDLE_TTL,
        max_displaced: 1000,
        policy: Policy::ConsistentHash,
        gateways: 1,
        max_sessions: 10_000,
        overload: Overload::OFF,
        slow_start: 0,
        drain: Drain { sessions: DrainSessions::UntilIdle, deadline: None },
        thresholds: THRESHOLDS,
    }
}

/// `gpu0`, `gpu1`, ... with these weights, all in tier 0.
pub(crate) fn specs(weights: &[u32]) -> Vec<MemberSpec> {
    weights.iter().enumerate().map(|(i, weight)| spec(&format!("gpu{i}"), *weight, 0)).collect()
}

pub(crate) fn spec(name: &str, weight: u32, priority: u32) -> MemberSpec {
    MemberSpec { name: name.to_owned(), weight, priority, draining: false }
}

/// A pool in which everybody is healthy.
pub(crate) fn pool(specs: &[MemberSpec], settings: Settings) -> Pool {
    let pool = Pool::new(specs, settings);
    (0..specs.len()).for_each(|member| up(&pool, member));
    pool
}

/// Good probes until the member serves.
pub(crate) fn up(pool: &Pool, member: usize) {
    up_at(pool, member, 0);
}

/// Good probes at this time until the member serves.
pub(crate) fn up_at(pool: &Pool, member: usize, now: Millis) {
    let backend = &pool.members()[member].backend;
    for _ in 0..THRESHOLDS.healthy {
        backend.observe(Observation::ProbeOk, THRESHOLDS, now);
    }
    assert!(backend.state().serves());
}

/// Failed requests until the member no longer serves.
pub(crate) fn down(pool: &Pool, member: usize) {
    down_at(pool, member, 0);
}

/// Failed requests at this time until the member no longer serves.
pub(crate) fn down_at(pool: &Pool, member: usize, now: Millis) {
    let backend = &pool.members()[member].backend;
    for _ in 0..THRESHOLDS.unhealthy {
        backend.observe(Observation::TrafficFailed(Cause::Connect), THRESHOLDS, now);
    }
    assert!(!backend.state().serves());
}

/// So many requests at a member.
pub(crate) fn busy(pool: &Pool, member: usize, requests: usize) -> Vec<InFlight> {
    (0..requests).map(|_| pool.members()[member].backend.enter()).collect()
}

/// One turn that is answered: selects, lands, and says where it went and how.
pub(crate) fn turn(pool: &Pool, key: SessionKey, now: Millis) -> (usize, Affinity) {
    let selection = select(pool, Some(key), &tried(&[]), now).unwrap();
    pool.landed(key, selection, now);
    (selection.member, selection.affinity)
}

/// The n-th test session, by its id as a client would send it.
pub(crate) fn key(n: usize) -> SessionKey {
    key_of(&format!("session-{n}"), Seed::new(""))
}

pub(crate) fn key_of(id: &str, seed: Seed) -> SessionKey {
    SessionKey::parse(id.as_bytes(), 256, seed).unwrap().unwrap()
}

pub(crate) fn tried(members: &[usize]) -> Tried {
    let mut tried = Tried::default();
    members.iter().for_each(|member| tried.push(*member));
    tried
}

/// Where a request goes that waits for nobody.
pub(crate) fn select(pool: &Pool, key: Option<SessionKey>, tried: &Tried, now: Millis) -> Option<Selection> {
    pool.select(&Ask::new(key, 0), tried, now).selection()
}

pub(crate) fn name(pool: &Pool, member: usize) -> &str {
    pool.members()[member].backend.name()
}

pub(crate) fn home_name(pool: &Pool, key: SessionKey) -> String {
    name(pool, pool.home(key).unwrap()).to_owned()
}

/// A key's preference order, as names.
pub(crate) fn order_names(pool: &Pool, key: SessionKey) -> Vec<String> {
    pool.order(key).into_iter().map(|member| name(pool, member).to_owned()).collect()
}

/// Fleets of 1 to 16 backends with names as configs have them, mixed weights and up to three tiers.
pub(crate) fn any_specs() -> impl Strategy<Value = Vec<MemberSpec>> {
    let one = ("[a-z]{1,8}[0-9]{0,3}(\\.local:8080)?", 1u32..=1000, 0u32..3);
    prop::collection::vec(one, 1..=16).prop_map(|backends| {
        let mut specs: Vec<_> = backends.iter().map(|(name, weight, tier)| spec(name, *weight, *tier)).collect();
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        specs.dedup_by(|a, b| a.name == b.name);
        specs
    })
}

pub(crate) fn any_keys() -> impl Strategy<Value = Vec<SessionKey>> {
    prop::collection::vec(any::<u64>().prop_map(SessionKey::from_bits), 1..30)
}
