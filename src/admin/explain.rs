//! `/explain`: where a session would go, and why.

use serde::Serialize;

use crate::core::pool::{Explanation, MemberView};
use crate::core::{Affinity, Millis, Reason, SessionKey, Verdict};
use crate::snapshot::Snapshot;

/// Where a session would go.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// The id that was asked for.
    pub session: String,
    /// Its hash, as the logs show it.
    pub session_hash: String,
    /// The first of the order.
    pub home: String,
    /// The preference order, home first.
    pub order: Vec<String>,
    /// Where a request would go now.
    pub would_go_to: Option<String>,
    /// Where it would wait for room, if it would: its cache is there, or all are full.
    pub would_wait_at: Option<String>,
    /// What would become of its affinity.
    pub affinity: Option<&'static str>,
    /// Why it would not be at home, or not where it was, or would wait.
    pub reason: Option<&'static str>,
    /// What the gateway would answer by itself, if it would: the code of the error.
    pub refused: Option<&'static str>,
    /// How often it was answered, if it is known.
    pub turns: Option<u32>,
    /// The backends as this session sees them, in its order.
    pub backends: Vec<BackendView>,
}

/// A backend as a session sees it.
#[derive(Debug, Serialize)]
pub struct BackendView {
    /// Its name.
    pub name: String,
    /// Why it is not the one, if it is for anything but the order or the score.
    pub obstacle: Option<&'static str>,
    /// Requests that are there.
    pub in_flight: usize,
    /// Requests that wait for room there.
    pub queued: usize,
    /// `overload.max_in_flight`, or the backend's slots.
    pub max_in_flight: Option<u64>,
    /// How many requests may be there now before sessions spill.
    pub balance_bound: Option<u64>,
    /// Its share of what is new, if it warms up: 0 to 1.
    pub slow_start_share: f64,
    /// Whether the session's last turn was there.
    pub last: bool,
    /// What it has seen of the session.
    pub seen: Option<Seen>,
    /// The terms of its score; with `least_ttft`. The least total wins.
    pub score: Option<Score>,
}

/// What a backend has seen of a session.
#[derive(Debug, Serialize)]
pub struct Seen {
    /// The length of the last prompt.
    pub bytes: u64,
    /// How long ago that was.
    pub age_seconds: u64,
    /// Whether it may still be cached.
    pub warm: bool,
}

/// The terms of a score, in bytes of prompt.
#[derive(Debug, Serialize)]
pub struct Score {
    /// What is to be read before this request.
    pub wait: f64,
    /// What is to be read of this request, weighted.
    pub recompute: f64,
    /// What answers under way cost.
    pub decoding: f64,
    /// How fast the backend is, by its weight and what was learned.
    pub speed: f64,
    /// The sum by the speed.
    pub total: f64,
}

/// Explains a session whose request has so many bytes. `None` if the id is no valid one.
#[must_use]
pub fn explain(snapshot: &Snapshot, id: &str, bytes: u64, now: Millis) -> Option<Explained> {
    let max_length = snapshot.config.affinity.max_length;
    let key = SessionKey::parse(id.as_bytes(), max_length, snapshot.pool.settings().seed).ok()??;
    let name = |member: usize| snapshot.pool.members()[member].backend.name().to_owned();
    let Explanation { verdict, turns, members } = snapshot.pool.explain(key, bytes, now);
    let selection = verdict.selection();
    let order: Vec<String> = members.iter().map(|view| name(view.member)).collect();
    Some(Explained {
        session: id.to_owned(),
        session_hash: key.to_string(),
        home: order.first().cloned()?,
        order,
        would_go_to: selection.map(|selection| name(selection.member)),
        would_wait_at: match verdict {
            Verdict::Wait { member, .. } => Some(name(member)),
            Verdict::Go(_) | Verdict::Full | Verdict::Nobody => None,
        },
        affinity: selection.map(|selection| Affinity::as_str(selection.affinity)),
        reason: match verdict {
            Verdict::Wait { reason, .. } => Some(reason.as_str()),
            _ => selection.and_then(|selection| selection.reason).map(Reason::as_str),
        },
        refused: match verdict {
            Verdict::Full => Some("overloaded"),
            Verdict::Nobody => Some("no_backend_available"),
            Verdict::Go(_) | Verdict::Wait { .. } => None,
        },
        turns,
        backends: members.iter().map(|view| describe(name(view.member), view)).collect(),
    })
}

fn describe(name: String, view: &MemberView) -> BackendView {
    BackendView {
        name,
        obstacle: view.obstacle.map(Reason::as_str),
        in_flight: view.in_flight,
        queued: view.queued,
        max_in_flight: view.limit,
        balance_bound: view.bound,
        slow_start_share: view.warmth,
        last: view.last,
        seen: view.seen.map(|seen| Seen { bytes: seen.bytes, age_seconds: seen.age / 1000, warm: seen.warm }),
        score: view.terms.map(|terms| Score {
            wait: terms.wait,
            recompute: terms.recompute,
            decoding: terms.decoding,
            speed: terms.speed,
            total: terms.total,
        }),
    }
}
