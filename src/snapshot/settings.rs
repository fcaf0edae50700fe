//! What the config says of a pool, in the words of the core.

use std::time::Duration;

use crate::config::{self, Config, ReturnHome};
use crate::core::pool::{Balance, Drain, DrainSessions, MaxInFlight, MemberSpec, Overload, Policy, Settings};
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

pub(super) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
