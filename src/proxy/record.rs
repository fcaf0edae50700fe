//! What is counted and logged of one request, whatever way it ends.
//!
//! The task of a request can be dropped at any time, so the counting is done when this drops.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use pingora::http::RequestHeader;

use super::http2::Streams;
use super::refusal::Refusal;
use crate::access_log::Line;
use crate::api::Kind;
use crate::core::session::Invalid;
use crate::core::sessions::Turn;
use crate::core::usage::Usage;
use crate::core::{Affinity, Reason, Selection, SessionKey};
use crate::gateway::Gateway;
use crate::link::Cut;
use crate::metrics::{BrokenCause, Code, Phase};
use crate::snapshot::Snapshot;
use crate::watch::Finished;

/// The facts of one request.
pub(super) struct Record {
    gateway: Arc<Gateway>,
    snapshot: Arc<Snapshot>,
    begun: Instant,
    key: Option<SessionKey>,
    has_invalid_session: bool,
    turn: Option<Turn>,
    kind: Kind,
    selection: Option<Selection>,
    attempts: u32,
    /// The status that the client got; 0 if it got none yet.
    status: u16,
    /// Whether the gateway answered by itself.
    own_answer: bool,
    /// Whether it asks about the gateway itself, which no metric of requests counts.
    is_probe: bool,
    phase: Phase,
    /// Whether the request came to its end, as opposed to being dropped.
    ended: bool,
    client_left: bool,
    is_broken: bool,
    first_byte: Option<Duration>,
    first_token: Option<Duration>,
    bytes_in: u64,
    bytes_out: u64,
    usage: Option<Usage>,
    /// Made up, from when somebody first asked for it; for the access log the client's own, if it has one.
    request_id: Option<HeaderValue>,
    /// What went wrong last, in words.
    error: Option<String>,
    log: Option<Box<LogFacts>>,
    /// Those of its connection, over HTTP/2.
    streams: Option<Arc<Streams>>,
}

/// What only the access log needs; kept only if there is one.
#[derive(Default)]
struct LogFacts {
    method: String,
    path: String,
    client: Option<IpAddr>,
    key: Option<Arc<str>>,
    session: Option<String>,
}

impl Record {
    pub(super) fn new(gateway: Arc<Gateway>, snapshot: Arc<Snapshot>, streams: Option<Arc<Streams>>) -> Record {
        Record {
            streams,
            log: gateway.access_log.enabled().then(Box::default),
            gateway,
            snapshot,
            begun: Instant::now(),
            key: None,
            has_invalid_session: false,
            turn: None,
            kind: Kind::default(),
            selection: None,
            attempts: 0,
            status: 0,
            own_answer: false,
            is_probe: false,
            phase: Phase::Request,
            ended: false,
            client_left: false,
            is_broken: false,
            first_byte: None,
            first_token: None,
            bytes_in: 0,
            bytes_out: 0,
            usage: None,
            request_id: None,
            error: None,
        }
    }

    pub(super) fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// The head of the request is there. `needs_id`: whether an error of the gateway has its id.
    pub(super) fn request(&mut self, head: &RequestHeader, kind: Kind, needs_id: bool) {
        self.kind = kind;
        if let Some(log) = &mut self.log {
            head.method.as_str().clone_into(&mut log.method);
            head.uri.path().clone_into(&mut log.path);
        }
        if self.log.is_some() || needs_id {
            self.request_id = Some(head.headers.get("x-request-id").cloned().unwrap_or_else(new_request_id));
        }
    }

    /// The id of the request, as far as it is needed.
    pub(super) fn request_id(&self) -> &str {
        self.request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default()
    }

    /// The id of a request that has none of its client, the same one for the whole request.
    pub(super) fn made_up_id(&mut self) -> HeaderValue {
        self.request_id.get_or_insert_with(new_request_id).clone()
    }

    /// Where the client is.
    pub(super) fn client(&mut self, address: Option<IpAddr>) {
        if let Some(log) = &mut self.log {
            log.client = address;
        }
    }

    /// Whose key it showed.
    pub(super) fn holder(&mut self, name: &Arc<str>) {
        if let Some(log) = &mut self.log {
            log.key = Some(Arc::clone(name));
        }
    }

    pub(super) fn session(&mut self, key: Result<Option<SessionKey>, Invalid>) {
        self.has_invalid_session = key.is_err();
        let key = key.unwrap_or_default();
        self.key = key;
        if let Some(log) = &mut self.log {
            log.session = key.map(|key| key.to_string());
        }
    }

    /// A backend has begun to answer well, as this turn of the session.
    pub(super) fn turn(&mut self, turn: Turn) {
        self.turn = Some(turn);
    }

    /// A backend of this snapshot was selected, for another attempt.
    pub(super) fn attempt(&mut self, snapshot: &Arc<Snapshot>, selection: Selection) {
        if !Arc::ptr_eq(&self.snapshot, snapshot) {
            self.snapshot = Arc::clone(snapshot);
        }
        self.selection = Some(selection);
        self.attempts += 1;
        self.phase = Phase::Waiting;
    }

    /// Attempts so far.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The head of a response came.
    pub(super) fn first_byte(&mut self) {
        self.first_byte = Some(self.begun.elapsed());
    }

    /// The response has started. A stream does so with its first output.
    pub(super) fn start(&mut self, status: u16) {
        self.status = status;
        self.phase = Phase::Streaming;
        if let (Some(selection), Some(waited), true) = (self.selection, self.first_byte, self.kind.takes_slot()) {
            self.snapshot.links[selection.member].metrics.first_byte(selection.affinity, waited.as_secs_f64());
        }
    }

    /// Bytes of the body of a response that has started.
    pub(super) fn body(&mut self, bytes: usize, is_error: bool) {
        self.bytes_out(bytes);
        if self.first_token.is_none() {
            let waited = self.begun.elapsed();
            self.first_token = Some(waited);
            // An error that comes at once is no first token.
            if let Some(selection) = self.selection.filter(|_| self.kind.generates() && !is_error) {
                self.snapshot.watch.first_token(millis(waited), self.gateway.clock.now());
                self.snapshot.links[selection.member].note_first_token(
                    selection.affinity,
                    waited,
                    self.gateway.clock.now(),
                );
            }
        }
    }

    /// Bytes that the client gets.
    pub(super) fn bytes_out(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// The head of a stream was sent before its first output.
    pub(super) fn head_sent(&mut self, status: u16) {
        self.status = status;
    }

    /// The gateway answers by itself.
    pub(super) fn answer(&mut self, refusal: Refusal) {
        let (status, code) = (refusal.status.as_u16(), refusal.code);
        self.status = status;
        self.own_answer = true;
        if status >= 500 {
            let (backend, cause) = (self.backend(), self.why().unwrap_or(refusal.message));
            tracing::warn!(status, code, cause, backend, attempts = self.attempts, "request failed");
        }
        self.error.get_or_insert_with(|| code.to_owned());
    }

    /// The gateway answers a load balancer that asks about it.
    pub(super) fn probe(&mut self, status: u16) {
        (self.status, self.own_answer, self.is_probe) = (status, true, true);
    }

    /// The gateway answers a preflight in place of a backend.
    pub(super) fn preflight(&mut self) {
        (self.status, self.own_answer) = (204, true);
    }

    /// The client has left, or reads nothing.
    pub(super) fn client_left(&mut self, why: String) {
        self.client_left = true;
        self.error(why);
    }

    /// The response had started, and did not come to its end; `cause` unless its client ended it.
    pub(super) fn broken(&mut self, why: &str, cut: Option<Cut>, cause: Option<BrokenCause>) {
        self.is_broken = true;
        if let (Some(selection), Some(cause)) = (self.selection, cause) {
            self.snapshot.links[selection.member].metrics.broken.count(cause);
        }
        let backend = self.backend();
        tracing::warn!(backend, error = %why, "stream broken");
        // What we cut ourselves because of its client says nothing about the backend.
        let is_backends = self.phase == Phase::Streaming && matches!(cut, None | Some(Cut::Idle));
        if let Some(selection) = self.selection.filter(|_| is_backends) {
            self.snapshot.links[selection.member].note_error(format!("mid-stream: {why}"));
        }
        self.error(why.to_owned());
    }

    /// What went wrong.
    pub(super) fn error(&mut self, why: String) {
        self.error = Some(why);
    }

    /// What went wrong last.
    pub(super) fn why(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// What the backend said of the prompt.
    pub(super) fn usage(&mut self, usage: Option<Usage>) {
        self.usage = usage;
    }

    /// The request is over, of whose body this many bytes came.
    pub(super) fn end(&mut self, bytes_in: u64) {
        self.ended = true;
        self.bytes_in = bytes_in;
    }

    fn backend(&self) -> Option<&str> {
        Some(self.snapshot.links[self.selection?.member].backend.name())
    }

    /// The status that counts: 499 for a client that left, whatever it had been told before.
    fn final_status(&self) -> u16 {
        let left = !self.own_answer && (self.client_left || !self.ended);
        if left || self.status == 0 { 499 } else { self.status }
    }

    fn count(&self) {
        let (status, seconds) = (self.final_status(), self.begun.elapsed().as_secs_f64());
        match self.selection.filter(|_| !self.own_answer) {
            _ if self.is_probe => {}
            Some(selection @ Selection { member, affinity, .. }) => {
                let metrics = &self.snapshot.links[member].metrics;
                metrics.request(affinity, Code::of(status), seconds);
                if let Some(usage) = self.usage {
                    metrics.usage(affinity, usage);
                }
                if self.kind.generates() {
                    self.finished(selection, status);
                }
            }
            None => self.snapshot.metrics.unanswered(Code::of(status)),
        }
        if !self.is_probe {
            self.snapshot.watch.ended(status >= 500, self.gateway.clock.now());
        }
        if status == 499 && !self.is_probe {
            self.snapshot.metrics.abort(self.phase);
        }
        if let Some(streams) = &self.streams {
            streams.ended(status == 499, self.begun.elapsed());
        }
    }

    /// What the request says of how well affinity works.
    fn finished(&self, selection: Selection, status: u16) {
        let backend = &self.snapshot.links[selection.member].backend;
        let (key, turn, usage) = (self.key, self.turn, self.usage);
        let (chat, invalid) = (self.kind == Kind::Generation, self.has_invalid_session);
        let whole = status == 200 && !self.is_broken;
        let finished = Finished { key, invalid, turn, chat, backend, whole, usage };
        self.snapshot.finished(&finished, selection, self.gateway.clock.now());
    }

    fn log(&self, log: &LogFacts) {
        self.gateway.access_log.write(&Line {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            method: &log.method,
            path: &log.path,
            client: log.client,
            key: log.key.as_deref(),
            status: self.final_status(),
            pool: &self.snapshot.config.pool().name,
            backend: self.backend(),
            affinity: self.selection.map(|selection| Affinity::as_str(selection.affinity)),
            reason: self.selection.and_then(|selection| selection.reason).map(Reason::as_str),
            attempts: self.attempts,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            first_byte_ms: self.first_byte.map(millis),
            first_token_ms: self.first_token.map(millis),
            total_ms: millis(self.begun.elapsed()),
            prompt_tokens: self.usage.map(|usage| usage.prompt),
            cached_tokens: self.usage.and_then(|usage| usage.cached),
            session: log.session.clone(),
            request_id: self.request_id(),
            error: self.error.as_deref(),
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.count();
        let (status, attempts) = (self.final_status(), self.attempts);
        let affinity = self.selection.map(|selection| selection.affinity.as_str());
        tracing::debug!(status, backend = self.backend(), affinity, attempts, "request over");
        if let Some(log) = self.log.take() {
            self.log(&log);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Unique across processes and restarts: random bits of this process, then a count.
fn new_request_id() -> HeaderValue {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut id = [0; 32];
    write_hex(*PROCESS, &mut id[..16]);
    write_hex(COUNT.fetch_add(1, Ordering::Relaxed), &mut id[16..]);
    HeaderValue::from_bytes(&id).unwrap_or(HeaderValue::from_static("-"))
}

fn write_hex(bits: u64, digits: &mut [u8]) {
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        let value = usize::try_from(bits >> (4 * place) & 15).unwrap_or_default();
        *digit = b"0123456789abcdef"[value];
    }
}
