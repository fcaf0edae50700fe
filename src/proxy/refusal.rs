//! What the gateway answers by itself.

use std::time::Duration;

use http::StatusCode;
use pingora::Error;

/// An answer that the gateway gives by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: &'static str,
}

/// Why a request does not go to a backend.
pub(super) enum Refused {
    /// The gateway answers.
    Answer(Refusal),
    /// The gateway answers, and says when to try again.
    Later(Refusal, Duration),
    /// A load balancer asks about the gateway itself.
    Probe(Probe),
    /// The client has left.
    Gone,
}

/// What a load balancer learns about the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// It runs.
    Live,
    /// It serves requests.
    Ready,
    /// It has not probed every backend yet, or is about to end.
    NotReady,
}

impl Probe {
    pub(super) fn answer(self) -> (StatusCode, &'static str) {
        match self {
            Probe::Live => (StatusCode::OK, "alive\n"),
            Probe::Ready => (StatusCode::OK, "ready\n"),
            Probe::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        }
    }
}

impl Refusal {
    /// Whether the client's request is at fault.
    pub(super) fn is_of_client(self) -> bool {
        self.status.is_client_error() && self.status != StatusCode::TOO_MANY_REQUESTS
    }

    pub(super) const HEAD_TOO_LARGE: Refusal = Refusal::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "headers_too_large",
        "The request's headers are larger than this gateway accepts (limits.max_header_bytes).",
    );
    pub(super) const NO_HOST: Refusal =
        Refusal::new(StatusCode::BAD_REQUEST, "no_host", "An HTTP/1.1 request needs a Host header.");
    pub(super) const BAD_HEADER: Refusal =
        Refusal::new(StatusCode::BAD_REQUEST, "bad_header", "A header has a byte that none may have.");
    pub(super) const BAD_HOST: Refusal =
        Refusal::new(StatusCode::BAD_REQUEST, "bad_host", "The Host header is no host.");
    pub(super) const BAD_TARGET: Refusal = Refusal::new(
        StatusCode::BAD_REQUEST,
        "bad_target",
        "The request's target must begin with a slash, or be a URL with http or https.",
    );
    pub(super) const BAD_TARGET_BYTE: Refusal = Refusal::new(
        StatusCode::BAD_REQUEST,
        "bad_target",
        "The request's target has a control character: percent-encode it.",
    );
    pub(super) const NO_WEBSOCKET: Refusal = Refusal::new(
        StatusCode::UPGRADE_REQUIRED,
        "upgrade_required",
        "This server has no WebSockets at this path: use POST.",
    );
    pub(super) const BAD_CONNECTION: Refusal = Refusal::new(
        StatusCode::BAD_REQUEST,
        "bad_header",
        "The Connection header names too many headers, or one that it must not name.",
    );
    pub(super) const NO_CONNECT: Refusal = Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "This gateway is no forward proxy: it does not serve CONNECT.",
    );
    pub(super) const BAD_FRAMING: Refusal = Refusal::new(
        StatusCode::BAD_REQUEST,
        "bad_framing",
        "A request has one Content-Length in digits, or the Transfer-Encoding chunked and no other.",
    );
    pub(super) const BODY_TOO_LARGE: Refusal = Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        "The request's body is larger than this gateway accepts (limits.max_body).",
    );
    pub(super) const NO_KEY: Refusal = Refusal::new(
        StatusCode::UNAUTHORIZED,
        "invalid_api_key",
        "Missing API key: send \"Authorization: Bearer KEY\" or \"X-Api-Key: KEY\".",
    );
    pub(super) const UNKNOWN_KEY: Refusal =
        Refusal::new(StatusCode::UNAUTHORIZED, "invalid_api_key", "This API key is not known.");
    pub(super) const RATE_OF_KEY: Refusal = Refusal::new(
        StatusCode::TOO_MANY_REQUESTS,
        "rate_limit_exceeded",
        "This API key has had as many requests as it may have in this time; try again later.",
    );
    pub(super) const TOO_MANY_OF_KEY: Refusal = Refusal::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too_many_requests",
        "This API key has as many requests under way as it may have; try again when one has ended.",
    );
    pub(super) const TOO_OFTEN: Refusal = Refusal::new(
        StatusCode::TOO_MANY_REQUESTS,
        "rate_limit_exceeded",
        "Too many requests come from this address in this time (limits.per_client.requests); try again later.",
    );
    pub(super) const NO_MEMORY: Refusal = Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "overloaded",
        "The gateway has as much to hold as it may (limits.memory); try again.",
    );
    pub(super) const NO_DESCRIPTORS: Refusal = Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "overloaded",
        "The gateway has as many connections as its system lets it have; try again.",
    );
    pub(super) const SLOW_BODY: Refusal =
        Refusal::new(StatusCode::REQUEST_TIMEOUT, "slow_client", "The request's body came too slowly.");
    pub(super) const MALFORMED: Refusal =
        Refusal::new(StatusCode::BAD_REQUEST, "malformed", "The request is malformed.");
    pub(super) const NONE_AVAILABLE: Refusal = Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "no_backend_available",
        "No backend is available now; try again.",
    );
    pub(super) const OVERLOADED: Refusal = Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "overloaded",
        "Every backend has as many requests as it may have; try again.",
    );
    pub(super) const FAILED: Refusal = Refusal::new(
        StatusCode::BAD_GATEWAY,
        "backend_failed",
        "The backend failed before it answered, and no other one could take the request.",
    );
    pub(super) const ALL_FAILED: Refusal = Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "backend_failed",
        "Every backend that was tried failed before the first token; try again.",
    );
    pub(super) const NO_STREAM: Refusal = Refusal::new(
        StatusCode::BAD_GATEWAY,
        "backend_failed",
        "The backend that was to continue the stream answered without one.",
    );
    pub(super) const TIMEOUT: Refusal =
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, "backend_timeout", "The backend did not answer in time; try again.");
    pub(super) const STATE_CHANGE: Refusal = Refusal::new(
        StatusCode::FORBIDDEN,
        "changes_one_server",
        "This call changes the state of one server, and would reach one of several: send it to the gateway's admin listener, \
         which passes it to every backend.",
    );
    pub(super) const NO_PREFLIGHT: Refusal =
        Refusal::new(StatusCode::BAD_GATEWAY, "backend_failed", "The backend does not answer preflights.");
    pub(super) const BUSY: Refusal = Refusal::new(
        StatusCode::TOO_MANY_REQUESTS,
        "backend_busy",
        "The backend has too many requests, and no other one could take this one.",
    );
    pub(super) const TOO_MANY_CONNECTIONS: Refusal = Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too_many_connections",
        "The gateway has too many connections; try again.",
    );
    pub(super) const TOO_MANY_OF_CLIENT: Refusal = Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too_many_connections",
        "Too many connections come from this address (limits.per_client); try again.",
    );

    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Refusal {
        Refusal { status, code, message }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Refused::Answer(refusal)
    }
}

/// Pingora found the request's head to be malformed.
impl From<Box<Error>> for Refused {
    fn from(_: Box<Error>) -> Self {
        Refused::Answer(Refusal::MALFORMED)
    }
}
