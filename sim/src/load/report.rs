//! What came of a load.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use super::config::LoadConfig;
use super::exchange::{ErrorKind, Exchange};
use super::samples::{Samples, Summary};
use super::turn::Turn;

/// Token figures as the servers themselves report them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokenFigures {
    /// Prompt tokens of all successful requests that said so.
    pub prompt: u64,
    /// Prompt tokens of the requests that also said how many were cached.
    pub measured: u64,
    /// Those of `measured` that were cached.
    pub cached: u64,
    /// Generated tokens.
    pub output: u64,
}

impl TokenFigures {
    /// Share of measured prompt tokens that were cached; `None` when nothing was measured.
    pub fn reuse(&self) -> Option<f64> {
        (self.measured > 0).then(|| self.cached as f64 / self.measured as f64)
    }

    fn add(&mut self, exchange: &Exchange) {
        let reading = &exchange.reading;
        self.output += reading.output_tokens.unwrap_or(0);
        let Some(prompt) = reading.prompt_tokens else { return };
        self.prompt += prompt;
        if let Some(cached) = reading.cached_tokens {
            self.measured += prompt;
            self.cached += cached;
        }
    }
}

/// What came of a load, at its end or so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LoadReport {
    /// Requests sent: turns and sidecar calls.
    pub requests: u64,
    /// Requests in flight now.
    pub in_flight: u64,
    /// Requests answered completely with 200.
    pub succeeded: u64,
    /// Failed requests by kind.
    #[serde(serialize_with = "by_name")]
    pub errors: BTreeMap<ErrorKind, u64>,
    /// Failed requests whose client had output of the answer; the others failed before their first token.
    pub failed_after_output: u64,
    /// Sidecar calls among the requests that ended.
    pub sidecars: u64,
    /// Tokens of all requests.
    pub tokens: TokenFigures,
    /// Tokens of second and later turns: where there is something to reuse.
    pub later_turns: TokenFigures,
    /// Successful answers without any usage figures.
    pub without_usage: u64,
    /// Time to the first token of turns, seconds.
    pub ttft: Summary,
    /// The same of second and later turns.
    pub ttft_later_turns: Summary,
    /// Requests by `X-Ingle-Backend`, failed ones included.
    pub backends: BTreeMap<String, u64>,
    /// Requests by `X-Ingle-Affinity`, failed ones included.
    pub affinity: BTreeMap<String, u64>,
    /// Sessions whose successful turns were served by more than one backend.
    pub moved_sessions: u64,
    /// Turns that were served by another backend than the session's turn before.
    pub moves: u64,
    /// The turns in the order in which they ended, with [`keep_turns`](super::LoadConfig::keep_turns).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub turns: Vec<Turn>,
    /// Seconds since the start.
    pub wall: f64,
}

impl LoadReport {
    /// Failed requests.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Those of them that failed before the first token: a gateway can send them to another server.
    pub fn failed_before_output(&self) -> u64 {
        self.failed() - self.failed_after_output
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "requests  {} in {:.1} s, {} succeeded, {} failed, {} of them sidecar calls",
            self.requests,
            self.wall,
            self.succeeded,
            self.failed(),
            self.sidecars
        )?;
        for (kind, count) in &self.errors {
            writeln!(f, "error     {kind}: {count}")?;
        }
        if self.failed() > 0 {
            let (before, after) = (self.failed_before_output(), self.failed_after_output);
            writeln!(f, "failed    {before} before the first token, {after} after it")?;
        }
        let (all, later) = (Percent(self.tokens.reuse()), Percent(self.later_turns.reuse()));
        let computed = self.tokens.measured - self.tokens.cached;
        writeln!(f, "reuse     {all} of prompt tokens, {later} on turns 2 and later; {computed} computed")?;
        for (name, times) in [("all turns", &self.ttft), ("turns 2+", &self.ttft_later_turns)] {
            writeln!(
                f,
                "ttft      p50 {:.3} s, p90 {:.3} s, p99 {:.3} s, mean {:.3} s ({name})",
                times.p50, times.p90, times.p99, times.mean
            )?;
        }
        for (name, count) in &self.backends {
            writeln!(f, "backend   {name}: {count}")?;
        }
        write!(f, "sessions  {} served by more than one backend, {} moves", self.moved_sessions, self.moves)
    }
}

struct Percent(Option<f64>);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(share) => write!(f, "{:.1} %", share * 100.0),
            None => f.write_str("unknown"),
        }
    }
}

/// JSON keys are strings.
fn by_name<S: Serializer>(errors: &BTreeMap<ErrorKind, u64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(errors.iter().map(|(kind, count)| (kind.to_string(), count)))
}

/// The kind of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    /// Turn number `turn` (from 0) of a session.
    Turn { session: usize, turn: usize },
    /// A call without a session.
    Sidecar,
}

/// Collects a [`LoadReport`].
#[derive(Debug)]
pub(crate) struct Recorder {
    report: LoadReport,
    started: Instant,
    keep_turns: bool,
    ttft: Samples,
    ttft_later: Samples,
    /// Where each session was served last, and whether it moved.
    places: Vec<(Option<String>, bool)>,
}

impl Recorder {
    pub(crate) fn new(config: &LoadConfig) -> Self {
        Self {
            report: LoadReport::default(),
            started: Instant::now(),
            keep_turns: config.keep_turns,
            ttft: Samples::new(config.seed),
            ttft_later: Samples::new(config.seed),
            places: vec![(None, false); config.sessions],
        }
    }

    pub(crate) fn begin(&mut self) {
        self.report.requests += 1;
        self.report.in_flight += 1;
    }

    pub(crate) fn end(&mut self, call: Call, exchange: &Exchange) {
        let report = &mut self.report;
        report.in_flight -= 1;
        for (map, value) in [(&mut report.backends, &exchange.backend), (&mut report.affinity, &exchange.affinity)] {
            if let Some(value) = value {
                *map.entry(value.clone()).or_default() += 1;
            }
        }
        report.sidecars += u64::from(matches!(call, Call::Sidecar));
        if let (Call::Turn { session, turn }, true) = (call, self.keep_turns) {
            report.turns.push(Turn::new(session, turn, self.started.elapsed(), exchange));
        }
        if let Some(error) = exchange.error {
            *report.errors.entry(error).or_default() += 1;
            report.failed_after_output += u64::from(exchange.reading.has_output);
            return;
        }
        report.succeeded += 1;
        report.without_usage += u64::from(exchange.reading.prompt_tokens.is_none());
        report.tokens.add(exchange);
        if let Call::Turn { session, turn } = call {
            self.turn(session, turn > 0, exchange);
        }
    }

    pub(crate) fn report(&self, wall: Duration) -> LoadReport {
        LoadReport {
            ttft: self.ttft.summary(),
            ttft_later_turns: self.ttft_later.summary(),
            wall: wall.as_secs_f64(),
            ..self.report.clone()
        }
    }

    fn turn(&mut self, session: usize, later: bool, exchange: &Exchange) {
        if let Some(time) = exchange.first_token {
            self.ttft.add(time);
        }
        if later {
            self.report.later_turns.add(exchange);
            if let Some(time) = exchange.first_token {
                self.ttft_later.add(time);
            }
        }
        if session >= self.places.len() {
            self.places.resize(session + 1, (None, false));
        }
        if let (Some((place, moved)), Some(backend)) = (self.places.get_mut(session), &exchange.backend) {
            if place.as_ref().is_some_and(|place| place != backend) {
                self.report.moves += 1;
                self.report.moved_sessions += u64::from(!std::mem::replace(moved, true));
            }
            *place = Some(backend.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reading::Reading;
    use super::*;

    fn served(backend: &str, prompt: u64, cached: Option<u64>) -> Exchange {
        let reading = Reading { prompt_tokens: Some(prompt), cached_tokens: cached, ..Reading::default() };
        let first_token = Some(Duration::from_secs(1));
        Exchange { backend: Some(backend.into()), first_token, reading, ..Exchange::default() }
    }

    #[test]
    fn a_session_that_moves_twice_is_one_moved_session() {
        let mut recorder =
            Recorder::new(&LoadConfig { sessions: 2, keep_turns: true, ..LoadConfig::new(["http://x"]) });
        for (turn, backend) in ["a", "b", "a"].into_iter().enumerate() {
            recorder.begin();
            recorder.end(Call::Turn { session: 0, turn }, &served(backend, 100, Some(50)));
        }
        recorder.begin();
        recorder.end(Call::Turn { session: 1, turn: 0 }, &served("a", 100, None));
        let report = recorder.report(Duration::ZERO);
        assert_eq!((report.moved_sessions, report.moves), (1, 2));
        assert_eq!(report.tokens, TokenFigures { prompt: 400, measured: 300, cached: 150, output: 0 });
        assert_eq!(report.later_turns.reuse(), Some(0.5));
        assert_eq!(report.ttft.count, 4);
        let turns: Vec<_> = report.turns.iter().map(|turn| (turn.session, turn.turn, turn.cached_tokens)).collect();
        assert_eq!(turns, [(0, 0, Some(50)), (0, 1, Some(50)), (0, 2, Some(50)), (1, 0, None)]);
        assert_eq!(report.backends, BTreeMap::from([("a".into(), 3), ("b".into(), 1)]));
    }

    #[test]
    fn a_failed_request_adds_to_nothing_but_its_error() {
        let mut recorder = Recorder::new(&LoadConfig::new(["http://x"]));
        recorder.begin();
        let exchange = Exchange { error: Some(ErrorKind::Status(503)), ..served("a", 100, Some(50)) };
        recorder.end(Call::Sidecar, &exchange);
        let report = recorder.report(Duration::ZERO);
        assert_eq!((report.requests, report.succeeded, report.failed(), report.in_flight), (1, 0, 1, 0));
        assert_eq!((report.failed_before_output(), report.failed_after_output), (1, 0));
        assert_eq!((report.tokens, report.turns.len()), (TokenFigures::default(), 0));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["errors"]["status_503"], 1);
    }
}
