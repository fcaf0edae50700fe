//! What the demo shows, as plain values: one moment of both sides.

use std::time::Duration;

use ingle_sim::load::LoadReport;

use crate::core::Affinity;
use crate::gateway::Gateway;

/// A moment of the demo.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Moment {
    /// Since the first request.
    pub(super) elapsed: Duration,
    /// The side with session affinity.
    pub(super) affinity: Figures,
    /// The side without.
    pub(super) round_robin: Figures,
    /// What the gateway with affinity says of itself.
    pub(super) gateway: GatewayFigures,
}

/// What the clients of one side have seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Turns that were answered.
    pub(super) turns: u64,
    /// Requests sent: turns and calls without a session.
    pub(super) requests: u64,
    /// Prompt tokens of all answered requests, as the servers count them.
    pub(super) prompt_tokens: u64,
    /// Those that a server had in its cache.
    pub(super) cached_tokens: u64,
    /// Time to the first token of a turn, median, in seconds.
    pub(super) first_token_p50: f64,
    /// The 99th percentile.
    pub(super) first_token_p99: f64,
    /// Requests that failed before their first token.
    pub(super) failed: u64,
    /// Streams that broke after their first token.
    pub(super) cut: u64,
    /// Prompts that the GPU was computing when it was killed: their streams had no token yet.
    pub(super) stranded: u64,
}

/// What a gateway says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct GatewayFigures {
    /// Each backend: name, state, requests there now.
    pub(super) backends: Vec<(String, &'static str, usize)>,
    /// Sessions that are away from home, where their cache is now.
    pub(super) away: usize,
    /// Requests of such sessions that found their new cache.
    pub(super) stayed: u64,
}

impl Figures {
    /// The share of prompt tokens that did not have to be computed; `None` before the first answer.
    pub(super) fn reuse(&self) -> Option<f64> {
        (self.prompt_tokens > 0).then(|| self.cached_tokens as f64 / self.prompt_tokens as f64)
    }

    /// Prompt tokens that the servers had to compute.
    pub(super) fn computed(&self) -> u64 {
        self.prompt_tokens - self.cached_tokens
    }
}

impl From<&LoadReport> for Figures {
    fn from(report: &LoadReport) -> Figures {
        Figures {
            turns: report.ttft.count,
            requests: report.requests,
            prompt_tokens: report.tokens.measured,
            cached_tokens: report.tokens.cached,
            first_token_p50: report.ttft.p50,
            first_token_p99: report.ttft.p99,
            failed: report.failed_before_output(),
            cut: report.failed_after_output,
            stranded: 0,
        }
    }
}

impl From<&Gateway> for GatewayFigures {
    fn from(gateway: &Gateway) -> GatewayFigures {
        let snapshot = gateway.snapshot.load();
        let backend = |link: &crate::link::Link| {
            let backend = &link.backend;
            (backend.name().to_owned(), backend.state().as_str(), backend.in_flight())
        };
        GatewayFigures {
            backends: snapshot.links.iter().map(|link| backend(link)).collect(),
            away: snapshot.pool.displaced(),
            stayed: snapshot.links.iter().map(|link| link.metrics.requests_of(Affinity::Stayed)).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ingle_sim::load::{ErrorKind, TokenFigures};

    use super::*;

    #[test]
    fn failure_is_counted_by_its_first_token() {
        // A stream that broke can have had its head only.
        let errors = BTreeMap::from([(ErrorKind::Broken, 5), (ErrorKind::Status(502), 2)]);
        let tokens = TokenFigures { prompt: 100, measured: 80, cached: 60, output: 5 };
        let report = LoadReport { requests: 20, errors, failed_after_output: 3, tokens, ..LoadReport::default() };
        let figures = Figures::from(&report);
        assert_eq!((figures.failed, figures.cut, figures.requests), (4, 3, 20));
        assert_eq!((figures.reuse(), figures.computed()), (Some(0.75), 20));
        assert_eq!(Figures::default().reuse(), None);
    }
}
