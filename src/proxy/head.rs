//! The request's head: what is refused, and whose session it is.

use pingora::proxy::Session;

use super::ctx::Ctx;
use super::errors::Refusal;
use super::form;
use crate::config::{Affinity, SessionHeader};
use crate::core::SessionKey;
use crate::metrics::PoolMetrics;
use crate::snapshot::Snapshot;

/// Refuses what no backend should see; finds the session of what may pass.
pub(super) fn accept(session: &mut Session, ctx: &mut Ctx) -> Result<(), Refusal> {
    ctx.record.request(session);
    let limits = &ctx.snapshot.config.limits;
    let head = session.req_header();
    if head_bytes(head) > limits.max_header_bytes {
        return Err(Refusal::HEAD_TOO_LARGE);
    }
    form::check(head)?;
    ctx.key = session_key(session, &ctx.snapshot);
    ctx.record.session(ctx.key);
    ctx.snapshot.budget.request(ctx.begun);
    Ok(())
}

fn head_bytes(head: &pingora::http::RequestHeader) -> usize {
    let line = head.method.as_str().len() + head.raw_path().len();
    head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() + line
}

/// The session in the first of the configured headers that is present and not empty. A value that is none, or several
/// that differ, make it a request without a session: a shared fallback would put strangers on one backend.
fn session_key(session: &Session, snapshot: &Snapshot) -> Option<SessionKey> {
    let (affinity, metrics) = (&snapshot.config.affinity, &snapshot.metrics);
    for (index, header) in affinity.headers.iter().enumerate() {
        match value_of(session, header, affinity, snapshot) {
            Ok(Some(key)) => {
                metrics.session_header(index);
                return Some(key);
            }
            Ok(None) => {}
            Err(()) => return invalid(metrics),
        }
    }
    metrics.session_none.inc();
    None
}

fn invalid(metrics: &PoolMetrics) -> Option<SessionKey> {
    metrics.session_invalid.inc();
    None
}

fn value_of(
    session: &Session,
    header: &SessionHeader,
    affinity: &Affinity,
    snapshot: &Snapshot,
) -> Result<Option<SessionKey>, ()> {
    let seed = snapshot.pool.settings().seed;
    let mut found = None;
    for value in session.req_header().headers.get_all(&header.name) {
        let key = SessionKey::parse(value.as_bytes(), affinity.max_length, seed).map_err(|_| ())?;
        match (found, key) {
            (Some(one), Some(other)) if one != other => return Err(()),
            (_, Some(key)) => found = Some(key),
            (_, None) => {}
        }
    }
    Ok(found)
}
