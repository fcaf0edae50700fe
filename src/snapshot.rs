//! The config in force and what was built from it. A request keeps the one that it began with.

mod settings;

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::Config;
use crate::core::budget::RetryBudget;
use crate::core::hints::Move;
use crate::core::latency::Histogram;
use crate::core::rate::Rate;
use crate::core::stall::{STALLED_AFTER, is_stalled};
use crate::core::{Affinity, Millis, Observation, Pool, Selection, State, Tried, Verdict};
use crate::gauge::Gauge;
use crate::link::{Deadlines, Link};
use crate::metrics::{Metrics, PoolMetrics};
use crate::watch::{Finished, Watch};
use settings::{admins, descriptors, header_names, idle_connections, millis, rate, settings, specs};

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
    /// How long the head of a stream is held for its first output.
    pub hold_head: Millis,
    /// How often one client may ask, if that has a bound.
    pub client_rate: Option<Rate>,
    /// Names of headers that some backend gets from the config, in place of the clients' own.
    pub header_names: Vec<String>,
    /// How many descriptors clients and their requests may have, as the system was when the config came into force.
    pub descriptors: usize,
    /// How many connections admins may have.
    pub admins: usize,
    /// How many idle connections to backends can be kept.
    pub idle_connections: usize,
    /// How long each of them can be kept.
    pub keep_alive: Millis,
    /// What finished requests showed of how well affinity works.
    pub watch: Arc<Watch>,
    /// Requests that wait until a backend can serve them.
    pub held: Gauge,
    /// Wakes them when the state of a backend changes.
    pub changes: Arc<watch::Sender<()>>,
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
    pub fn rebuild(&self, config: Config, metrics: &Metrics, now: Millis) -> Snapshot {
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
                pool.members()[member].backend.set_draining(new.draining, now);
            }
        }
        Snapshot::assemble(config, pool, Some(self), metrics)
    }

    fn assemble(config: Config, pool: Pool, old: Option<&Snapshot>, metrics: &Metrics) -> Snapshot {
        let watch = old.map_or_else(Arc::default, |old| Arc::clone(&old.watch));
        let held = old.map_or_else(Gauge::default, |old| old.held.clone());
        let changes = old.map_or_else(Arc::default, |old| Arc::clone(&old.changes));
        // What is counted has the pool's name on it.
        let old = old.filter(|old| old.config.pool().name == config.pool().name);
        let backends = config.pool().backends.iter().zip(pool.members());
        let links = backends
            .map(|(backend, member)| {
                let same = |link: &&Arc<Link>| {
                    Arc::ptr_eq(&link.backend, &member.backend) && *link.address.origin() == backend.origin
                };
                let link = old.and_then(|old| old.links.iter().find(same)).map_or_else(
                    || Arc::new(Link::new(Arc::clone(&member.backend), backend, &config.pool().name, metrics)),
                    Arc::clone,
                );
                link.set_headers(&backend.headers);
                link
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
                first_token: timeouts.first_token.map(millis),
                idle: timeouts.idle.map(millis),
                total: timeouts.total.map(millis),
            },
            header_names: header_names(&config),
            hold_head: millis(config.pool().retry.hold_head),
            client_rate: config.limits.per_client.requests.map(rate),
            descriptors: descriptors(&config),
            admins: admins(),
            idle_connections: idle_connections(),
            keep_alive: millis(timeouts.keep_alive),
            links,
            pool,
            config,
            watch,
            held,
            changes,
        }
    }

    /// Takes in what was seen of a member. A change of its state is counted and logged, once.
    pub fn observe(&self, member: usize, seen: Observation, metrics: &Metrics, now: Millis) {
        let link = &self.links[member];
        let Some(transition) = link.backend.observe(seen, self.pool.settings().thresholds, now) else { return };
        self.changes.send_replace(());
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

    /// Whether another member than this one has produced output since a moment, and this one has not.
    #[must_use]
    pub fn others_produce(&self, member: usize, since: Millis) -> bool {
        let produces = |link: &Arc<Link>| link.attempts.progress_since(since);
        let others = self.links.iter().enumerate().filter(|(index, _)| *index != member);
        !produces(&self.links[member]) && others.into_iter().any(|(_, link)| produces(link))
    }

    /// Notes which backends leave requests without output, while others produce some.
    fn note_stalls(&self, now: Millis) {
        let mut median = None;
        for (member, link) in self.links.iter().enumerate() {
            let Some(since) =
                link.attempts.waits_since().filter(|_| link.backend.state().serves() && !link.backend.on_trial())
            else {
                continue;
            };
            let waited = now.saturating_sub(since);
            if waited <= STALLED_AFTER
                || !is_stalled(waited, *median.get_or_insert_with(|| self.median(now)))
                || !self.others_produce(member, since)
            {
                continue;
            }
            link.backend.observe(Observation::Stalled, self.pool.settings().thresholds, now);
            let (pool, backend) = (&self.config.pool().name, link.backend.name());
            link.note_error(format!("no output for {waited} ms, while others produce some"));
            tracing::warn!(%pool, backend, waited_ms = waited, "backend stalled: it gets no new sessions");
        }
    }

    /// How long half of the pool's requests waited for their first output lately.
    fn median(&self, now: Millis) -> Option<Millis> {
        let mut sum = Histogram::default();
        self.links.iter().for_each(|link| link.add_first_tokens(&mut sum, now));
        Some(sum.quantiles()?.p50)
    }

    /// Whether a request that has been to `tried` can be served later, if it waits: no backend can serve it now, and one
    /// that it was not sent to may come.
    #[must_use]
    pub fn is_worth_waiting(&self, verdict: &Verdict, tried: &Tried) -> bool {
        let is_unserved = match verdict {
            Verdict::Go(selection) => selection.affinity == Affinity::FailOpen,
            Verdict::Nobody => true,
            Verdict::Full | Verdict::Wait { .. } => false,
        };
        let may_come = |(member, link): (usize, &Arc<Link>)| link.may_come() && !tried.contains(member);
        is_unserved && self.links.iter().enumerate().any(may_come)
    }

    /// Takes in what a request showed that a backend answered, when it is over.
    pub fn finished(&self, finished: &Finished<'_>, selection: Selection, now: Millis) {
        let left = finished.turn.and_then(|turn| turn.from);
        let moved = left.map(|left| match selection.reason {
            Some(reason) => Move::from(reason),
            None if self.pool.members().iter().any(|member| member.backend.id() == left.backend) => Move::Returned,
            // Who is no longer in the config has been taken out, too.
            None => Move::Draining,
        });
        self.watch.finished(finished, moved, &self.metrics.watch, now);
    }

    /// Forgets the sessions that have gone idle, judges how well affinity works, and does [`Snapshot::cut`].
    pub fn sweep(&self, now: Millis) {
        self.pool.expire(now);
        let open = |link: &&Arc<Link>| !link.backend.draining();
        let backends = self.links.iter().filter(open).count();
        self.links.iter().for_each(|link| link.note_load(now));
        self.watch.sweep(self.config.pool(), backends, &self.metrics.watch, now);
        self.cut(now);
    }

    /// Ends the attempts that are over their time, and those that wait on a backend that is lost while another one is
    /// available (what waits at a slow one, or one that answers with errors, can still be answered); calls who waits for room. A snapshot that is no longer in force needs it for as long as requests keep
    /// it.
    pub fn cut(&self, now: Millis) {
        self.note_stalls(now);
        let has_room = self.pool.has_room();
        for (member, link) in self.links.iter().enumerate() {
            // Room is made not only by who leaves: the bounds move, too, and who waits for a dead backend has to know.
            if has_room {
                link.queue.call_all();
            } else {
                link.queue.call();
            }
            link.idle.expire(self.keep_alive, now);
            let late = link.attempts.cut_late(now);
            let others =
                self.pool.members().iter().enumerate().any(|(i, other)| i != member && other.backend.available());
            let waiting = match link.backend.state() {
                State::Unhealthy if others && link.backend.is_lost() => link.attempts.cut_waiting(),
                _ => 0,
            };
            if late + waiting > 0 {
                tracing::info!(backend = link.backend.name(), late, waiting, "attempts cut");
            }
        }
    }
}
