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

use std::sync::Arc;
use std::time::Duration;

use pingora::connectors::http::v1::Connector;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::Jitter;
use crate::config::{self, MaxInFlight, ServerKind};
use crate::core::Signals;
use crate::link::Link;
use crate::snapshot::Snapshot;
use endpoint::{Endpoint, Verdict};

/// Begins to ask the backends of a snapshot, if its config wants anything from them. It ends when the returned set
/// drops.
#[must_use]
pub fn spawn(snapshot: &Arc<Snapshot>) -> JoinSet<()> {
    let connector = Arc::new(Connector::new(None));
    let pool = snapshot.config.pool();
    let mut tasks = JoinSet::new();
    for (link, backend) in snapshot.links.iter().zip(&pool.backends) {
        let wanted = Wanted::of(pool, backend.server);
        if wanted.load || wanted.slots {
            let poller = Poller::new(Arc::clone(link), Arc::clone(&connector), pool, backend.server, wanted);
            tasks.spawn(poller.run());
        } else {
            // What an earlier config asked for.
            link.backend.set_signals(Signals::UNKNOWN);
        }
    }
    tasks
}

/// What is asked of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    load: bool,
    slots: bool,
}

impl Wanted {
    /// Only llama-server has slots to tell of; others are asked for them if the config relies on it.
    fn of(pool: &config::Pool, server: ServerKind) -> Wanted {
        let load = pool.signals.interval.is_some();
        let auto = pool.overload.max_in_flight == MaxInFlight::Auto;
        Wanted { load, slots: auto || load && server == ServerKind::LlamaServer }
    }
}

/// The asking of one backend.
struct Poller {
    link: Arc<Link>,
    connector: Arc<Connector>,
    server: ServerKind,
    wanted: Wanted,
    interval: Duration,
    timeout: Duration,
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
    fn new(
        link: Arc<Link>,
        connector: Arc<Connector>,
        pool: &config::Pool,
        server: ServerKind,
        wanted: Wanted,
    ) -> Poller {
        Poller {
            returns: link.returns.subscribe(),
            met: None,
            link,
            connector,
            server,
            wanted,
            interval: pool.signals.interval.unwrap_or(pool.health_check.interval),
            timeout: pool.health_check.timeout,
            jitter: Jitter::default(),
            missing: Vec::new(),
            strange: Vec::new(),
            slots: None,
            stale: Instant::now(),
        }
    }

    async fn run(mut self) {
        for round in 0u64.. {
            self.once().await;
            tokio::select! {
                () = tokio::time::sleep(self.interval.mul_f64(self.jitter.pause(round))) => {}
                // An error says that the sender is gone, but the link has it.
                _ = self.returns.changed() => {}
            }
        }
    }

    /// Asks a backend that serves; one that does not is left alone.
    async fn once(&mut self) {
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
        let endpoints: &[Endpoint] = match self.server {
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
            () = tokio::time::sleep_until(self.stale) => self.publish(Signals::UNKNOWN),
        }
        said.await
    }

    async fn ask(&self, endpoint: Endpoint) -> Verdict {
        let asked = async {
            let address = self.link.address.get().await.map_err(|error| error.to_string())?;
            let host = self.link.address.origin().authority();
            get::get(&self.connector, address, &host, endpoint.path()).await.map_err(|error| error.to_string())
        };
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(Ok(answer)) => endpoint.judge(&answer),
            Ok(Err(error)) => Verdict::NotNow(error),
            Err(_) => Verdict::NotNow(format!("no answer within {:?}", self.timeout)),
        }
    }

    fn take(&mut self, endpoint: Endpoint, said: Verdict) {
        let backend = self.link.backend.name();
        match said {
            Verdict::Said(signals) => {
                self.slots = signals.slots.or(self.slots);
                if endpoint != Endpoint::Props {
                    self.stale = Instant::now() + self.interval * STALE;
                }
                self.publish(signals);
            }
            Verdict::Missing(status) => {
                let what_to_do = endpoint.remedy(self.server, status);
                tracing::info!(backend, endpoint = endpoint.path(), status, what_to_do, "no signals from here");
                self.missing.push(endpoint);
            }
            Verdict::Strange(what) if !self.strange.contains(&endpoint) => {
                let what_to_do = endpoint.remedy(self.server, 200);
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
