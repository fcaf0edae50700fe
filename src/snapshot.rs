//! The config in force and what was built from it. A request keeps the one that it began with.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Config, ReturnHome};
use crate::core::budget::RetryBudget;
use crate::core::hints::Move;
use crate::core::pool::{Balance, MemberSpec, Settings};
use crate::core::{Affinity, Millis, Observation, Pool, Seed, Selection, State, Thresholds};
use crate::link::{Deadlines, Link};
use crate::metrics::{Metrics, PoolMetrics};
use crate::watch::{self, Finished, Watch};

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
    pub budget: RetryBudget,
    /// How long attempts may take.
    pub deadlines: Deadlines,
    /// What finished requests showed of how well affinity works.
    pub watch: Arc<Watch>,
}

impl Snapshot {
    /// What a config describes, of which nothing is known yet.
    #[must_use]
    pub fn new(config: Config, metrics: &Metrics) -> Snapshot {
        let pool = Pool::new(&specs(&config), settings(&config));
        Snapshot::assemble(config, pool, &[], Arc::default(), metrics)
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
        Snapshot::assemble(config, pool, &self.links, Arc::clone(&self.watch), metrics)
    }

    fn assemble(config: Config, pool: Pool, old: &[Arc<Link>], watch: Arc<Watch>, metrics: &Metrics) -> Snapshot {
        let backends = config.pool().backends.iter().zip(pool.members());
        let links = backends
            .map(|(backend, member)| {
                let same = |old: &&Arc<Link>| {
                    Arc::ptr_eq(&old.backend, &member.backend) && *old.address.origin() == backend.origin
                };
                old.iter().find(same).map_or_else(
                    || Arc::new(Link::new(Arc::clone(&member.backend), backend, &config.pool().name, metrics)),
                    Arc::clone,
                )
            })
            .collect();
        let headers: Vec<&str> = config.affinity.headers.iter().map(|header| header.written.as_str()).collect();
        let timeouts = &config.pool().timeouts;
        Snapshot {
            metrics: metrics.pool(&config.pool().name, &headers),
            budget: RetryBudget::new(config.pool().retry.budget),
            deadlines: Deadlines {
                first_byte: timeouts.first_byte.map(millis),
                idle: timeouts.idle.map(millis),
                total: timeouts.total.map(millis),
            },
            links,
            pool,
            config,
            watch,
        }
    }

    /// Takes in what was seen of a member. A change of its state is counted and logged, once.
    pub fn observe(&self, member: usize, seen: Observation, metrics: &Metrics) {
        let link = &self.links[member];
        let Some(transition) = link.backend.observe(seen, self.pool.settings().thresholds) else { return };
        let pool = &self.config.pool().name;
        metrics.transition(pool, link.backend.name(), transition);
        if transition.to.serves() && !transition.from.serves() {
            link.returns.send_modify(|returns| *returns += 1);
        }
        let (backend, from, to, cause) =
            (link.backend.name(), transition.from.as_str(), transition.to.as_str(), transition.cause.as_str());
        if transition.to == State::Unhealthy {
            let last_error = link.last_error().map_or_else(String::new, |error| error.what);
            tracing::warn!(%pool, %backend, %from, %to, %cause, %last_error, "backend changed state");
        } else {
            tracing::info!(%pool, %backend, %from, %to, %cause, "backend changed state");
        }
    }

    /// Takes in what a request showed that a backend answered, when it is over. `attempts` is how many it took.
    pub fn finished(&self, finished: &Finished<'_>, selection: Selection, attempts: u32, now: Millis) {
        let why = |from| self.why_moved(from, selection.affinity, attempts);
        self.watch.finished(finished, why, self.pool.settings().idle_ttl, &self.metrics.watch, now);
    }

    /// Why a session left the place where it was.
    fn why_moved(&self, from: usize, affinity: Affinity, attempts: u32) -> Move {
        let left = self.links.iter().map(|link| &link.backend).find(|backend| watch::place(backend) == from);
        match (left, affinity) {
            // Who is no longer in the config has been taken out, too.
            (None, _) => Move::Draining,
            (Some(left), _) if left.draining() => Move::Draining,
            (Some(left), _) if !left.state().serves() => Move::Unhealthy,
            (_, Affinity::Spilled) => Move::Balance,
            _ if attempts > 1 => Move::Tried,
            (_, Affinity::Home) => Move::Returned,
            // It has recovered since.
            _ => Move::Unhealthy,
        }
    }

    /// Ends the attempts that are over their time, and those that wait on an unhealthy backend while another one is
    /// available; forgets the sessions that have gone idle.
    pub fn sweep(&self, now: Millis) {
        self.pool.expire(now);
        let open = |link: &&Arc<Link>| !link.backend.draining();
        let backends = self.links.iter().filter(open).count();
        self.watch.sweep(&self.config.pool().name, backends, &self.metrics.watch, now);
        for (member, link) in self.links.iter().enumerate() {
            let late = link.attempts.cut_late(self.deadlines, now);
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
