//! Watches how well affinity works: what it saves, the hints that it does less than it could, and the last quarter of an hour.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::{self, ServerKind};
use crate::core::hints::{Finding, Hint, Hints, Move, News, Seen, Servers};
use crate::core::history::{History, Point};
use crate::core::savings::Savings;
use crate::core::sessions::Turn;
use crate::core::usage::{Tokens, Usage};
use crate::core::{Backend, Millis, SessionKey};
use crate::metrics::WatchMetrics;

/// What the finished requests of a pool showed. One short lock for each.
#[derive(Default)]
pub struct Watch(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    hints: Hints,
    savings: Savings,
    history: History,
    judged: Millis,
}

/// A request that a backend answered.
pub struct Finished<'a> {
    /// Its session.
    pub key: Option<SessionKey>,
    /// Whether it came with a session that is not valid.
    pub invalid: bool,
    /// Which turn of it this was; `None` if it was not answered well.
    pub turn: Option<Turn>,
    /// Whether it was a chat or another completion, by its path.
    pub chat: bool,
    /// The backend that answered.
    pub backend: &'a Arc<Backend>,
    /// Whether the whole answer came, and was a success.
    pub whole: bool,
    /// What the backend said of the prompt.
    pub usage: Option<Usage>,
}

/// What affinity saved: all and cached prompt tokens of requests with a session.
#[derive(Clone, Copy, Debug)]
pub struct Saved {
    /// In the last five minutes.
    pub lately: Tokens,
    /// Since the start.
    pub ever: Tokens,
}

impl Watch {
    /// Takes in a finished request, and why its session moved, if it did.
    pub fn finished(&self, finished: &Finished<'_>, moved: Option<Move>, metrics: &WatchMetrics, now: Millis) {
        let Finished { key, invalid, turn, chat, backend, whole, usage } = *finished;
        let turn = turn.map_or(0, |turn| turn.number);
        let mut inner = self.0.lock();
        if let (Some(_), Some(usage)) = (key, usage) {
            inner.savings.note(usage.tokens(), now);
            inner.history.note_tokens(usage.tokens(), now);
        }
        inner.hints.request(&Seen { key, invalid, chat, turn, moved, backend, whole, usage }, now);
        drop(inner);
        if let Some(reason) = moved {
            metrics.moved(reason);
        }
    }

    /// Notes that a request has ended, whether a backend answered it or not.
    pub fn ended(&self, has_failed: bool, now: Millis) {
        self.0.lock().history.note_request(has_failed, now);
    }

    /// Notes that the first token of a request came.
    pub fn first_token(&self, waited: Millis, now: Millis) {
        self.0.lock().history.note_first_token(waited, now);
    }

    /// The last quarter of an hour, the oldest point first.
    #[must_use]
    pub fn history(&self, now: Millis) -> Vec<Point> {
        self.0.lock().history.points(now)
    }

    /// Judges what was seen, once a second: hints that begin, last for long or end are logged, and `ingle_hint` is set.
    /// `backends` is how many a request may go to.
    pub fn sweep(&self, pool: &config::Pool, backends: usize, metrics: &WatchMetrics, now: Millis) {
        let mut inner = self.0.lock();
        if now.saturating_sub(inner.judged) < JUDGE {
            return;
        }
        inner.judged = now;
        let news = inner.hints.judge(backends, now);
        for hint in Hint::ALL {
            metrics.hint(hint, inner.hints.holds(hint));
        }
        drop(inner);
        for news in news {
            match news {
                News::Say(finding) => {
                    let (hint, advice) = (finding.hint.as_str(), finding.advice(servers(pool, &finding)));
                    tracing::warn!(pool = pool.name, hint, seen = %finding, advice, "affinity does less than it could");
                }
                News::Over(hint) => {
                    tracing::info!(pool = pool.name, hint = hint.as_str(), "affinity: this is over");
                }
            }
        }
    }

    /// The hints that hold, each with how long it has.
    #[must_use]
    pub fn findings(&self, now: Millis) -> Vec<(Finding, Duration)> {
        let inner = self.0.lock();
        let age = |since| Duration::from_millis(now.saturating_sub(since));
        inner.hints.findings().map(|(finding, since)| (finding.clone(), age(since))).collect()
    }

    /// What affinity saved.
    #[must_use]
    pub fn saved(&self, now: Millis) -> Saved {
        let inner = self.0.lock();
        Saved { lately: inner.savings.lately(now), ever: inner.savings.ever() }
    }
}

/// The kinds of the servers that a finding is about.
#[must_use]
pub fn servers(pool: &config::Pool, finding: &Finding) -> Servers {
    let about = |name: &String| finding.backends.is_empty() || finding.backends.contains(name);
    let mut servers = Servers::default();
    for backend in pool.backends.iter().filter(|backend| about(&backend.name)) {
        match backend.server {
            ServerKind::LlamaServer => servers.llama_server = true,
            ServerKind::Vllm => servers.vllm = true,
            ServerKind::Generic => servers.other = true,
        }
    }
    servers
}

/// How often hints are judged.
const JUDGE: Millis = 1000;
