//! What probes and traffic show of a backend.

/// What caused an observation; the label `cause` of `ingle_health_transitions_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A probe was answered as it should be.
    Probe,
    /// A probe was answered with 503: loading.
    Loading,
    /// A probe failed: refused, timed out, wrong status.
    ProbeFailed,
    /// A request was answered.
    Response,
    /// A connection for a request was refused or timed out.
    Connect,
    /// A connection was closed or reset before the first output.
    Closed,
    /// No byte of a response within `timeouts.first_byte`.
    FirstByte,
    /// No output of a response within `timeouts.first_token`.
    FirstToken,
    /// A request was answered with 502 or 504.
    BadGateway,
    /// Requests were answered with errors of the server, and none with anything better.
    Errors,
    /// Responses broke off in the middle, and none came to its end.
    Broken,
}

impl Cause {
    /// All causes, in the order in which metrics list them.
    pub const ALL: [Cause; 11] = [
        Cause::Probe,
        Cause::Loading,
        Cause::ProbeFailed,
        Cause::Response,
        Cause::Connect,
        Cause::Closed,
        Cause::FirstByte,
        Cause::FirstToken,
        Cause::BadGateway,
        Cause::Errors,
        Cause::Broken,
    ];

    /// The name in metrics, pages and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Probe => "probe",
            Cause::Loading => "loading",
            Cause::ProbeFailed => "probe_failed",
            Cause::Response => "response",
            Cause::Connect => "connect",
            Cause::Closed => "closed",
            Cause::FirstByte => "first_byte",
            Cause::FirstToken => "first_token",
            Cause::BadGateway => "bad_gateway",
            Cause::Errors => "errors",
            Cause::Broken => "broken",
        }
    }

    /// Whether nothing that waits at the backend can be expected to be answered. One that only is slow, or that answers
    /// with errors, still answers.
    pub(super) fn is_loss(self) -> bool {
        matches!(self, Cause::ProbeFailed | Cause::Connect | Cause::Closed)
    }
}

/// One thing seen of a backend, by a probe or by traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A probe was answered as it should be.
    ProbeOk,
    /// A probe was answered with 503.
    ProbeLoading,
    /// A probe failed.
    ProbeFailed,
    /// A request got a good answer; a stream did with its first output.
    TrafficOk,
    /// A request got an answer that is neither good nor an error of the server, such as 404.
    TrafficAnswered,
    /// A request got an error of the server.
    TrafficError(ErrorAnswer),
    /// A request failed through the backend's fault.
    TrafficFailed(Cause),
    /// A response that had started came to its end.
    Completed,
    /// A response that had started broke off through the backend's fault.
    Broken,
    /// A request has waited without output for far longer than others of the pool do, which produce output meanwhile.
    Stalled,
}

/// An error of the server, as an answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorAnswer {
    /// Stands for the session or the client that got it.
    pub origin: u64,
    /// Whether another backend is there that does not fail in the same way.
    pub has_alternative: bool,
}

impl Observation {
    pub(super) fn cause(self) -> Cause {
        match self {
            Observation::ProbeOk => Cause::Probe,
            Observation::ProbeLoading => Cause::Loading,
            Observation::ProbeFailed => Cause::ProbeFailed,
            Observation::TrafficOk | Observation::TrafficAnswered | Observation::Completed => Cause::Response,
            Observation::TrafficError(_) => Cause::Errors,
            Observation::Broken => Cause::Broken,
            Observation::Stalled => Cause::FirstToken,
            Observation::TrafficFailed(cause) => cause,
        }
    }
}
