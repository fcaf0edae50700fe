//! Probes: asks every backend, again and again, how it is.
//!
//! Each backend has a task of its own, so one that hangs delays nobody, and a jitter, so that a fleet of gateways does
//! not ask all at once. The checks are Pingora's; what they say goes into the same state machine as what traffic shows.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::Uri;
use pingora::connectors::TransportConnector;
use pingora::connectors::http::Connector;
use pingora::prelude::{sleep, timeout};
use pingora::{Error, ErrorType, OrErr};
use pingora_load_balancing::Backend as Target;
use pingora_load_balancing::health_check::{HealthCheck as _, HttpHealthCheck};
use tokio::task::JoinSet;

use crate::certificates::connector_options;
use crate::clock::Jitter;
use crate::config::{self, Origin, ProbeKind};
use crate::core::{Millis, Observation};
use crate::gateway::Gateway;
use crate::link::{Link, describe as in_words, is_ours};
use crate::snapshot::Snapshot;

/// The probing of all backends. It ends when this drops.
pub struct Probes {
    gateway: Arc<Gateway>,
    tasks: JoinSet<()>,
    /// Whom a task probes, or probed until it was gone from the config.
    probed: Vec<Weak<Link>>,
}

impl Probes {
    /// Begins to probe the backends of the snapshot in force. The gateway is told when each of them had its first probe.
    #[must_use]
    pub fn start(gateway: &Arc<Gateway>) -> Probes {
        let mut probes = Probes { gateway: Arc::clone(gateway), tasks: JoinSet::new(), probed: Vec::new() };
        probes.begin(Some(Arc::new(FirstRound(Arc::clone(gateway)))));
        probes
    }

    /// Begins to probe whom the config in force names anew. Who was probed before goes on in his rhythm, with the new
    /// settings; who is gone is probed no more.
    pub fn follow(&mut self) {
        self.begin(None);
    }

    fn begin(&mut self, first: Option<Arc<FirstRound>>) {
        while self.tasks.try_join_next().is_some() {}
        self.probed.retain(|link| link.strong_count() > 0);
        let snapshot = self.gateway.snapshot.load_full();
        let known = |link: &Arc<Link>| self.probed.iter().any(|one| std::ptr::eq(one.as_ptr(), Arc::as_ptr(link)));
        let new: Vec<&Arc<Link>> = snapshot.links.iter().filter(|link| !known(link)).collect();
        for link in new {
            self.probed.push(Arc::downgrade(link));
            self.tasks.spawn(Probe::new(&self.gateway, &snapshot, link).run(first.clone()));
        }
    }
}

/// Dropped by each probe after its first time.
struct FirstRound(Arc<Gateway>);

impl Drop for FirstRound {
    fn drop(&mut self) {
        self.0.set_probed();
    }
}

/// The probing of one backend.
struct Probe {
    gateway: Arc<Gateway>,
    link: Weak<Link>,
    settings: config::HealthCheck,
    check: Check,
    jitter: Jitter,
}

impl Probe {
    fn new(gateway: &Arc<Gateway>, snapshot: &Snapshot, link: &Arc<Link>) -> Probe {
        let settings = snapshot.config.pool().health_check.clone();
        Probe {
            check: Check::new(&settings, link.address.origin()),
            settings,
            gateway: Arc::clone(gateway),
            link: Arc::downgrade(link),
            jitter: Jitter::default(),
        }
    }

    /// Probes until the config in force does not name the backend any more.
    async fn run(mut self, mut first: Option<Arc<FirstRound>>) {
        let mut reloads = self.gateway.reloads();
        let mut last = self.gateway.clock.now();
        for round in 0u64.. {
            let begun = self.gateway.clock.now();
            if !self.once(last).await {
                return;
            }
            last = begun;
            first.take();
            let (since, pause) = (Instant::now(), self.jitter.pause(round));
            loop {
                let Some((snapshot, _)) = self.place() else { return };
                let interval = snapshot.config.pool().health_check.interval;
                drop(snapshot);
                tokio::select! {
                    () = sleep(interval.mul_f64(pause).saturating_sub(since.elapsed())) => break,
                    // There may be another interval now, or no such backend.
                    _ = reloads.changed() => {}
                }
            }
        }
    }

    /// The snapshot in force and the backend's place in it, if it has one.
    fn place(&self) -> Option<(Arc<Snapshot>, usize)> {
        let snapshot = self.gateway.snapshot.load_full();
        let member = snapshot.links.iter().position(|link| std::ptr::eq(Arc::as_ptr(link), self.link.as_ptr()))?;
        Some((snapshot, member))
    }

    /// False: the backend is gone.
    async fn once(&mut self, last: Millis) -> bool {
        let Some((snapshot, member)) = self.place() else { return false };
        let (link, settings) = (&snapshot.links[member], &snapshot.config.pool().health_check);
        if self.settings != *settings {
            self.check = Check::new(settings, link.address.origin());
            self.settings = settings.clone();
        }
        let seen = match self.ask(link).await {
            Ok(()) => Observation::ProbeOk,
            // Busy is not dead: tokens that came since the last probe outweigh a probe that did not.
            Err(error) if link.attempts.progress_since(last) => {
                tracing::debug!(backend = link.backend.name(), %error, "probe failed, but a stream is flowing");
                return true;
            }
            // That the gateway can't ask says nothing of the answer.
            Err(error) if is_ours(&error) => {
                tracing::warn!(backend = link.backend.name(), %error, "not probed: the gateway lacks descriptors or memory");
                return true;
            }
            Err(error) if is_loading(&error) => Observation::ProbeLoading,
            Err(error) => {
                link.note_error(format!("probe: {}", describe(&error)));
                Observation::ProbeFailed
            }
        };
        snapshot.observe(member, seen, &self.gateway.metrics, self.gateway.clock.now());
        true
    }

    async fn ask(&mut self, link: &Link) -> pingora::Result<()> {
        let limit = self.settings.timeout;
        let asked = async {
            let address = resolved(link).await?;
            let answer = self.check.ask(&self.gateway, link, address, limit).await;
            let Err(error) = answer else { return Ok(()) };
            if matches!(error.etype(), ErrorType::CustomCode(..)) {
                return Err(error);
            }
            // A name may have several addresses, with nobody listening on some: `localhost` often has.
            link.address.failed(Some(address));
            match resolved(link).await? {
                other if other != address => self.check.ask(&self.gateway, link, other, limit).await,
                _ => Err(error),
            }
        };
        match timeout(limit, asked).await {
            Ok(answer) => answer,
            Err(_) => Error::e_explain(ErrorType::ReadTimedout, format!("no answer within {limit:?}")),
        }
    }
}

async fn resolved(link: &Link) -> pingora::Result<SocketAddr> {
    link.address.get().await.or_err(ErrorType::ConnectNoRoute, "can't resolve the backend's name")
}

/// What is asked.
enum Check {
    Tcp(Box<TransportConnector>),
    Http(Box<HttpHealthCheck>),
}

impl Check {
    fn new(settings: &config::HealthCheck, origin: &Origin) -> Check {
        if settings.kind == ProbeKind::Tcp {
            return Check::Tcp(Box::new(TransportConnector::new(Some(connector_options()))));
        }
        let connector = Connector::new(Some(connector_options()));
        let mut check: HttpHealthCheck = HttpHealthCheck::new_custom(&origin.authority(), false, connector);
        // Config has seen that the path is one.
        if let Ok(uri) = settings.path.parse::<Uri>() {
            check.req.set_uri(uri);
        }
        Check::Http(Box::new(check))
    }

    /// A connection that opens includes its TLS handshake.
    async fn ask(
        &mut self,
        gateway: &Gateway,
        link: &Link,
        address: SocketAddr,
        timeout: Duration,
    ) -> pingora::Result<()> {
        let mut peer = gateway.certificates.peer(address, link.address.origin())?;
        peer.options.connection_timeout = Some(timeout);
        peer.options.read_timeout = Some(timeout);
        match self {
            Check::Tcp(connector) => connector.get_stream(&peer).await.map(drop),
            Check::Http(check) => {
                check.peer_template = peer;
                match &*link.authorization.load() {
                    Some(own) => check.req.insert_header("Authorization", own.as_ref())?,
                    None => drop(check.req.remove_header("Authorization")),
                }
                check.check(&Target::new(&address.to_string())?).await
            }
        }
    }
}

/// llama-server answers 503 while it loads a model, and so do others while they are not ready.
fn is_loading(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::CustomCode(_, 503))
}

fn describe(error: &Error) -> String {
    match error.etype() {
        ErrorType::CustomCode(_, status) => format!("status {status}"),
        _ => in_words(error),
    }
}
