//! `/backends`: every backend, as JSON.

use serde::Serialize;

use crate::core::{Signals, State};
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

pub(super) fn list(snapshot: &Snapshot) -> Backends {
    Backends { backends: snapshot.links.iter().map(|link| describe(snapshot, link)).collect() }
}

pub(super) fn describe(snapshot: &Snapshot, link: &Link) -> BackendStatus {
    let backend = &link.backend;
    let member = snapshot.pool.position(backend.name()).map(|member| &snapshot.pool.members()[member]);
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
