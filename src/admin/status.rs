//! `/status`: what the status page shows, as JSON.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::backends::{self, Backends};
use crate::core::Affinity;
use crate::core::hints::Finding;
use crate::core::usage::Tokens;
use crate::gateway::Gateway;
use crate::snapshot::Snapshot;
use crate::watch;

/// What `/status` says.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    /// The gateway's own time, RFC 3339 in UTC: what ages are counted from.
    now: String,
    uptime_seconds: u64,
    ready: bool,
    stopping: bool,
    connections: usize,
    requests_in_flight: usize,
    /// Of request bodies kept for a retry.
    held_body_bytes: usize,
    displaced_sessions: usize,
    /// Requests with a session, without one, and with an invalid one.
    sessions: Sessions,
    /// The headers that may carry a session, as configured.
    session_headers: Vec<String>,
    /// Prompt tokens by what became of the affinity.
    reuse: Vec<Reuse>,
    affinity_saved: AffinitySaved,
    /// What says that affinity does less than it could; empty when all is well.
    hints: Vec<Held>,
    #[serde(flatten)]
    backends: Backends,
}

#[derive(Debug, Serialize)]
struct Sessions {
    with: u64,
    without: u64,
    invalid: u64,
}

/// Prompt tokens of requests with a session. What was cached is what affinity saved.
#[derive(Debug, Serialize)]
struct AffinitySaved {
    last_5m: Prompts,
    since_start: Prompts,
}

#[derive(Debug, Serialize)]
struct Prompts {
    prompt_tokens: u64,
    cached_prompt_tokens: u64,
}

/// A hint that holds.
#[derive(Debug, Serialize)]
struct Held {
    hint: &'static str,
    /// What was seen, in words and figures.
    seen: String,
    /// What to do.
    advice: String,
    for_seconds: u64,
}

#[derive(Debug, Serialize)]
struct Reuse {
    affinity: &'static str,
    requests: u64,
    prompt_tokens: u64,
    cached_prompt_tokens: u64,
}

pub(super) fn of(gateway: &Gateway, snapshot: &Arc<Snapshot>) -> Status {
    let now = gateway.clock.now();
    let saved = snapshot.watch.saved(now);
    Status {
        version: env!("CARGO_PKG_VERSION"),
        now: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        uptime_seconds: Duration::from_millis(now).as_secs(),
        ready: gateway.ready(),
        stopping: gateway.stopping(),
        connections: gateway.connections.get(),
        requests_in_flight: gateway.requests.get(),
        held_body_bytes: gateway.bodies.get(),
        displaced_sessions: snapshot.pool.displaced(),
        sessions: Sessions {
            with: snapshot.metrics.sessions(),
            without: snapshot.metrics.session_none.get(),
            invalid: snapshot.metrics.session_invalid.get(),
        },
        session_headers: snapshot.config.affinity.headers.iter().map(|header| header.written.clone()).collect(),
        reuse: Affinity::ALL.iter().map(|affinity| reuse(snapshot, *affinity)).collect(),
        affinity_saved: AffinitySaved { last_5m: prompts(saved.lately), since_start: prompts(saved.ever) },
        hints: snapshot.watch.findings(now).into_iter().map(|found| held(snapshot, found)).collect(),
        backends: backends::list(gateway, snapshot, now),
    }
}

fn prompts(tokens: Tokens) -> Prompts {
    Prompts { prompt_tokens: tokens.prompt, cached_prompt_tokens: tokens.cached }
}

fn held(snapshot: &Snapshot, (finding, lasts): (Finding, Duration)) -> Held {
    let advice = finding.advice(watch::servers(snapshot.config.pool(), &finding));
    Held { hint: finding.hint.as_str(), seen: finding.to_string(), advice, for_seconds: lasts.as_secs() }
}

fn reuse(snapshot: &Snapshot, affinity: Affinity) -> Reuse {
    let none = Reuse { affinity: affinity.as_str(), requests: 0, prompt_tokens: 0, cached_prompt_tokens: 0 };
    snapshot.links.iter().fold(none, |sum, link| {
        let usage = link.metrics.prompt_tokens_of(affinity);
        Reuse {
            requests: sum.requests + link.metrics.requests_of(affinity),
            prompt_tokens: sum.prompt_tokens + usage.prompt,
            cached_prompt_tokens: sum.cached_prompt_tokens + usage.cached,
            ..sum
        }
    })
}
