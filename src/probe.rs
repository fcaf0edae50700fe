//! Probes: asks every backend, again and again, how it is.
//!
//! Each backend has its own task, and each probe as well, so that one that hangs delays no other. The pauses vary, so that
//! the gateways of a fleet do not all ask at the same time. The checks are Pingora's; what they show goes into the same
//! state machine as what traffic shows.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::Uri;
use pingora::connectors::TransportConnector;
use pingora::connectors::http::Connector;
use pingora::prelude::{sleep, timeout};
use pingora::upstreams::peer::Peer as _;
use pingora::{Error, ErrorType, OrErr};
use pingora_load_balancing::Backend as Target;
use pingora_load_balancing::health_check::{HealthCheck as _, HttpHealthCheck};
use tokio::task::JoinSet;

use crate::certificates::connector_options;
use crate::clock::Jitter;
use crate::config::{self, Origin, ProbeKind};
use crate::core::{Millis, Observation};
use crate::gateway::Gateway;
use crate::link::{BackendHeaders, Limit, Link, UNRESOLVED, describe, is_ours};
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
            self.tasks.spawn(Prober::new(&self.gateway, &snapshot, link).run(first.clone()));
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
struct Prober {
    gateway: Arc<Gateway>,
    link: Weak<Link>,
    settings: config::HealthCheck,
    /// Checks that are not in use. A hanging probe has one of its own, so that it does not delay the next.
    checks: Vec<Check>,
    running: JoinSet<Probed>,
    jitter: Jitter,
    newest: Newest,
    /// When the newest of the probes started that were answered well.
    well_since: Millis,
}

/// The probe that started last.
#[derive(Clone, Copy)]
struct Newest {
    number: u64,
    at: Instant,
    /// Whether it was answered well.
    is_ok: bool,
}

/// A probe that has ended.
struct Probed {
    number: u64,
    started: Millis,
    check: Check,
    settings: config::HealthCheck,
    answer: pingora::Result<()>,
}

impl Prober {
    fn new(gateway: &Arc<Gateway>, snapshot: &Snapshot, link: &Arc<Link>) -> Prober {
        Prober {
            settings: snapshot.config.pool().health_check.clone(),
            gateway: Arc::clone(gateway),
            link: Arc::downgrade(link),
            checks: Vec::new(),
            running: JoinSet::new(),
            jitter: Jitter::default(),
            newest: Newest { number: 0, at: Instant::now(), is_ok: false },
            well_since: 0,
        }
    }

    /// Probes until the config in use does not name the backend any more.
    async fn run(mut self, mut first: Option<Arc<FirstRound>>) {
        let mut reloads = self.gateway.reloads();
        loop {
            let Some((snapshot, member)) = self.place() else { return };
            self.settings = snapshot.config.pool().health_check.clone();
            let due = self.due();
            if due.is_zero() && self.running.len() < MAX_RUNNING {
                self.start(&snapshot.links[member]);
                continue;
            }
            drop(snapshot);
            tokio::select! {
                () = sleep(due), if self.running.len() < MAX_RUNNING => {}
                Some(Ok(probed)) = self.running.join_next() => {
                    if !self.note(probed) {
                        return;
                    }
                    first.take();
                }
                // There may be other settings now, or no such backend.
                _ = reloads.changed() => {}
            }
        }
    }

    /// How long it is until the next probe. One that is not answered for `fast_interval` does not delay it.
    fn due(&self) -> Duration {
        let Newest { number, at, is_ok } = self.newest;
        let pause = match (number, is_ok) {
            (0, _) => Duration::ZERO,
            (_, true) => self.settings.interval.mul_f64(self.jitter.pause(number)),
            (_, false) => self.settings.fast_interval,
        };
        pause.saturating_sub(at.elapsed())
    }

    fn start(&mut self, link: &Arc<Link>) {
        self.newest = Newest { number: self.newest.number + 1, at: Instant::now(), is_ok: false };
        let (number, started) = (self.newest.number, self.gateway.clock.now());
        let (gateway, link, settings) = (Arc::clone(&self.gateway), Arc::clone(link), self.settings.clone());
        let headers = link.headers.load_full();
        let kept = self.checks.pop().filter(|check| check.has(&headers));
        let mut check = kept.unwrap_or_else(|| Check::new(&settings, link.address.origin(), headers));
        self.running.spawn(async move {
            let answer = ask(&mut check, &gateway, &link, settings.timeout).await;
            Probed { number, started, check, settings, answer }
        });
    }

    /// Takes in what a probe has shown. False if the backend is gone.
    fn note(&mut self, probed: Probed) -> bool {
        let Probed { number, started, check, settings, answer } = probed;
        if settings == self.settings {
            self.checks.push(check);
        } else {
            self.checks.clear();
        }
        let Some((snapshot, member)) = self.place() else { return false };
        let is_ok = answer.as_ref().err().is_none_or(|error| is_throttled(error));
        if number == self.newest.number {
            self.newest.is_ok = is_ok;
        }
        if is_ok {
            self.well_since = self.well_since.max(started);
        }
        let link = &snapshot.links[member];
        link.set_reachable(answer.as_ref().map_or_else(|error| !is_unreachable(error), |()| true));
        if let Some(seen) = self.judge(link, started, answer) {
            snapshot.observe(member, seen, &self.gateway.metrics, self.gateway.clock.now());
        }
        true
    }

    /// What an answer says of the backend, if it says anything.
    fn judge(&self, link: &Link, started: Millis, answer: pingora::Result<()>) -> Option<Observation> {
        let Err(error) = answer else { return Some(Observation::ProbeOk) };
        // One that started later was answered.
        if started < self.well_since {
            return None;
        }
        // Busy is not dead: tokens outweigh a probe that was not answered meanwhile.
        let fast = Millis::try_from(self.settings.fast_interval.as_millis()).unwrap_or(Millis::MAX);
        if link.attempts.progress_since(started.saturating_sub(fast)) {
            let error = self.in_words(link, &error);
            tracing::debug!(backend = link.backend.name(), error, "probe failed, but a stream is flowing");
            return None;
        }
        // That the gateway can't ask says nothing of the answer.
        if is_ours(&error) {
            let error = self.in_words(link, &error);
            tracing::warn!(backend = link.backend.name(), error, "not probed: the gateway lacks descriptors or memory");
            return None;
        }
        if is_loading(&error) {
            return Some(Observation::ProbeLoading);
        }
        let what = format!("probe: {}", self.in_words(link, &error));
        if is_throttled(&error) {
            // It runs, and says so.
            if link.last_error().is_none_or(|last| last.what != what) {
                tracing::warn!(backend = link.backend.name(), error = what, "probe throttled");
            }
            link.note_error(what);
            return Some(Observation::ProbeOk);
        }
        link.note_error(what);
        Some(Observation::ProbeFailed)
    }

    fn in_words(&self, link: &Link, error: &Error) -> String {
        let words = describe(error, Limit { time: self.settings.timeout, setting: "health_check.timeout" });
        let has_key = link.authorization.load().is_some();
        let hint = match error.etype() {
            ErrorType::CustomCode(_, 401 | 403) if has_key => "it does not accept the key of api_key_file",
            ErrorType::CustomCode(_, 401 | 403) => "it requires an API key: set api_key_file",
            ErrorType::CustomCode(_, 429) => "it throttles probes: raise health_check.interval",
            ErrorType::CustomCode(_, 404 | 405) => "it has no health check there: set health_check.path",
            _ => return words,
        };
        format!("{words}: {hint}")
    }

    /// The snapshot in use and the backend's place in it, if it has one.
    fn place(&self) -> Option<(Arc<Snapshot>, usize)> {
        let snapshot = self.gateway.snapshot.load_full();
        let member = snapshot.links.iter().position(|link| std::ptr::eq(Arc::as_ptr(link), self.link.as_ptr()))?;
        Some((snapshot, member))
    }
}

async fn ask(check: &mut Check, gateway: &Gateway, link: &Link, limit: Duration) -> pingora::Result<()> {
    let asked = async {
        let address = resolved(link).await?;
        let answer = check.ask(gateway, link, address, limit).await;
        let Err(error) = answer else { return Ok(()) };
        if matches!(error.etype(), ErrorType::CustomCode(..)) {
            return Err(error);
        }
        // A name may have several addresses, of which some refuse connections: `localhost` often has.
        link.address.failed(Some(address));
        match resolved(link).await? {
            other if other != address => check.ask(gateway, link, other, limit).await,
            _ => Err(error),
        }
    };
    match timeout(limit, asked).await {
        Ok(answer) => answer,
        Err(_) => Error::e_explain(ErrorType::ReadTimedout, "no answer in time"),
    }
}

async fn resolved(link: &Link) -> pingora::Result<SocketAddr> {
    link.address.get().await.or_err(UNRESOLVED, "can't resolve the backend's name")
}

/// What is asked.
enum Check {
    Tcp(Box<TransportConnector>),
    Http(Box<HttpHealthCheck>, Arc<BackendHeaders>),
}

impl Check {
    fn new(settings: &config::HealthCheck, origin: &Origin, headers: Arc<BackendHeaders>) -> Check {
        if settings.kind == ProbeKind::Tcp {
            return Check::Tcp(Box::new(TransportConnector::new(Some(connector_options()))));
        }
        let connector = Connector::new(Some(connector_options()));
        let mut check: HttpHealthCheck = HttpHealthCheck::new_custom(&origin.authority(), false, connector);
        // Config has seen that the path is one.
        if let Ok(uri) = settings.path.parse::<Uri>() {
            check.req.set_uri(uri);
        }
        // An error is no name of a header, which the config has seen.
        for field in &headers.fields {
            let _ = check.req.insert_header(field.name.clone(), field.value.clone());
        }
        Check::Http(Box::new(check), headers)
    }

    /// Whether it sends these headers.
    fn has(&self, headers: &Arc<BackendHeaders>) -> bool {
        match self {
            Check::Tcp(_) => true,
            Check::Http(_, own) => Arc::ptr_eq(own, headers),
        }
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
            Check::Http(check, _) => {
                check.peer_template = peer;
                match &*link.authorization.load() {
                    Some(own) => check.req.insert_header("Authorization", own.as_ref())?,
                    None => drop(check.req.remove_header("Authorization")),
                }
                let mut target = Target::new(&address.to_string())?;
                target.addr = check.peer_template.address().clone();
                check.check(&target).await
            }
        }
    }
}

/// Whether nothing listens there, as when a backend sleeps that is started on demand.
fn is_unreachable(error: &Error) -> bool {
    let kinds = [
        ErrorType::ConnectRefused,
        ErrorType::ConnectNoRoute,
        ErrorType::ConnectTimedout,
        ErrorType::ConnectError,
        UNRESOLVED,
    ];
    kinds.contains(error.etype())
}

/// llama-server answers 503 while it loads a model, and so do others while they are not ready.
fn is_loading(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::CustomCode(_, 503))
}

/// A server that limits how often it is asked is no dead one.
fn is_throttled(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::CustomCode(_, 429))
}

/// Probes of one backend that can wait for an answer at once.
const MAX_RUNNING: usize = 8;
