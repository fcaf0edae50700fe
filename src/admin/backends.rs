//! `/backends`: every backend, as JSON.

use std::sync::Arc;

use serde::Serialize;

use crate::core::latency::Quantiles;
use crate::core::{Millis, Signals, State};
use crate::gateway::Gateway;
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
    /// Responses that started and broke off, since the start.
    streams_broken: u64,
    /// It gets single requests to show whether it answers well: unhealthy for its answers, or serving only those whose
    /// cache it has, since it leaves others without output.
    on_trial: bool,
    /// What an operator should know of its addresses.
    warning: Option<String>,
    last_error: Option<String>,
    /// RFC 3339, UTC.
    last_error_at: Option<String>,
    /// How long requests waited for their first token in the last five minutes; null if there were none.
    first_token: Option<FirstToken>,
    prompt_tokens: u64,
    cached_prompt_tokens: u64,
    /// What it says of its own load; null while nothing is known.
    signals: Option<SignalsStatus>,
    /// No longer in the config: listed until its last request ends.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
}

/// Milliseconds to the first token.
#[derive(Debug, Serialize)]
struct FirstToken {
    p50_ms: u64,
    p99_ms: u64,
}

/// What a backend said last; null is not known.
#[derive(Debug, Serialize)]
struct SignalsStatus {
    slots: Option<u32>,
    running: Option<u32>,
    waiting: Option<u32>,
    kv_usage: Option<f32>,
}

pub(super) fn list(gateway: &Gateway, snapshot: &Snapshot, now: Millis) -> Backends {
    let sessions = snapshot.pool.sessions_at(now);
    let here = snapshot.links.iter().map(|link| describe(snapshot, link, &sessions, now, false));
    let removed = removed(gateway, snapshot).into_iter().map(|(past, link)| {
        let sessions = past.pool.sessions_at(now);
        describe(&past, &link, &sessions, now, true)
    });
    Backends { backends: here.chain(removed).collect() }
}

/// Backends that the config in force does not name and that still have requests, each with a snapshot that has it.
pub(super) fn removed(gateway: &Gateway, snapshot: &Snapshot) -> Vec<(Arc<Snapshot>, Arc<Link>)> {
    let mut removed: Vec<(Arc<Snapshot>, Arc<Link>)> = Vec::new();
    for past in gateway.past() {
        let here = |name: &str| {
            past.config.pool().name == snapshot.config.pool().name && snapshot.pool.position(name).is_some()
        };
        for link in past.links.iter().filter(|link| link.backend.busy() && !here(link.backend.name())) {
            if !removed.iter().any(|(_, other)| Arc::ptr_eq(&other.backend, &link.backend)) {
                removed.push((Arc::clone(&past), Arc::clone(link)));
            }
        }
    }
    removed
}

/// One backend of a snapshot; `sessions` is how many each member has.
pub(super) fn describe(
    snapshot: &Snapshot,
    link: &Link,
    sessions: &[usize],
    now: Millis,
    removed: bool,
) -> BackendStatus {
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
        streams_broken: link.metrics.broken.sum(),
        on_trial: backend.on_trial(),
        warning: link.address.warning(),
        last_error_at: error.as_ref().map(|error| humantime::format_rfc3339_seconds(error.at).to_string()),
        last_error: error.map(|error| error.what),
        first_token: link.first_tokens(now).map(|Quantiles { p50, p99 }| FirstToken { p50_ms: p50, p99_ms: p99 }),
        prompt_tokens: usage.prompt,
        cached_prompt_tokens: usage.cached,
        signals: backend.signals().map(SignalsStatus::from),
        removed,
    }
}

impl From<Signals> for SignalsStatus {
    fn from(signals: Signals) -> SignalsStatus {
        let Signals { slots, running, waiting, kv_usage } = signals;
        SignalsStatus { slots, running, waiting, kv_usage }
    }
}
