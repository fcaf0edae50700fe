//! One turn as its client saw it.

use std::time::Duration;

use serde::Serialize;

use super::exchange::{ErrorKind, Exchange};

/// A turn that ended, well or not. Times are in seconds since the load was started.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Turn {
    /// Number of the session, from 0.
    pub session: usize,
    /// Number of the turn in its session, from 0.
    pub turn: usize,
    /// When it was sent.
    pub began: f64,
    /// When its answer was complete, or it was known that none would be.
    pub ended: f64,
    /// Why it failed, if it did.
    #[serde(serialize_with = "by_name")]
    pub error: Option<ErrorKind>,
    /// `X-Ingle-Backend` of the answer.
    pub backend: Option<String>,
    /// `X-Ingle-Affinity` of the answer.
    pub affinity: Option<String>,
    /// Seconds from `began` to the first token; of a plain answer, to its end.
    pub ttft: Option<f64>,
    /// Tokens of the prompt, as the server counted them.
    pub prompt_tokens: Option<u64>,
    /// Those of them that it found in its cache.
    pub cached_tokens: Option<u64>,
}

impl Turn {
    pub(crate) fn new(session: usize, turn: usize, ended: Duration, exchange: &Exchange) -> Self {
        Self {
            session,
            turn,
            began: ended.saturating_sub(exchange.total).as_secs_f64(),
            ended: ended.as_secs_f64(),
            error: exchange.error,
            backend: exchange.backend.clone(),
            affinity: exchange.affinity.clone(),
            ttft: exchange.first_token.map(|time| time.as_secs_f64()),
            prompt_tokens: exchange.reading.prompt_tokens,
            cached_tokens: exchange.reading.cached_tokens,
        }
    }
}

fn by_name<S: serde::Serializer>(error: &Option<ErrorKind>, serializer: S) -> Result<S::Ok, S::Error> {
    match error {
        Some(kind) => serializer.collect_str(kind),
        None => serializer.serialize_none(),
    }
}
