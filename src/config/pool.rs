//! A pool and its backends, as configured.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::headers::BackendHeader;
use super::overload::Overload;
use super::tls::UpstreamTls;

/// A set of backends and how to select among them.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Metric label; 1 to 255 visible ASCII characters.
    pub name: String,
    /// How requests without a session are spread.
    pub balance: Balance,
    /// How much of the work one backend may have.
    pub overload: Overload,
    /// How long a backend that recovered or joined gets fewer new sessions and keyless requests than its share, up to
    /// 1 h; `None` gives it all at once (written `0s`).
    pub slow_start: Option<Duration>,
    /// What the backends are asked about their load.
    pub signals: Signals,
    /// What becomes of the sessions of a draining backend.
    pub drain: Drain,
    /// Nobody available: try the preference order anyway.
    pub fail_open: bool,
    /// Requests that wait for a backend that loads.
    pub hold: Hold,
    /// How backends are probed.
    pub health_check: HealthCheck,
    /// How long an attempt may take.
    pub timeouts: Timeouts,
    /// Which requests are tried again.
    pub retry: Retry,
    /// How backends with an `https://` url are met.
    pub upstream_tls: UpstreamTls,
    /// 1 to 4096; no two names alike.
    pub backends: Vec<Backend>,
}

/// How requests without a session are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Smooth weighted round robin.
    RoundRobin,
    /// The backend with the fewest requests in flight for its weight.
    LeastRequests,
}

/// What the backends are asked about their load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signals {
    /// From one poll of a backend's metrics and slots to the next; at least 100 ms. `None` never asks (written `0s`).
    pub interval: Option<Duration>,
}

/// What becomes of the sessions of a draining backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// When they leave it.
    pub sessions: DrainSessions,
    /// After this long they leave it in any case; `None` gives them all the time (written `0s`).
    pub deadline: Option<Duration>,
}

/// When the sessions of a draining backend leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DrainSessions {
    /// Each once it was silent for `affinity.idle_ttl`: its cache is cold by then.
    UntilIdle,
    /// With their next turn.
    AtOnce,
}

/// Requests that wait for a backend that loads, while no other one can serve them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// How long a request waits, up to 1 h; `None` refuses it at once (written `0s`).
    pub timeout: Option<Duration>,
    /// The most requests that wait: 1..=1,000,000.
    pub max_requests: u32,
}

/// How backends are probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What a probe is.
    pub kind: ProbeKind,
    /// Path and query of an HTTP probe; begins with `/`.
    pub path: String,
    /// From one probe to the next; at least 10 ms.
    pub interval: Duration,
    /// The same after a probe that failed, and while one has been silent for that long; at least 10 ms, at most `interval`.
    pub fast_interval: Duration,
    /// A probe without an answer by then has failed. Never zero.
    pub timeout: Duration,
    /// Successes in a row that make a backend serve: 1..=1000.
    pub healthy_threshold: u32,
    /// Failures in a row that make a backend unhealthy: 1..=1000.
    pub unhealthy_threshold: u32,
    /// Errors of the server as answers, in a row, that do the same: 1..=1000.
    pub error_threshold: u32,
}

/// What a probe is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// A GET that must answer 200.
    Http,
    /// A connection that must open.
    Tcp,
}

/// How long an attempt may take. `None` is unlimited (written `0s`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// To open a connection. Never zero.
    pub connect: Duration,
    /// From the request sent to the first byte of the response.
    pub first_byte: Option<Duration>,
    /// From the request sent to the first output of the response.
    pub first_token: Option<Duration>,
    /// Without a byte of a response that has started.
    pub idle: Option<Duration>,
    /// For the whole answer.
    pub total: Option<Duration>,
    /// An unused upstream connection is closed after this. Never zero.
    pub keep_alive: Duration,
}

/// Which requests are tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Attempts for one request, the first included: 1..=16.
    pub max_attempts: u32,
    /// Bodies up to this many bytes are kept for a retry; 0 keeps none.
    pub max_body: usize,
    /// Retries as a share of recent requests: 0.0..=1.0.
    pub budget: f64,
    /// Up to where a stream is retried.
    pub until: RetryUntil,
    /// How long the head of a stream is held for the first output; zero passes it at once. Up to 1 h.
    pub hold_head: Duration,
}

/// Up to where a stream is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryUntil {
    /// Until its first event with output.
    FirstToken,
    /// Until its first byte.
    FirstByte,
}

/// One server that can take a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Identity: hash, metrics, reload, drain. 1 to 255 visible ASCII characters, none of `/ ? # %`; never `none`.
    pub name: String,
    /// Where it listens.
    pub origin: Origin,
    /// Its share of the sessions: 1..=1000.
    pub weight: u32,
    /// Its tier, 0 first: 0..=1000.
    pub priority: u32,
    /// What it runs: how its usage figures and its health are read.
    pub server: ServerKind,
    /// Takes no new sessions from the start.
    pub draining: bool,
    /// The file of the API key that it wants; `None`: it gets the clients' own.
    pub api_key_file: Option<PathBuf>,
    /// What it gets with every request, in place of the clients' own.
    pub headers: Vec<BackendHeader>,
}

/// Where a backend listens. Displays as its URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether it is `https://`.
    pub tls: bool,
    /// A lower-case host name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
    /// The path of its Unix socket, in place of host and port, which are `localhost` and 80 then.
    pub socket: Option<PathBuf>,
}

/// What a backend runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerKind {
    /// llama.cpp's llama-server.
    LlamaServer,
    /// vLLM's OpenAI-compatible server.
    Vllm,
    /// Anything else that speaks HTTP.
    Generic,
}

impl Origin {
    /// `host:port`, IPv6 in brackets: what a resolver takes, and the default name of a backend.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        match host {
            _ if self.socket.is_some() => host.clone(),
            host if host.contains(':') => format!("[{host}]:{port}"),
            host => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.socket {
            return write!(f, "unix:{}", path.display());
        }
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}
