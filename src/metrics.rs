//! Every metric: name, labels, buckets.
//!
//! To add one: a field of [`Metrics`], its line in [`Metrics::new`], and a row in the README, whose table a test
//! compares with what `/metrics` says. Labels are small enums and configured names; never a session, a path or free
//! text. What is counted per request has its children looked up once, in [`BackendMetrics`] and [`PoolMetrics`].

mod access;
mod broken;
mod certificates;
mod families;
mod labels;
mod limits;
mod log;
mod overload;
mod retries;
mod signals;
mod watch;

use prometheus::{Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, TextEncoder};

pub use access::{AccessMetrics, HolderMetrics, KeyResult};
pub use broken::{BrokenCause, BrokenMetrics};
pub use certificates::CertificateMetrics;
pub use labels::{Code, Phase};
pub use limits::{LimitMetrics, Shed};
pub use overload::QueueExit;
pub use retries::RetryMetrics;
pub use watch::WatchMetrics;

use crate::core::usage::{Tokens, Usage};
use crate::core::{Affinity, Backend, Cause, Pool, Reason, State, Transition};
use broken::BrokenFamily;
use families::Families;
use log::LogMetrics;
use overload::{Exits, OverloadFamilies, Spills};
use retries::RetryFamilies;
use watch::WatchFamilies;

/// All metric families of the gateway.
pub struct Metrics {
    families: Families,
    requests: IntCounterVec,
    duration: HistogramVec,
    first_byte: HistogramVec,
    first_token: HistogramVec,
    in_flight: IntGaugeVec,
    healthy: IntGaugeVec,
    state: IntGaugeVec,
    transitions: IntCounterVec,
    retries: RetryFamilies,
    aborts: IntCounterVec,
    session_keys: IntCounterVec,
    displaced: IntGaugeVec,
    prompt_tokens: IntCounterVec,
    broken: BrokenFamily,
    watch: WatchFamilies,
    overload: OverloadFamilies,
    log: LogMetrics,
    /// Reloads of the config, by result.
    pub reloads: Reloads,
    /// The gateway's own bounds.
    pub limits: LimitMetrics,
    /// Certificates and their ends.
    pub certificates: CertificateMetrics,
    /// API keys and their holders.
    pub access: AccessMetrics,
}

/// `ingle_config_reloads_total`, by result.
pub struct Reloads {
    /// The new file was good and is in force.
    pub ok: IntCounter,
    /// The new file was bad; the old one stays in force.
    pub error: IntCounter,
}

impl Reloads {
    fn new(families: &Families) -> prometheus::Result<Reloads> {
        let family = families.counter("ingle_config_reloads_total", "Reloads of the config file", &["result"])?;
        Ok(Reloads { ok: family.with_label_values(&["ok"]), error: family.with_label_values(&["error"]) })
    }
}

impl Metrics {
    /// All families, registered, each at 0.
    ///
    /// # Errors
    ///
    /// If two families have one name: a mistake in this file.
    pub fn new() -> prometheus::Result<Metrics> {
        let families = Families::default();
        let counter = |name: &str, help: &str, labels: &[&str]| families.counter(name, help, labels);
        let gauge = |name: &str, help: &str, labels: &[&str]| families.gauge(name, help, labels);
        let histogram =
            |name: &str, help: &str, labels: &[&str], buckets: &[f64]| families.histogram(name, help, labels, buckets);
        build_info(&families)?;
        Ok(Metrics {
            certificates: CertificateMetrics::new(&families)?,
            access: AccessMetrics::new(&families)?,
            requests: counter(
                "ingle_requests_total",
                "Client requests, each once, by their final backend; none: the gateway answered itself",
                &["pool", "backend", "affinity", "code"],
            )?,
            duration: histogram(
                "ingle_request_duration_seconds",
                "From the request's head to the end of its response",
                &["pool", "backend"],
                &DURATION_BUCKETS,
            )?,
            first_byte: histogram(
                "ingle_time_to_first_byte_seconds",
                "From the request's head to the first byte of the backend's response",
                &["pool", "backend", "affinity"],
                &FIRST_BYTE_BUCKETS,
            )?,
            first_token: histogram(
                "ingle_time_to_first_token_seconds",
                "From the request's head to the first output of a stream, or the first body byte of another response",
                &["pool", "backend", "affinity"],
                &FIRST_BYTE_BUCKETS,
            )?,
            in_flight: gauge("ingle_in_flight_requests", "Requests on a backend now", &["pool", "backend"])?,
            healthy: gauge(
                "ingle_backend_healthy",
                "Whether the backend serves: healthy or on probation",
                &["pool", "backend"],
            )?,
            state: gauge(
                "ingle_backend_state",
                "1 on the backend's current state, 0 on the others",
                &["pool", "backend", "state"],
            )?,
            transitions: counter(
                "ingle_health_transitions_total",
                "Changes of a backend's state, by the new state and the cause",
                &["pool", "backend", "to", "cause"],
            )?,
            retries: RetryFamilies::new(&families)?,
            aborts: counter("ingle_client_aborts_total", "Requests whose client left, by phase", &["pool", "phase"])?,
            session_keys: session_keys(&families)?,
            displaced: gauge("ingle_displaced_sessions", "Sessions that are away from home", &["pool"])?,
            prompt_tokens: counter(
                "ingle_prompt_tokens_total",
                "Prompt tokens as the backends report them, by whether they were in the KV cache",
                &["pool", "backend", "affinity", "cached"],
            )?,
            broken: BrokenFamily::new(&families)?,
            watch: WatchFamilies::new(&families)?,
            overload: OverloadFamilies::new(&families)?,
            log: LogMetrics::new(&families)?,
            reloads: Reloads::new(&families)?,
            limits: LimitMetrics::new(&families)?,
            families,
        })
    }

    /// The children of one backend.
    #[must_use]
    pub fn backend(&self, pool: &str, name: &str) -> BackendMetrics {
        for state in State::ALL {
            for cause in causes(state) {
                self.transitions.with_label_values(&[pool, name, state.as_str(), cause.as_str()]);
            }
        }
        BackendMetrics {
            requests: self.requests_of(pool, name),
            duration: self.duration.with_label_values(&[pool, name]),
            first_byte: Affinity::ALL
                .map(|affinity| self.first_byte.with_label_values(&[pool, name, affinity.as_str()])),
            first_token: Affinity::ALL
                .map(|affinity| self.first_token.with_label_values(&[pool, name, affinity.as_str()])),
            prompt_tokens: Affinity::ALL.map(|affinity| {
                ["false", "true"]
                    .map(|cached| self.prompt_tokens.with_label_values(&[pool, name, affinity.as_str(), cached]))
            }),
            exits: self.overload.exits(pool, name),
            broken: self.broken.backend(pool, name),
        }
    }

    /// The children of a pool.
    #[must_use]
    pub fn pool(&self, pool: &str, session_headers: &[&str]) -> PoolMetrics {
        PoolMetrics {
            unanswered: Code::ALL.map(|code| self.requests.with_label_values(&[pool, "none", "none", code.as_str()])),
            retries: self.retries.pool(pool),
            aborts: Phase::ALL.map(|phase| self.aborts.with_label_values(&[pool, phase.as_str()])),
            session_headers: session_headers.iter().map(|name| self.session_keys.with_label_values(&[name])).collect(),
            session_none: self.session_keys.with_label_values(&["none"]),
            session_invalid: self.session_keys.with_label_values(&["invalid"]),
            watch: self.watch.pool(pool),
            spills: self.overload.spills(pool),
        }
    }

    /// Counts a change of a backend's state.
    pub fn transition(&self, pool: &str, backend: &str, transition: Transition) {
        self.transitions.with_label_values(&[pool, backend, transition.to.as_str(), transition.cause.as_str()]).inc();
    }

    /// Ends every series that has all of these labels, in all families.
    pub fn forget(&self, labels: &[(&str, &str)]) {
        self.families.forget(labels);
    }

    /// Sets a backend's gauges to what it is now.
    pub fn look_at(&self, pool: &str, backend: &Backend) {
        let labels = &[pool, backend.name()];
        self.overload.look_at(pool, backend);
        self.in_flight.with_label_values(labels).set(int(backend.in_flight()));
        self.healthy.with_label_values(labels).set(i64::from(backend.state().serves()));
        for state in State::ALL {
            let labels = &[pool, backend.name(), state.as_str()];
            self.state.with_label_values(labels).set(i64::from(backend.state() == state));
        }
    }

    /// The text that Prometheus scrapes. Gauges are read from `pool` now; `held` requests wait until one of its backends can
    /// serve them.
    #[must_use]
    pub fn render(&self, pool_name: &str, pool: &Pool, held: usize) -> String {
        pool.members().iter().for_each(|member| self.look_at(pool_name, &member.backend));
        self.displaced.with_label_values(&[pool_name]).set(int(pool.displaced()));
        self.overload.read(pool_name, pool, held);
        self.log.read();
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.families.gather(), &mut text) {
            tracing::error!(%error, "metrics can't be encoded");
        }
        String::from_utf8(text).unwrap_or_default() + &signals::render(pool_name, pool)
    }

    fn requests_of(&self, pool: &str, backend: &str) -> [[IntCounter; 5]; 6] {
        Affinity::ALL.map(|affinity| {
            Code::ALL.map(|code| self.requests.with_label_values(&[pool, backend, affinity.as_str(), code.as_str()]))
        })
    }
}

/// What is counted of one backend.
pub struct BackendMetrics {
    requests: [[IntCounter; 5]; 6],
    duration: Histogram,
    first_byte: [Histogram; 6],
    first_token: [Histogram; 6],
    prompt_tokens: [[IntCounter; 2]; 6],
    exits: Exits,
    /// Responses that broke off.
    pub broken: BrokenMetrics,
}

impl BackendMetrics {
    /// Counts a client's request that ended here.
    pub fn request(&self, affinity: Affinity, code: Code, seconds: f64) {
        self.requests[affinity as usize][code as usize].inc();
        self.duration.observe(seconds);
    }

    /// Counts a request that waited here for room.
    pub fn queue_exit(&self, exit: QueueExit) {
        self.exits.count(exit);
    }

    /// Notes how long the first byte took.
    pub fn first_byte(&self, affinity: Affinity, seconds: f64) {
        self.first_byte[affinity as usize].observe(seconds);
    }

    /// Notes how long the first token took.
    pub fn first_token(&self, affinity: Affinity, seconds: f64) {
        self.first_token[affinity as usize].observe(seconds);
    }

    /// Counts what the backend said of a prompt.
    pub fn usage(&self, affinity: Affinity, usage: Usage) {
        let tokens = usage.tokens();
        let [computed, cached] = &self.prompt_tokens[affinity as usize];
        computed.inc_by(tokens.prompt.saturating_sub(tokens.cached));
        cached.inc_by(tokens.cached);
    }

    /// Prompt tokens since the start, all and cached ones.
    #[must_use]
    pub fn prompt_tokens(&self) -> Tokens {
        let sum = |cached: usize| self.prompt_tokens.iter().map(|by_cached| by_cached[cached].get()).sum::<u64>();
        Tokens { prompt: sum(0) + sum(1), cached: sum(1) }
    }

    /// Client requests since the start with this outcome.
    #[must_use]
    pub fn requests_of(&self, affinity: Affinity) -> u64 {
        self.requests[affinity as usize].iter().map(IntCounter::get).sum()
    }

    /// Prompt tokens since the start of requests with this outcome, all and cached ones.
    #[must_use]
    pub fn prompt_tokens_of(&self, affinity: Affinity) -> Tokens {
        let [computed, cached] = &self.prompt_tokens[affinity as usize];
        Tokens { prompt: computed.get() + cached.get(), cached: cached.get() }
    }
}

/// What is counted of a pool.
pub struct PoolMetrics {
    unanswered: [IntCounter; 5],
    /// Retries.
    pub retries: RetryMetrics,
    aborts: [IntCounter; 3],
    session_headers: Vec<IntCounter>,
    /// Requests without a session.
    pub session_none: IntCounter,
    /// Requests whose session is no valid one.
    pub session_invalid: IntCounter,
    /// How well affinity works.
    pub watch: WatchMetrics,
    spills: Spills,
}

impl PoolMetrics {
    /// Counts a request that no backend answered.
    pub fn unanswered(&self, code: Code) {
        self.unanswered[code as usize].inc();
    }

    /// Counts a session that was sent elsewhere because its place was too busy.
    pub fn spill(&self, reason: Reason) {
        self.spills.count(reason);
    }

    /// Counts a client that left.
    pub fn abort(&self, phase: Phase) {
        self.aborts[phase as usize].inc();
    }

    /// Requests with a session.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.session_headers.iter().map(IntCounter::get).sum()
    }

    /// Counts a session that came with the header of this index.
    pub fn session_header(&self, index: usize) {
        if let Some(counter) = self.session_headers.get(index) {
            counter.inc();
        }
    }
}

/// From a title of one token to an agent's hour-long answer.
const DURATION_BUCKETS: [f64; 14] =
    [0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0];

/// From a warm cache on a fast GPU (5 ms) to a cold prompt of a hundred thousand tokens (minutes).
const FIRST_BYTE_BUCKETS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// What can cause a change to this state.
fn causes(to: State) -> &'static [Cause] {
    match to {
        State::Warming => &[Cause::Loading],
        State::Healthy => &[Cause::Probe, Cause::Response],
        State::Unhealthy => &[
            Cause::ProbeFailed,
            Cause::Connect,
            Cause::Closed,
            Cause::FirstByte,
            Cause::FirstToken,
            Cause::BadGateway,
            Cause::Errors,
            Cause::Broken,
        ],
        State::Probation => &[Cause::Probe, Cause::Response],
    }
}

fn session_keys(families: &Families) -> prometheus::Result<IntCounterVec> {
    let help = "Requests by where their session came from: a header's name, none, or invalid";
    families.counter("ingle_session_keys_total", help, &["source"])
}

fn build_info(families: &Families) -> prometheus::Result<()> {
    let info = families.gauge("ingle_build_info", "Always 1; the label is the version", &["version"])?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    Ok(())
}

fn int(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
