//! The config file as it is written: one struct per section, one field per key; `defaults.rs` has the defaults.
//!
//! The doc comments are what `ingle schema` tells editors. Bounds are checked in `convert`; the schema repeats them for editors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::headers::HeaderMap;
use super::lenient::Lenient;
use super::overload::MOST_REQUESTS;
use super::units::{PerTime, Share, Size, Span};
use super::{
    AccessLog, Balance, Cors, DrainSessions, MaxInFlight, Policy, ProbeKind, RetryUntil, ReturnHome, ServerKind,
};

pub(super) use super::file_tls::{CertificateSection, ListenerTlsSection, UpstreamTlsSection};

type List<T> = Lenient<Vec<Lenient<T>>>;

/// The JSON Schema of the config file.
///
/// It describes exactly the keys that are read: the parser finds unknown keys with it.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(File).to_value()
}

/// The config file of the ingle gateway.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "ingle", extend("required" = ["listeners", "pools"]))]
pub(super) struct File {
    /// Where clients connect (HTTP/1.1 and HTTP/2).
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(length(min = 1, max = 64))]
    pub(super) listeners: List<ListenerSection>,
    /// The admin listener: metrics, health, status page, drain. Absent: none.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) admin: Lenient<AdminSection>,
    /// How sessions are recognised and placed.
    pub(super) affinity: Lenient<AffinitySection>,
    /// The pools of backends: exactly one until there are routes.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(length(min = 1, max = 1))]
    pub(super) pools: List<PoolSection>,
    /// Who may send requests, and whose word is taken for who they are.
    pub(super) access: Lenient<AccessSection>,
    /// Bounds on what clients may use.
    pub(super) limits: Lenient<LimitsSection>,
    /// How a changed file comes into force.
    pub(super) reload: Lenient<ReloadSection>,
    /// How the process ends.
    pub(super) shutdown: Lenient<ShutdownSection>,
    /// One line per request on standard error.
    pub(super) access_log: Lenient<AccessLog>,
}

/// A traffic listener.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Listener", extend("required" = ["address"]))]
pub(super) struct ListenerSection {
    /// IP:PORT to bind, such as 0.0.0.0:8080 or [::]:8080.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) address: Lenient<String>,
    /// TLS for all connections of this listener. Absent: none (HTTP/1.1 and h2c).
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) tls: Lenient<ListenerTlsSection>,
    /// Who may connect: ranges (CIDR) and addresses. Absent: everybody.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(length(min = 1, max = 1024))]
    pub(super) allow: List<String>,
    /// What pages of other origins get: preflights that pass to backends without an API key, and errors they can read.
    pub(super) cors: Lenient<Cors>,
    /// Answers GET /livez and GET /readyz here, about the gateway and without an API key.
    pub(super) answer_probes: Lenient<bool>,
}

/// The admin listener.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Admin", extend("required" = ["address"]))]
pub(super) struct AdminSection {
    /// IP:PORT to bind, such as 127.0.0.1:9180; never a traffic listener's. Another than a loopback address needs keys.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) address: Lenient<String>,
    /// Who may connect: ranges (CIDR) and addresses. Absent: everybody.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(length(min = 1, max = 1024))]
    pub(super) allow: List<String>,
    /// File of the keys that are asked for, by name and hash. Absent: none.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) keys_file: Lenient<String>,
}

/// How sessions are recognised and placed.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Affinity")]
pub(super) struct AffinitySection {
    /// Request headers that may carry the session; the first present one wins. Case-insensitive.
    #[schemars(length(min = 1, max = 16))]
    pub(super) headers: List<String>,
    /// A longer or malformed value is no session. In bytes.
    #[schemars(range(min = 1, max = 16384))]
    pub(super) max_length: Lenient<u64>,
    /// Mixed into the placement hash: share it between replicas; keeps clients from aiming at a backend.
    #[schemars(length(max = 1024))]
    pub(super) hash_seed: Lenient<String>,
    /// How a session's backend is chosen.
    pub(super) policy: Lenient<Policy>,
    /// How many gateways with this file share the backends; with several, least_ttft leans on the home that all agree on.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) gateways: Lenient<u64>,
    /// The most sessions whose places are known, of those seen within idle_ttl.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(super) max_sessions: Lenient<u64>,
    /// When a session that failed over returns to its home.
    pub(super) return_home: Lenient<ReturnHome>,
    /// A session silent for longer has a cold cache anyway.
    pub(super) idle_ttl: Lenient<Span>,
    /// The most sessions remembered as being away from home.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(super) max_displaced: Lenient<u64>,
}

/// A set of backends and how to select among them.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Pool", extend("required" = ["name", "backends"]))]
pub(super) struct PoolSection {
    /// A label in metrics and logs.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(length(min = 1, max = 255))]
    pub(super) name: Lenient<String>,
    /// How requests without a session are spread.
    pub(super) balance: Lenient<Balance>,
    /// How much of the work one backend may have, and what becomes of a request that finds its backend full.
    pub(super) overload: Lenient<OverloadSection>,
    /// How long a backend that recovered or joined gets fewer new sessions and keyless requests; 0s is off, up to 1h.
    pub(super) slow_start: Lenient<Span>,
    /// What the backends are asked about their load.
    pub(super) signals: Lenient<SignalsSection>,
    /// What becomes of the sessions of a draining backend.
    pub(super) drain: Lenient<DrainSection>,
    /// Nobody available: try the preference order anyway.
    pub(super) fail_open: Lenient<bool>,
    /// Requests that wait for a backend that loads.
    pub(super) hold: Lenient<HoldSection>,
    /// How backends are probed.
    pub(super) health_check: Lenient<HealthCheckSection>,
    /// How long an attempt may take.
    pub(super) timeouts: Lenient<TimeoutsSection>,
    /// Which requests are tried again.
    pub(super) retry: Lenient<RetrySection>,
    /// How backends with an https:// url are met.
    pub(super) upstream_tls: Lenient<UpstreamTlsSection>,
    /// The servers.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(length(min = 1, max = 4096))]
    pub(super) backends: List<BackendSection>,
}

/// How much of the work one backend may have, and what becomes of a request that finds its backend full.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Overload")]
pub(super) struct OverloadSection {
    /// A backend with that many requests in flight gets no more: 0 is off, or a number, or auto (as many as it has slots, where that is known).
    pub(super) max_in_flight: Lenient<MaxInFlight>,
    /// How many times its fair share of the requests in flight a backend may have: over 1, up to 100; 0 is off.
    #[schemars(extend("anyOf" = [{ "const": 0 }, { "exclusiveMinimum": 1, "maximum": 100 }]))]
    pub(super) balance_factor: Lenient<f64>,
    /// Requests in flight that every backend may have whatever its fair share is.
    #[schemars(range(min = 1, max = MOST_REQUESTS))]
    pub(super) balance_floor: Lenient<u64>,
    /// How long a session's request waits for a place where it belongs before it spills to another backend; 0s is never, up to 10m.
    pub(super) queue_wait: Lenient<Span>,
    /// The most requests that wait at one backend.
    #[schemars(range(min = 1, max = MOST_REQUESTS))]
    pub(super) max_waiting: Lenient<u64>,
}

/// What the backends are asked about their load.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Signals")]
pub(super) struct SignalsSection {
    /// From one poll of a backend's /metrics and /slots to the next; at least 100ms. 0s is off.
    pub(super) interval: Lenient<Span>,
}

/// What becomes of the sessions of a draining backend.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Drain")]
pub(super) struct DrainSection {
    /// When they leave it.
    pub(super) sessions: Lenient<DrainSessions>,
    /// After this long they leave it in any case; 0s is never.
    pub(super) deadline: Lenient<Span>,
}

/// Requests that wait for a backend that loads, while no other one can serve them.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Hold")]
pub(super) struct HoldSection {
    /// How long a request waits; 0s refuses it at once, up to 1h.
    pub(super) timeout: Lenient<Span>,
    /// The most requests that wait.
    #[schemars(range(min = 1, max = MOST_REQUESTS))]
    pub(super) max_requests: Lenient<u64>,
}

/// How backends are probed.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "HealthCheck")]
pub(super) struct HealthCheckSection {
    /// What a probe is: an HTTP GET that must answer 200, or a TCP connection that must open.
    #[serde(rename = "type")]
    pub(super) kind: Lenient<ProbeKind>,
    /// What an HTTP probe asks for.
    #[schemars(regex(pattern = "^/"))]
    pub(super) path: Lenient<String>,
    /// From one probe to the next; at least 10ms.
    pub(super) interval: Lenient<Span>,
    /// The same, if it is shorter, after a probe that failed, and while one has been silent for that long; at least 10ms.
    pub(super) fast_interval: Lenient<Span>,
    /// A probe without an answer by then has failed.
    pub(super) timeout: Lenient<Span>,
    /// Successes in a row that make a backend serve.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) healthy_threshold: Lenient<u64>,
    /// Failures in a row that make a backend unhealthy.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) unhealthy_threshold: Lenient<u64>,
    /// Answers with errors of the server (500 and the like), of two sessions or clients and without a good one between
    /// them, that make a backend unhealthy while another one is well.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) error_threshold: Lenient<u64>,
}

/// How long an attempt may take. 0s is unlimited where it is allowed.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Timeouts")]
pub(super) struct TimeoutsSection {
    /// To open a connection; not 0s.
    pub(super) connect: Lenient<Span>,
    /// From the request sent to the first byte of the response; 0s is unlimited.
    pub(super) first_byte: Lenient<Span>,
    /// From the request sent to the first output of the response; 0s is unlimited. A long prefill is silent.
    pub(super) first_token: Lenient<Span>,
    /// Without a byte of a response that has started; 0s is unlimited.
    pub(super) idle: Lenient<Span>,
    /// For the whole answer; 0s is unlimited.
    pub(super) total: Lenient<Span>,
    /// An unused connection to a backend is closed after this; keep it below the server's own limit (5 s for llama-server and uvicorn). Not 0s.
    pub(super) keep_alive: Lenient<Span>,
}

/// Which requests are tried again.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Retry")]
pub(super) struct RetrySection {
    /// Attempts for one request, the first included; 1 turns retries off.
    #[schemars(range(min = 1, max = 16))]
    pub(super) max_attempts: Lenient<u64>,
    /// Larger bodies are retried only while none of them was sent; 0B keeps none.
    pub(super) max_body: Lenient<Size>,
    /// Retries as a share of recent requests.
    pub(super) budget: Lenient<Share>,
    /// Up to where a stream is retried: its first event with output, or its first byte.
    pub(super) until: Lenient<RetryUntil>,
    /// How long the head of a stream is held for its first output; 0s passes it at once, up to 1h.
    pub(super) hold_head: Lenient<Span>,
}

/// One server that can take a request.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Backend", extend("required" = ["url"]))]
pub(super) struct BackendSection {
    /// Identity: hash, metrics, reload, drain. Absent: host:port of the url.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(length(min = 1, max = 255))]
    pub(super) name: Lenient<String>,
    /// Where it listens: http://HOST:PORT, https://HOST:PORT or unix:/PATH.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(regex(pattern = "^(https?://[^/?#@]+/?|unix:/.+)$"))]
    pub(super) url: Lenient<String>,
    /// Its share of the sessions. To take a backend out of service, drain it.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) weight: Lenient<u64>,
    /// 0 first; the next tier serves only while no backend of the lower ones is available.
    #[schemars(range(min = 0, max = 1000))]
    pub(super) priority: Lenient<u64>,
    /// What it runs: how its usage figures and its health are read.
    pub(super) server: Lenient<ServerKind>,
    /// Takes no new sessions from the start.
    pub(super) draining: Lenient<bool>,
    /// File of the API key that it wants, in place of the clients'. Absent: clients bring their own.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) api_key_file: Lenient<String>,
    /// Headers that it gets with every request, probes and polls too, in place of the clients' own.
    pub(super) headers: Lenient<HeaderMap>,
}

/// Who may send requests, and whose word is taken for who they are.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Access")]
pub(super) struct AccessSection {
    /// File of API keys, by name and hash, with limits for each. Absent: nobody is asked for a key.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) keys_file: Lenient<String>,
    /// The proxies in front whose X-Forwarded headers are believed: ranges (CIDR) and addresses.
    #[schemars(length(max = 1024))]
    pub(super) trusted_proxies: List<String>,
}

/// Bounds on what clients may use.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Limits")]
pub(super) struct LimitsSection {
    /// The largest request body; at least 1B.
    pub(super) max_body: Lenient<Size>,
    /// The largest request head: 1KiB to 1MiB.
    pub(super) max_header_bytes: Lenient<Size>,
    /// The most requests at once on one HTTP/2 connection.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) http2_streams: Lenient<u64>,
    /// Memory for bodies kept for a retry, over all requests; 0B keeps none.
    pub(super) memory_for_retry_bodies: Lenient<Size>,
    /// The most client connections at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) max_connections: Lenient<u64>,
    /// From accept to the end of the request head, and between keep-alive requests; not 0s.
    pub(super) header_timeout: Lenient<Span>,
    /// What connections, requests and held bodies may take together, as the gateway counts it: at least 1MiB; 0B is off.
    pub(super) memory: Lenient<Size>,
    /// What one client may use: an IPv4 address, or a /64 of IPv6.
    pub(super) per_client: Lenient<PerClientSection>,
}

/// What one client may use: an IPv4 address, or a /64 of IPv6.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "PerClient")]
pub(super) struct PerClientSection {
    /// The most connections of one client at once; 0 is off.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(super) max_connections: Lenient<u64>,
    /// How many requests one client may begin; 0/s is off.
    pub(super) requests: Lenient<PerTime>,
}

/// How a changed file comes into force.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Reload")]
pub(super) struct ReloadSection {
    /// Look at the file every second, and reload it when it has changed.
    pub(super) watch: Lenient<bool>,
    /// Refuse a file that would give a larger share of sessions another home; 100% never refuses.
    pub(super) max_moved: Lenient<Share>,
}

/// How the process ends.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Shutdown")]
pub(super) struct ShutdownSection {
    /// How long /readyz says 503 before listeners stop accepting: for load balancers in front to notice.
    pub(super) delay: Lenient<Span>,
    /// How long running streams may finish; 0s waits for none.
    pub(super) drain_timeout: Lenient<Span>,
}
