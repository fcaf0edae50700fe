//! What the config says of a pool, in the words of the core.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::config::{self, Config, ReturnHome};
use crate::core::pool::{Balance, Drain, DrainSessions, MaxInFlight, MemberSpec, Overload, Policy, Settings};
use crate::core::rate::Rate;
use crate::core::{Millis, Seed, Thresholds};

pub(super) fn specs(config: &Config) -> Vec<MemberSpec> {
    let spec = |backend: &config::Backend| MemberSpec {
        name: backend.name.clone(),
        weight: backend.weight,
        priority: backend.priority,
        draining: backend.draining,
    };
    config.pool().backends.iter().map(spec).collect()
}

pub(super) fn settings(config: &Config) -> Settings {
    let (affinity, pool) = (&config.affinity, config.pool());
    Settings {
        seed: Seed::new(&affinity.hash_seed),
        policy: match affinity.policy {
            config::Policy::ConsistentHash => Policy::ConsistentHash,
            config::Policy::LeastTtft => Policy::LeastTtft,
        },
        gateways: affinity.gateways,
        balance: match pool.balance {
            config::Balance::RoundRobin => Balance::RoundRobin,
            config::Balance::LeastRequests => Balance::LeastRequests,
        },
        fail_open: pool.fail_open,
        stay_put: affinity.return_home == ReturnHome::WhenIdle,
        idle_ttl: millis(affinity.idle_ttl),
        max_displaced: affinity.max_displaced,
        max_sessions: affinity.max_sessions,
        thresholds: Thresholds {
            healthy: pool.health_check.healthy_threshold,
            unhealthy: pool.health_check.unhealthy_threshold,
            errors: pool.health_check.error_threshold,
        },
        overload: overload(&pool.overload),
        slow_start: pool.slow_start.map_or(0, millis),
        drain: Drain {
            sessions: match pool.drain.sessions {
                config::DrainSessions::UntilIdle => DrainSessions::UntilIdle,
                config::DrainSessions::AtOnce => DrainSessions::AtOnce,
            },
            deadline: pool.drain.deadline.map(millis),
        },
    }
}

fn overload(overload: &config::Overload) -> Overload {
    Overload {
        max_in_flight: match overload.max_in_flight {
            config::MaxInFlight::Off => MaxInFlight::Off,
            config::MaxInFlight::Fixed(most) => MaxInFlight::Fixed(most),
            config::MaxInFlight::Auto => MaxInFlight::Auto,
        },
        balance_factor: overload.balance_factor,
        balance_floor: overload.balance_floor,
        max_waiting: if overload.queue_wait.is_some() { overload.max_waiting } else { 0 },
    }
}

/// A rate in the words of the core.
pub(super) fn rate(rate: config::Rate) -> Rate {
    Rate::new(rate.count.get(), millis(rate.period), rate.burst())
}

/// How many descriptors clients and their requests may have, of those that the process may have: the rest is for
/// listeners, admins, probes, files, idle connections to backends.
pub(super) fn descriptors(config: &Config) -> usize {
    let limit = limit();
    let backends = PER_BACKEND * config.pool().backends.len() + limit / IDLE_PART;
    let own = OWN + admins() + 2 * config.listeners.len() + backends;
    // A client that asks takes two.
    limit.saturating_sub(own).max(limit / LEAST_PART) / 2 * 2
}

/// How many connections admins may have.
pub(super) fn admins() -> usize {
    (limit() / ADMINS_PART).clamp(1, MOST_ADMINS)
}

/// How many idle connections to backends can be kept: enough for a fleet, and few where there are few descriptors.
pub(super) fn idle_connections() -> usize {
    (limit() / IDLE_PART).clamp(1, MAX_IDLE_CONNECTIONS)
}

/// How many descriptors the process may have.
fn limit() -> usize {
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Standard streams, the runtime's own, files while they are read, who is being turned away.
const OWN: usize = 32;
/// More than people, scripts and Prometheus need; one in so many descriptors, where there are few.
const MOST_ADMINS: usize = 64;
const ADMINS_PART: usize = 16;
/// A probe, a poll of its load, and its name while it is resolved.
const PER_BACKEND: usize = 3;
/// 1/16 of the descriptors is for idle connections to backends.
const IDLE_PART: usize = 16;
const MAX_IDLE_CONNECTIONS: usize = 4096;
/// One in so many is for clients, however few there are.
const LEAST_PART: usize = 4;

pub(super) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// The names of all headers that backends get, each once.
pub(super) fn header_names(config: &Config) -> Vec<String> {
    let backends = config.pool().backends.iter();
    let mut names: Vec<String> =
        backends.flat_map(|backend| &backend.headers).map(|header| header.name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    names.dedup();
    names
}
