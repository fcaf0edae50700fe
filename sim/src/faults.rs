//! Scripted faults: what a backend does wrong, switchable while it runs.

use std::str::FromStr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::api::Api;

/// Something a backend does wrong. Events are SSE events that carry tokens; for a plain answer, which has none,
/// the fault happens in the middle of the body.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The connection is accepted and closed at once.
    AcceptThenClose,
    /// The process stands still, as after SIGSTOP: connections are accepted by the kernel, nothing is answered,
    /// running streams pause. Clearing the fault lets it go on.
    Freeze,
    /// A request on a connection that already served one is not read: the connection closes (stale keep-alive race).
    CloseReused,
    /// The request is read in full, then the connection is reset (RST).
    ResetAfterRequest,
    /// The request is read in full, then the connection is closed (FIN) without an answer.
    CloseAfterRequest,
    /// The head of a stream is sent at once, then the connection is closed.
    CloseAfterHeaders,
    /// A stream gets its slot and its head, and fails before its first token. An answer that is no stream fails before its
    /// first byte.
    BeforeToken(BeforeToken),
    /// The connection is closed after this many events: no last chunk, no `[DONE]`.
    PrematureEof {
        /// Events that are sent first.
        after_events: usize,
    },
    /// The connection is reset (RST) after this many events.
    ResetMidStream {
        /// Events that are sent first.
        after_events: usize,
    },
    /// After this many events nothing is sent any more; the connection stays open.
    Stall {
        /// Events that are sent first.
        after_events: usize,
    },
    /// After this many events comes a chunk whose size is not a number, then the connection is closed.
    BadChunk {
        /// Events that are sent first.
        after_events: usize,
    },
    /// The answer is correct, but sent one byte at a time.
    Drip {
        /// Pause after each byte.
        pause: Duration,
    },
    /// Bytes that are not HTTP, then the connection is closed.
    Junk,
    /// `count` interim responses `102 Processing` before the correct answer.
    InformationalStorm {
        /// Interim responses.
        count: usize,
    },
    /// The answer starts only after this time (real time, not scaled), then is correct.
    Delay(Duration),
    /// This answer instead of the real one.
    Status {
        /// Status code.
        code: u16,
        /// Further headers, such as `Retry-After`; `Content-Length` and (unless given) `Content-Type` are added.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
}

/// How an answer fails before its first token; for [`Fault::BeforeToken`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeforeToken {
    /// From the head to the failure. Real time, not scaled.
    pub after: Duration,
    /// Whether the events that announce output come first: the role of a chat, `message_start`, `response.created`.
    pub skeleton: bool,
    /// How it ends.
    pub ending: Ending,
}

/// The end of an answer that has no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The connection is closed (FIN).
    Close,
    /// The connection is reset (RST).
    Reset,
    /// Nothing is sent any more; the connection stays open.
    Stall,
    /// The stream ends as a complete one does.
    End,
    /// An error event of the API with this code comes, and the stream ends.
    Error(u16),
}

impl BeforeToken {
    /// At once, without a skeleton.
    #[must_use]
    pub fn new(ending: Ending) -> Self {
        Self { after: Duration::ZERO, skeleton: false, ending }
    }
}

impl FromStr for Ending {
    type Err = String;

    /// `close`, `reset`, `stall`, `end`, or the code of an error event, 400 to 599.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "close" => Ok(Self::Close),
            "reset" => Ok(Self::Reset),
            "stall" => Ok(Self::Stall),
            "end" => Ok(Self::End),
            code => match code.parse() {
                Ok(code @ 400..=599) => Ok(Self::Error(code)),
                _ => Err(format!("unknown ending {text:?}: close, reset, stall, end, or a code from 400 to 599")),
            },
        }
    }
}

impl Fault {
    /// An error answer in the OpenAI form.
    pub fn status(code: u16) -> Self {
        let body = format!(r#"{{"error":{{"message":"simulated {code}","type":"simulated_error","code":{code}}}}}"#);
        Self::Status { code, headers: Vec::new(), body }
    }

    /// The same with `Retry-After` in seconds.
    pub fn status_retry_after(code: u16, seconds: u64) -> Self {
        match Self::status(code) {
            Self::Status { code, body, .. } => {
                Self::Status { code, headers: vec![("Retry-After".into(), seconds.to_string())], body }
            }
            other => other,
        }
    }

    /// This fault on some of the paths only.
    pub fn on(self, scope: Scope) -> FaultRule {
        FaultRule { fault: self, scope, times: None }
    }

    /// This fault in its usual scope, a number of times.
    pub fn times(self, times: usize) -> FaultRule {
        FaultRule::from(self).times(times)
    }
}

/// The requests that a fault applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The paths of every [`Api`]: the others stay well, health included.
    Completions,
    /// `/health` only: the backend serves, but its probes fail.
    Health,
    /// This path only, without its query.
    Path(&'static str),
    /// Everything.
    All,
}

/// A fault, where it applies, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultRule {
    /// What happens.
    pub fault: Fault,
    /// To which requests. `Freeze` and `AcceptThenClose` know no request: they apply to everything.
    pub scope: Scope,
    /// How many requests (connections, for `AcceptThenClose`) meet it; `None` until cleared. Not for `Freeze`.
    pub times: Option<usize>,
}

impl FaultRule {
    /// The same rule, a number of times.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }
}

/// The fault in its usual scope: completions.
impl From<Fault> for FaultRule {
    fn from(fault: Fault) -> Self {
        fault.on(Scope::Completions)
    }
}

/// The rules that are active, in order; the first that fits a request is used.
#[derive(Debug)]
pub(crate) struct Faults {
    rules: Mutex<Vec<FaultRule>>,
    frozen: watch::Sender<bool>,
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self { rules: Mutex::default(), frozen: watch::Sender::new(false) }
    }

    pub(crate) fn inject(&self, rule: FaultRule) {
        if rule.fault == Fault::Freeze {
            self.frozen.send_replace(true);
        } else if rule.times != Some(0) {
            self.rules.lock().push(rule);
        }
    }

    pub(crate) fn clear(&self) {
        self.rules.lock().clear();
        self.frozen.send_replace(false);
    }

    /// Returns when the backend is not frozen (any more).
    pub(crate) async fn thawed(&self) {
        if *self.frozen.borrow() {
            // The sender lives as long as self: waiting cannot fail.
            let _ = self.frozen.subscribe().wait_for(|frozen| !frozen).await;
        }
    }

    /// Whether this connection is closed right after accept.
    pub(crate) fn at_accept(&self) -> bool {
        self.take(|rule| rule.fault == Fault::AcceptThenClose).is_some()
    }

    /// Whether this request on a used connection is not read.
    pub(crate) fn at_reuse(&self) -> bool {
        self.take(|rule| rule.fault == Fault::CloseReused).is_some()
    }

    /// What happens to a request of this path.
    pub(crate) fn at_request(&self, path: &str) -> Option<Fault> {
        self.take(|rule| !matches!(rule.fault, Fault::AcceptThenClose | Fault::CloseReused) && fits(rule.scope, path))
    }

    fn take(&self, wanted: impl Fn(&FaultRule) -> bool) -> Option<Fault> {
        let mut rules = self.rules.lock();
        let index = rules.iter().position(wanted)?;
        let rule = &mut rules[index];
        let fault = rule.fault.clone();
        if let Some(times) = &mut rule.times {
            *times -= 1;
            if *times == 0 {
                rules.remove(index);
            }
        }
        Some(fault)
    }
}

fn fits(scope: Scope, path: &str) -> bool {
    match scope {
        Scope::All => true,
        Scope::Path(only) => path == only,
        Scope::Health => path == "/health",
        Scope::Completions => Api::of(path).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_is_used_in_its_scope_and_so_often() {
        let faults = Faults::new();
        faults.inject(Fault::Junk.times(2));
        faults.inject(Fault::status(500).on(Scope::Health));
        assert_eq!(faults.at_request("/health"), Some(Fault::status(500)));
        assert_eq!(faults.at_request("/v1/completions"), Some(Fault::Junk));
        assert_eq!(faults.at_request("/v1/chat/completions"), Some(Fault::Junk));
        assert_eq!(faults.at_request("/v1/chat/completions"), None);
        assert_eq!(faults.at_request("/health"), Some(Fault::status(500)));
        faults.clear();
        assert_eq!(faults.at_request("/health"), None);
    }

    #[test]
    fn ending_is_a_word_or_a_code() {
        assert_eq!("stall".parse(), Ok(Ending::Stall));
        assert_eq!("503".parse(), Ok(Ending::Error(503)));
        for wrong in ["", "200", "die", "99999"] {
            assert!(wrong.parse::<Ending>().is_err(), "{wrong}");
        }
    }
}
