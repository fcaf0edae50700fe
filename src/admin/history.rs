//! `/history`: the last quarter of an hour, as JSON: what the charts of the status page show.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::core::history::{Point, STEP};
use crate::gateway::Gateway;
use crate::link::Link;
use crate::snapshot::Snapshot;

/// What `/history` says. All lists have the same length, the oldest point first; the last point is not over yet.
#[derive(Debug, Serialize)]
pub(super) struct HistoryReport {
    /// RFC 3339, UTC.
    now: String,
    step_seconds: u64,
    /// Requests that ended.
    requests: Vec<u32>,
    /// Those of them that failed.
    errors: Vec<u32>,
    /// Of requests with a session.
    prompt_tokens: Vec<u64>,
    cached_prompt_tokens: Vec<u64>,
    /// Milliseconds to the first token; null where none came.
    first_token_p50_ms: Vec<Option<u64>>,
    first_token_p99_ms: Vec<Option<u64>>,
    backends: Vec<BackendHistory>,
}

#[derive(Debug, Serialize)]
struct BackendHistory {
    name: String,
    /// The most requests at once.
    in_flight: Vec<u32>,
}

pub(super) fn of(gateway: &Gateway, snapshot: &Snapshot) -> HistoryReport {
    let now = gateway.clock.now();
    let points = snapshot.watch.history(now);
    let backend = |link: &Arc<Link>| BackendHistory { name: link.backend.name().to_owned(), in_flight: link.load(now) };
    HistoryReport {
        now: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        step_seconds: STEP / 1000,
        requests: each(&points, |point| point.requests),
        errors: each(&points, |point| point.errors),
        prompt_tokens: each(&points, |point| point.tokens.prompt),
        cached_prompt_tokens: each(&points, |point| point.tokens.cached),
        first_token_p50_ms: each(&points, |point| point.first_token.map(|times| times.p50)),
        first_token_p99_ms: each(&points, |point| point.first_token.map(|times| times.p99)),
        backends: snapshot.links.iter().map(backend).collect(),
    }
}

fn each<T>(points: &[Point], of: impl Fn(&Point) -> T) -> Vec<T> {
    points.iter().map(of).collect()
}
