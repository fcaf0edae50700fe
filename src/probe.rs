//! Probes: asks every backend, again and again, how it is.
//!
//! Each backend has a task of its own, so one that hangs delays nobody, and a jitter, so that a fleet of gateways does
//! not ask all at once. The checks are Pingora's; what they say goes into the same state machine as what traffic shows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Uri;
use pingora::prelude::{sleep, timeout};
use pingora::{Error, ErrorType, OrErr};
use pingora_load_balancing::Backend as Target;
use pingora_load_balancing::health_check::{HealthCheck, HttpHealthCheck, TcpHealthCheck};
use tokio::task::JoinSet;

use crate::clock::Jitter;
use crate::config::{self, Origin, ProbeKind};
use crate::core::{Millis, Observation};
use crate::gateway::Gateway;
use crate::snapshot::Snapshot;

/// Begins to probe the backends of a snapshot. It ends when the returned set drops.
#[must_use]
pub fn spawn(gateway: &Arc<Gateway>, snapshot: &Arc<Snapshot>) -> JoinSet<()> {
    let unprobed = Arc::new(AtomicUsize::new(snapshot.links.len()));
    let mut tasks = JoinSet::new();
    for member in 0..snapshot.links.len() {
        let probe = Probe::new(gateway, snapshot, member);
        let unprobed = Arc::clone(&unprobed);
        tasks.spawn(async move { probe.run(&unprobed).await });
    }
    tasks
}

/// The probing of one backend.
struct Probe {
    gateway: Arc<Gateway>,
    snapshot: Arc<Snapshot>,
    member: usize,
    check: Box<dyn HealthCheck + Send + Sync>,
    jitter: Jitter,
}

impl Probe {
    fn new(gateway: &Arc<Gateway>, snapshot: &Arc<Snapshot>, member: usize) -> Probe {
        let settings = &snapshot.config.pool().health_check;
        Probe {
            check: check(settings, snapshot.links[member].address.origin()),
            gateway: Arc::clone(gateway),
            snapshot: Arc::clone(snapshot),
            member,
            jitter: Jitter::default(),
        }
    }

    async fn run(&self, unprobed: &AtomicUsize) {
        let interval = self.snapshot.config.pool().health_check.interval;
        let mut last = self.gateway.clock.now();
        for round in 0u64.. {
            let begun = self.gateway.clock.now();
            self.once(last).await;
            last = begun;
            if round == 0 && unprobed.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.gateway.set_probed();
            }
            sleep(interval.mul_f64(self.jitter.pause(round))).await;
        }
    }

    async fn once(&self, last: Millis) {
        let link = &self.snapshot.links[self.member];
        let seen = match self.ask().await {
            Ok(()) => Observation::ProbeOk,
            // Busy is not dead: tokens that came since the last probe outweigh a probe that did not.
            Err(error) if link.attempts.progress_since(last) => {
                tracing::debug!(backend = link.backend.name(), %error, "probe failed, but a stream is flowing");
                return;
            }
            Err(error) if is_loading(&error) => Observation::ProbeLoading,
            Err(error) => {
                link.note_error(format!("probe: {}", describe(&error)));
                Observation::ProbeFailed
            }
        };
        self.snapshot.observe(self.member, seen, &self.gateway.metrics, self.gateway.clock.now());
    }

    async fn ask(&self) -> pingora::Result<()> {
        let limit = self.snapshot.config.pool().health_check.timeout;
        let asked = async {
            let address = self.address().await?;
            let answer = self.check.check(&Target::new(&address.to_string())?).await;
            let Err(error) = answer else { return Ok(()) };
            if matches!(error.etype(), ErrorType::CustomCode(..)) {
                return Err(error);
            }
            // A name may have several addresses, with nobody listening on some: `localhost` often has.
            self.snapshot.links[self.member].address.failed(Some(address));
            match self.address().await? {
                other if other != address => self.check.check(&Target::new(&other.to_string())?).await,
                _ => Err(error),
            }
        };
        match timeout(limit, asked).await {
            Ok(answer) => answer,
            Err(_) => Error::e_explain(ErrorType::ReadTimedout, format!("no answer within {limit:?}")),
        }
    }

    async fn address(&self) -> pingora::Result<SocketAddr> {
        let resolved = self.snapshot.links[self.member].address.get().await;
        resolved.or_err(ErrorType::ConnectNoRoute, "can't resolve the backend's name")
    }
}

fn check(settings: &config::HealthCheck, origin: &Origin) -> Box<dyn HealthCheck + Send + Sync> {
    match settings.kind {
        ProbeKind::Tcp => {
            let mut check = TcpHealthCheck::new();
            check.peer_template.options.connection_timeout = Some(settings.timeout);
            check
        }
        ProbeKind::Http => {
            let mut check: HttpHealthCheck = HttpHealthCheck::new(&origin.authority(), false);
            check.peer_template.options.connection_timeout = Some(settings.timeout);
            check.peer_template.options.read_timeout = Some(settings.timeout);
            // Config has seen that the path is one.
            if let Ok(uri) = settings.path.parse::<Uri>() {
                check.req.set_uri(uri);
            }
            Box::new(check)
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
        kind => kind.as_str().to_owned(),
    }
}
