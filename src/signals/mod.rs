//! Signals: asks backends for their load, where the config wants it.
//!
//! Each backend has a task of its own that asks one thing at a time, on a connection that it closes afterwards: a kept
//! one would hold one of llama-server's few threads. What comes, or does not come, never counts towards health. An
//! endpoint that a backend does not have is said once, with what to do, and asked again only after the backend was away
//! or the config was loaded again.
//!
//! | what | from | when |
//! |---|---|---|
//! | running, waiting, KV usage | `/metrics` | every `signals.interval` |
//! | running | llama-server's `/slots` | instead, if it was started without `--metrics` |
//! | slots | llama-server's `/props` | at the start and whenever the backend recovers, also for `max_in_flight: auto` |
//!
//! `/slots` is the second choice: older versions put whole prompts into it, and it wakes a llama-server that sleeps.

mod endpoint;
mod get;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pingora::connectors::http::v1::Connector;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::certificates::connector_options;
use crate::clock::Jitter;
use crate::config::{self, MaxInFlight, ServerKind};
use crate::core::Signals;
use crate::gateway::Gateway;
use crate::link::{Limit, Link, describe, of_system};
use endpoint::{Endpoint, Verdict};

/// The asking of all backends. It ends when this drops.
pub struct Pollers {
    gateway: Arc<Gateway>,
    connector: Arc<Connector>,
    tasks: JoinSet<()>,
    polled: Vec<(Arc<Link>, AbortHandle)>,
}

impl Pollers {
    /// Begins to ask the backends of the snapshot in force, as far as its config wants anything from them.
    #[must_use]
    pub fn start(gateway: &Arc<Gateway>) -> Pollers {
        let connector = Arc::new(Connector::new(Some(connector_options())));
        let mut pollers =
            Pollers { gateway: Arc::clone(gateway), connector, tasks: JoinSet::new(), polled: Vec::new() };
        pollers.follow();
        pollers
    }

    /// Begins to ask whom the config in force names anew, and ends with whom it does not name any more. Who stays sees
    /// by itself what is wanted now.
    pub fn follow(&mut self) {
        let snapshot = self.gateway.snapshot.load_full();
        self.polled.retain(|(link, task)| {
            let stays = snapshot.links.iter().any(|other| Arc::ptr_eq(other, link));
            if !stays {
                task.abort();
                // Its slots bound those who still wait for room there.
                link.backend.set_signals(Signals { slots: link.backend.slots(), ..Signals::UNKNOWN });
            }
            stays
        });
        while self.tasks.try_join_next().is_some() {}
        let pool = snapshot.config.pool();
        for (link, backend) in snapshot.links.iter().zip(&pool.backends) {
            if !self.polled.iter().any(|(other, _)| Arc::ptr_eq(other, link)) {
                let (connector, wanted) = (Arc::clone(&self.connector), Wanted::of(pool, backend.server));
                let poller = Poller::new(&self.gateway, Arc::clone(link), connector, wanted);
                self.polled.push((Arc::clone(link), self.tasks.spawn(poller.run())));
            }
        }
    }
}

/// What is asked of a backend, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    server: ServerKind,
    load: bool,
    slots: bool,
    interval: Duration,
    timeout: Duration,
}

impl Wanted {
    /// Only llama-server has slots to tell of; others are asked for them if the config relies on it.
    fn of(pool: &config::Pool, server: ServerKind) -> Wanted {
        let load = pool.signals.interval.is_some();
        let auto = pool.overload.max_in_flight == MaxInFlight::Auto;
        Wanted {
            server,
            load,
            slots: auto || load && server == ServerKind::LlamaServer,
            interval: pool.signals.interval.unwrap_or(pool.health_check.interval),
            timeout: pool.health_check.timeout,
        }
    }

    fn anything(self) -> bool {
        self.load || self.slots
    }
}

/// The asking of one backend.
struct Poller {
    gateway: Arc<Gateway>,
    link: Arc<Link>,
    connector: Arc<Connector>,
    wanted: Wanted,
    jitter: Jitter,
    /// How often it has begun to serve.
    returns: watch::Receiver<u64>,
    /// The last of them that was seen: what it said since then is known.
    met: Option<u64>,
    /// What it does not have, or says in a way that nobody here reads.
    missing: Vec<Endpoint>,
    strange: Vec<Endpoint>,
    slots: Option<u32>,
    /// From then on what it said last of its load is not known any more.
    stale: Instant,
}

impl Poller {
    fn new(gateway: &Arc<Gateway>, link: Arc<Link>, connector: Arc<Connector>, wanted: Wanted) -> Poller {
        Poller {
            wanted,
            returns: link.returns.subscribe(),
            met: None,
            gateway: Arc::clone(gateway),
            link,
            connector,
            jitter: Jitter::default(),
            missing: Vec::new(),
            strange: Vec::new(),
            slots: None,
            stale: Instant::now(),
        }
    }

    /// Asks until it is aborted.
    async fn run(mut self) {
        let mut reloads = self.gateway.reloads();
        // Another process may have had its name until now.
        self.publish(Signals::UNKNOWN);
        for round in 0u64.. {
            self.look_at_config();
            self.once().await;
            let pause = async {
                match self.wanted.anything() {
                    true => sleep(self.wanted.interval.mul_f64(self.jitter.pause(round))).await,
                    false => std::future::pending().await,
                }
            };
            // An error says that a sender is gone, but the link has one and the gateway the other.
            tokio::select! {
                () = pause => {}
                _ = self.returns.changed() => {}
                _ = reloads.changed() => {
                    self.missing.clear();
                    self.strange.clear();
                }
            }
        }
    }

    /// Finds out what the config in force wants of it; what it does not want any more is not known any more.
    fn look_at_config(&mut self) {
        let snapshot = self.gateway.snapshot.load();
        let pool = snapshot.config.pool();
        let Some(member) = snapshot.links.iter().position(|link| Arc::ptr_eq(link, &self.link)) else { return };
        self.wanted = Wanted::of(pool, pool.backends[member].server);
        if !self.wanted.slots {
            self.slots = None;
        }
        if !self.wanted.load {
            self.publish(Signals::UNKNOWN);
        }
    }

    /// Asks a backend that serves; one that does not is left alone.
    async fn once(&mut self) {
        if !self.wanted.anything() {
            return;
        }
        if !self.link.backend.state().serves() {
            self.publish(Signals::UNKNOWN);
            return;
        }
        // It may be another process now: everything is asked again, as after a start.
        let met = Some(*self.returns.borrow_and_update());
        if self.met != met {
            self.met = met;
            self.missing.clear();
            self.strange.clear();
            self.slots = None;
        }
        if self.wanted.slots && self.slots.is_none() && self.has(Endpoint::Props) {
            let said = self.ask(Endpoint::Props).await;
            self.take(Endpoint::Props, said);
        }
        if let Some(endpoint) = self.source() {
            let said = self.ask_until_stale(endpoint).await;
            self.take(endpoint, said);
        }
    }

    /// Where its load is asked for.
    fn source(&self) -> Option<Endpoint> {
        let endpoints: &[Endpoint] = match self.wanted.server {
            _ if !self.wanted.load => &[],
            ServerKind::LlamaServer => &[Endpoint::Metrics, Endpoint::Slots],
            ServerKind::Vllm | ServerKind::Generic => &[Endpoint::Metrics],
        };
        endpoints.iter().copied().find(|endpoint| self.has(*endpoint))
    }

    fn has(&self, endpoint: Endpoint) -> bool {
        !self.missing.contains(&endpoint)
    }

    /// The same as [`Poller::ask`]; while it waits, what the backend said before may become too old.
    async fn ask_until_stale(&self, endpoint: Endpoint) -> Verdict {
        let mut said = std::pin::pin!(self.ask(endpoint));
        tokio::select! {
            said = &mut said => return said,
            () = sleep_until(self.stale) => self.publish(Signals::UNKNOWN),
        }
        said.await
    }

    async fn ask(&self, endpoint: Endpoint) -> Verdict {
        let asked = async {
            let limit = Limit { time: self.wanted.timeout, setting: "health_check.timeout" };
            let unresolved = |error: io::Error| format!("the name cannot be resolved: {}", of_system(&error));
            let address = self.link.address.get().await.map_err(unresolved)?;
            let origin = self.link.address.origin();
            let peer = self.gateway.certificates.peer(address, origin).map_err(|error| describe(&error, limit))?;
            let answer = get::get(&self.connector, &peer, &self.link, endpoint.path()).await;
            answer.map_err(|error| describe(&error, limit))
        };
        match tokio::time::timeout(self.wanted.timeout, asked).await {
            Ok(Ok(answer)) => endpoint.judge(&answer),
            Ok(Err(error)) => Verdict::NotNow(error),
            Err(_) => Verdict::NotNow(format!("no answer within {}", config::duration(self.wanted.timeout))),
        }
    }

    fn take(&mut self, endpoint: Endpoint, said: Verdict) {
        let backend = self.link.backend.name();
        match said {
            Verdict::Said(signals) => {
                self.slots = signals.slots.or(self.slots);
                if endpoint != Endpoint::Props {
                    self.stale = Instant::now() + self.wanted.interval * STALE;
                }
                self.publish(signals);
            }
            Verdict::Missing(status) => {
                let what_to_do = endpoint.remedy(self.wanted.server, status);
                tracing::info!(backend, endpoint = endpoint.path(), status, what_to_do, "no signals from here");
                self.missing.push(endpoint);
            }
            Verdict::Strange(what) if !self.strange.contains(&endpoint) => {
                let what_to_do = endpoint.remedy(self.wanted.server, 200);
                tracing::info!(backend, endpoint = endpoint.path(), what, what_to_do, "no signals from here yet");
                self.strange.push(endpoint);
            }
            Verdict::Strange(_) => {}
            Verdict::NotNow(error) => {
                tracing::debug!(backend, endpoint = endpoint.path(), error, "no signals now");
            }
        }
        if Instant::now() >= self.stale && self.wanted.load {
            self.publish(Signals::UNKNOWN);
        }
    }

    /// Slots do not change while a backend runs, so what it said of them stays.
    fn publish(&self, signals: Signals) {
        self.link.backend.set_signals(Signals { slots: signals.slots.or(self.slots), ..signals });
    }
}

/// After so many intervals without an answer, the last one is not believed any more.
const STALE: u32 = 3;
