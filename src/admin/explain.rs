//! `/explain`: where a session would go, and why.

use serde::Serialize;

use crate::core::{Ask, Millis, SessionKey, Tried};
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
    /// What would become of its affinity.
    pub affinity: Option<&'static str>,
}

/// Explains a session. `None` if the id is no valid one.
#[must_use]
pub fn explain(snapshot: &Snapshot, id: &str, now: Millis) -> Option<Explained> {
    let max_length = snapshot.config.affinity.max_length;
    let key = SessionKey::parse(id.as_bytes(), max_length, snapshot.pool.settings().seed).ok()??;
    let name = |member: usize| snapshot.pool.members()[member].backend.name().to_owned();
    let order: Vec<String> = snapshot.pool.order(key).into_iter().map(name).collect();
    let selection = snapshot.pool.select(&Ask::new(Some(key), 0), &Tried::default(), now).selection();
    Some(Explained {
        session: id.to_owned(),
        session_hash: key.to_string(),
        home: order.first().cloned()?,
        order,
        would_go_to: selection.map(|selection| name(selection.member)),
        affinity: selection.map(|selection| selection.affinity.as_str()),
    })
}
