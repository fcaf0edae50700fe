//! The config in force and what was built from it. A request keeps the one that it began with.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Config, ReturnHome};
use crate::core::budget::RetryBudget;
use crate::core::pool::{Balance, MemberSpec, Settings};
use crate::core::{Millis, Observation, Pool, Seed, State, Thresholds};
use crate::link::{Deadlines, Link};
use crate::metrics::{Metrics, PoolMetrics};

/// One config and what was built from it.
pub struct Snapshot {
    /// The config.
    pub config: Config,
    /// The pool, which selects.
    pub pool: Pool,
    /// The links, one for each member of the pool, in its order.
    pub links: Vec<Arc<Link>>,
    /// What is counted of the pool.
    pub metrics: PoolMetrics,
    /// How many retries the moment allows.
    pub budget: Arc<RetryBudget>,
    /// How long attempts may take.
    pub deadlines: Deadlines,
}

impl Snapshot {
    /// What a config describes, of which nothing is known yet.
    #[must_use]
    pub fn new(config: Config, metrics: &Metrics) -> Snapshot {
        let pool = Pool::new(&specs(&config), settings(&config));
        Snapshot::assemble(config, pool, None, metrics)
    }

    /// The snapshot after a change of the config: what both configs name keeps its state.
    #[must_use]
    pub fn rebuild(&self, config: Config, metrics: &Metrics) -> Snapshot {
        let pool = self.pool.rebuild(&specs(&config), settings(&config));
        for (old, new) in self
            .config
            .pool()
            .backends
            .iter()
            .filter_map(|old| Some((old, config.pool().backends.iter().find(|new| new.name == old.name)?)))
        {
            if old.draining != new.draining
                && let Some(member) = pool.position(&new.name)
            {
                pool.members()[member].backend.set_draining(new.draining);
            }
        }
        Snapshot::assemble(config, pool, Some(self), metrics)
    }

    fn assemble(config: Config, pool: Pool, old: Option<&Snapshot>, metrics: &Metrics) -> Snapshot {
        // What is counted has the pool's name on it.
        let old = old.filter(|old| old.config.pool().name == config.pool().name);
        let backends = config.pool().backends.iter().zip(pool.members());
        let links = backends
            .map(|(backend, member)| {
                let same = |link: &&Arc<Link>| {
                    Arc::ptr_eq(&link.backend, &member.backend) && *link.address.origin() == backend.origin
                };
                old.and_then(|old| old.links.iter().find(same)).map_or_else(
                    || Arc::new(Link::new(Arc::clone(&member.backend), backend, &config.pool().name, metrics)),
                    Arc::clone,
                )
            })
            .collect();
        let share = config.pool().retry.budget;
        let budget = old.filter(|old| old.config.pool().retry.budget == share).map(|old| Arc::clone(&old.budget));
        let headers: Vec<&str> = config.affinity.headers.iter().map(|header| header.written.as_str()).collect();
        let timeouts = &config.pool().timeouts;
        Snapshot {
            metrics: metrics.pool(&config.pool().name, &headers),
            budget: budget.unwrap_or_else(|| Arc::new(RetryBudget::new(share))),
            deadlines: Deadlines {
                first_byte: timeouts.first_byte.map(millis),
                idle: timeouts.idle.map(millis),
                total: timeouts.total.map(millis),
            },
            links,
            pool,
            config,
        }
    }

    /// Takes in what was seen of a member. A change of its state is counted and logged, once.
    pub fn observe(&self, member: usize, seen: Observation, metrics: &Metrics) {
        let link = &self.links[member];
        let Some(transition) = link.backend.observe(seen, self.pool.settings().thresholds) else { return };
        let pool = &self.config.pool().name;
        metrics.transition(pool, link.backend.name(), transition);
        let (backend, from, to, cause) =
            (link.backend.name(), transition.from.as_str(), transition.to.as_str(), transition.cause.as_str());
        if transition.to == State::Unhealthy {
            let last_error = link.last_error().map_or_else(String::new, |error| error.what);
            tracing::warn!(%pool, %backend, %from, %to, %cause, %last_error, "backend changed state");
        } else {
            tracing::info!(%pool, %backend, %from, %to, %cause, "backend changed state");
        }
    }

    /// Forgets the sessions that have gone idle, and does [`Snapshot::cut`].
    pub fn sweep(&self, now: Millis) {
        self.pool.expire(now);
        self.cut(now);
    }

    /// Ends the attempts that are over their time, and those that wait on an unhealthy backend while another one is
    /// available. A snapshot that is no longer in force needs it for as long as requests keep it.
    pub fn cut(&self, now: Millis) {
        for (member, link) in self.links.iter().enumerate() {
            let late = link.attempts.cut_late(now);
            let others =
                self.pool.members().iter().enumerate().any(|(i, other)| i != member && other.backend.available());
            let waiting = match link.backend.state() {
                State::Unhealthy if others => link.attempts.cut_waiting(),
                _ => 0,
            };
            if late + waiting > 0 {
                tracing::info!(backend = link.backend.name(), late, waiting, "attempts cut");
            }
        }
    }
}

fn specs(config: &Config) -> Vec<MemberSpec> {
    let spec = |backend: &config::Backend| MemberSpec {
        name: backend.name.clone(),
        weight: backend.weight,
        priority: backend.priority,
        draining: backend.draining,
    };
    config.pool().backends.iter().map(spec).collect()
}

fn settings(config: &Config) -> Settings {
    let (affinity, pool) = (&config.affinity, config.pool());
    Settings {
        seed: Seed::new(&affinity.hash_seed),
        balance: match pool.balance {
            config::Balance::RoundRobin => Balance::RoundRobin,
            config::Balance::LeastRequests => Balance::LeastRequests,
        },
        fail_open: pool.fail_open,
        stay_put: affinity.return_home == ReturnHome::WhenIdle,
        idle_ttl: millis(affinity.idle_ttl),
        max_displaced: affinity.max_displaced,
        thresholds: Thresholds {
            healthy: pool.health_check.healthy_threshold,
            unhealthy: pool.health_check.unhealthy_threshold,
        },
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
