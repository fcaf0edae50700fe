//! What a backend can be asked, and what its answer means.

use super::get::{Answer, MAX_BODY};
use crate::config::ServerKind;
use crate::core::{Signals, signals};

/// Something to ask a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Metrics,
    Slots,
    Props,
}

/// What an answer means.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// The figures.
    Said(Signals),
    /// It will never answer this as it runs now; the status that said so.
    Missing(u16),
    /// An answer without any figure that is known here. vLLM's engine may not have begun to tell.
    Strange(&'static str),
    /// Something went wrong that may go right next time.
    NotNow(String),
}

impl Endpoint {
    pub(super) fn path(self) -> &'static str {
        match self {
            Endpoint::Metrics => "/metrics",
            Endpoint::Slots => "/slots",
            Endpoint::Props => "/props",
        }
    }

    pub(super) fn judge(self, answer: &Answer) -> Verdict {
        match answer.status {
            200 => {}
            // llama-server says 501 for what its flags leave out.
            status @ (300..=407 | 409..=428 | 430..=499 | 501) => return Verdict::Missing(status),
            status => return Verdict::NotNow(format!("status {status}")),
        }
        let body = &answer.body[..];
        let said = match self {
            Endpoint::Metrics if answer.cut => Signals::from_metrics(signals::whole_families(body)),
            _ if answer.cut => return Verdict::Strange(TOO_LONG),
            Endpoint::Metrics => Signals::from_metrics(body),
            Endpoint::Slots => Signals::from_slots(body),
            Endpoint::Props => Signals::from_props(body),
        };
        said.map_or(Verdict::Strange("none of the figures that are looked for"), Verdict::Said)
    }

    /// What an operator can do about an answer of this status.
    pub(super) fn remedy(self, server: ServerKind, status: u16) -> &'static str {
        match (self, server, status) {
            (_, _, 401 | 403) => "it asks for a key: make it answer ingle without one, or do without its signals",
            (Endpoint::Props, ServerKind::LlamaServer, _) => "update llama-server",
            (Endpoint::Props, ..) => "its slots are not known, so max_in_flight: auto does not bound it: use a number",
            (Endpoint::Metrics, ServerKind::LlamaServer, _) => "start llama-server with --metrics",
            (Endpoint::Slots, ..) => "start llama-server with --metrics, or with --slots",
            (Endpoint::Metrics, ServerKind::Vllm, _) => "start vLLM without --disable-log-stats",
            (Endpoint::Metrics, ServerKind::Generic, _) => "only llama-server's and vLLM's metrics are understood",
        }
    }
}

const TOO_LONG: &str = "too long an answer";
const _: () = assert!(MAX_BODY == 256 << 10, "the README says so");

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.as_bytes().to_vec(), cut: false }
    }

    #[test]
    fn what_is_not_there_is_told_from_what_fails_now() {
        for status in [301, 400, 401, 403, 404, 405, 410, 501] {
            assert_eq!(Endpoint::Metrics.judge(&answer(status, "")), Verdict::Missing(status));
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(matches!(Endpoint::Metrics.judge(&answer(status, "")), Verdict::NotNow(_)), "{status}");
        }
    }

    #[test]
    fn an_answer_without_figures_is_strange() {
        assert!(matches!(Endpoint::Metrics.judge(&answer(200, "up 1\n")), Verdict::Strange(_)));
        assert!(matches!(Endpoint::Slots.judge(&answer(200, "[]")), Verdict::Strange(_)));
        let slots = Signals { slots: Some(4), ..Signals::UNKNOWN };
        assert_eq!(Endpoint::Props.judge(&answer(200, r#"{"total_slots":4}"#)), Verdict::Said(slots));
    }

    #[test]
    fn of_a_long_answer_the_beginning_counts_if_it_has_whole_families() {
        let text = "vllm:num_requests_running 1\n# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 2\n";
        let running = Signals { running: Some(1), ..Signals::UNKNOWN };
        assert_eq!(Endpoint::Metrics.judge(&Answer { cut: true, ..answer(200, text) }), Verdict::Said(running));
        let slots = Answer { cut: true, ..answer(200, r#"[{"is_processing":true}]"#) };
        assert_eq!(Endpoint::Slots.judge(&slots), Verdict::Strange(TOO_LONG));
    }
}
