//! `/backends`: every backend, as JSON.

use serde::Serialize;

use crate::core::{Millis, Signals, State};
use crate::link::Link;
use crate::snapshot::Snapshot;

/// What `/backends` says.
#[derive(Debug, Serialize)]
pub(super) struct Backends {
    backends: Vec<BackendStatus>,
}

/// What it says of one backend.
#[derive(Debug, Serialize)]
pub(super) struct BackendStatus {
    name: String,
    url: String,
    pool: String,
    state: &'static str,
    draining: bool,
    weight: u32,
    priority: u32,
    in_flight: usize,
    /// Requests that wait for room there.
    queued: usize,
    /// Sessions that were there last and have not been idle for long: when it drains, those that go on.
    sessions: usize,
    requests: u64,
    last_error: Option<String>,
    /// RFC 3339, UTC.
    last_error_at: Option<String>,
    prompt_tokens: u64,
    cached_prompt_tokens: u64,
    /// What it says of its own load; null while nothing is known.
    signals: Option<SignalsStatus>,
}

/// What a backend said last; null is not known.
#[derive(Debug, Serialize)]
struct SignalsStatus {
    slots: Option<u32>,
    running: Option<u32>,
    waiting: Option<u32>,
    kv_usage: Option<f32>,
}

pub(super) fn list(snapshot: &Snapshot, now: Millis) -> Backends {
    let sessions = snapshot.pool.sessions_at(now);
    Backends { backends: snapshot.links.iter().map(|link| describe(snapshot, link, &sessions)).collect() }
}

/// One backend; `sessions` is how many each member has.
pub(super) fn describe(snapshot: &Snapshot, link: &Link, sessions: &[usize]) -> BackendStatus {
    let backend = &link.backend;
    let index = snapshot.pool.position(backend.name());
    let member = index.map(|index| &snapshot.pool.members()[index]);
    let usage = link.metrics.prompt_tokens();
    let error = link.last_error();
    BackendStatus {
        name: backend.name().to_owned(),
        url: link.address.origin().to_string(),
        pool: snapshot.config.pool().name.clone(),
        state: State::as_str(backend.state()),
        draining: backend.draining(),
        weight: member.map_or(0, |member| member.weight),
        priority: member.map_or(0, |member| member.priority),
        in_flight: backend.in_flight(),
        queued: backend.queued(),
        sessions: index.map_or(0, |index| sessions[index]),
        requests: backend.requests(),
        last_error_at: error.as_ref().map(|error| humantime::format_rfc3339_seconds(error.at).to_string()),
        last_error: error.map(|error| error.what),
        prompt_tokens: usage.prompt,
        cached_prompt_tokens: usage.cached,
        signals: backend.signals().map(SignalsStatus::from),
    }
}

impl From<Signals> for SignalsStatus {
    fn from(signals: Signals) -> SignalsStatus {
        let Signals { slots, running, waiting, kv_usage } = signals;
        SignalsStatus { slots, running, waiting, kv_usage }
    }
}
