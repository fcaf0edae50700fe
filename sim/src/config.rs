//! What one simulated backend is like.

use std::str::FromStr;
use std::time::Duration;

/// The real server that is imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// llama.cpp's HTTP server: 503 on every endpoint while loading, `timings` in every answer.
    LlamaServer,
    /// vLLM's OpenAI server (uvicorn): refuses connections while loading, `HEAD /health` is 405.
    Vllm,
}

impl ServerKind {
    /// The name as configuration files write it: `llama_server` or `vllm`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LlamaServer => "llama_server",
            Self::Vllm => "vllm",
        }
    }
}

impl FromStr for ServerKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "llama_server" => Ok(Self::LlamaServer),
            "vllm" => Ok(Self::Vllm),
            other => Err(format!("unknown server {other:?}: llama_server or vllm")),
        }
    }
}

/// How long the server keeps connections open between requests. Real time, not scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct KeepAlive {
    /// An idle connection is closed after this (default 5s, as llama-server and uvicorn do).
    pub idle: Duration,
    /// A connection is closed after this many answers; 0 is without limit (default 0; llama-server has 100).
    pub max_requests: usize,
    /// Whether the last answer says `Connection: close` (default true). `false` makes the stale-connection race
    /// likely: the connection is closed right after an answer that promised to keep it.
    pub announce: bool,
    /// Whether the connection is closed, unannounced, after each event stream. A real llama-server does that although
    /// it answered `Keep-Alive: timeout=5, max=100` (default true for llama-server, false for vLLM).
    pub close_after_stream: bool,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(5), max_requests: 0, announce: true, close_after_stream: false }
    }
}

/// Configuration of one simulated backend. Start from [`SimConfig::llama_server`] or [`SimConfig::vllm`].
#[derive(Clone, Debug, PartialEq)]
pub struct SimConfig {
    /// Names the backend in `system_fingerprint` and in the header `X-Sim-Backend` of every answer (default `sim`).
    pub name: String,
    /// The server that is imitated.
    pub server: ServerKind,
    /// The model id of `/v1/models` and of answers (default `sim-model`).
    pub model: String,
    /// Requests that are worked on at once, at least 1; the others queue in order of arrival (default 4).
    pub slots: usize,
    /// Size of the prefix cache in tokens, rounded down to blocks; 0 is no cache (default 131072).
    pub cache_tokens: usize,
    /// Tokens per cache block, at least 1: the granularity of reuse (default 16).
    pub block_tokens: usize,
    /// Whether generated tokens enter the cache as well, as real servers do (default true).
    pub cache_output: bool,
    /// Prompt tokens computed per second, one request after the other; more than 0 (default 8000).
    pub prefill_rate: f64,
    /// Tokens generated per second by each request; more than 0 (default 40).
    pub decode_rate: f64,
    /// Length of an answer without `max_tokens` (default 64).
    pub default_output_tokens: usize,
    /// Factor on prefill and decode time: 1 is the real pace, 0 waits for nothing (default 1).
    pub time_scale: f64,
    /// Loading time after start and revival. Real time, not scaled (default 0).
    pub loading: Duration,
    /// Whether the head of a stream comes before its prompt is computed: with the slot from llama-server, at once from vLLM.
    /// `false`: together with the first token, as older servers sent it (default true).
    pub early_head: bool,
    /// Interval of SSE comment lines between the head of a stream and its first token; `None` is off. Real time (default:
    /// 30s for llama-server, off for vLLM).
    pub ping_interval: Option<Duration>,
    /// Whether llama-server was started with `--metrics` (default true). vLLM always has `/metrics`.
    pub metrics: bool,
    /// Whether llama-server has `/slots` (default true; real ones do without with `--no-slots`).
    pub slots_endpoint: bool,
    /// Whether vLLM was started with `--enable-prompt-tokens-details` (default false). llama-server always reports them.
    pub prompt_tokens_details: bool,
    /// Keep-alive behaviour.
    pub keep_alive: KeepAlive,
    /// How many requests are recorded with headers and body, oldest kept; 0 is off (default).
    pub record: usize,
    /// Largest request body in bytes; a larger one is answered with 413 (default 256 MiB).
    pub max_body: usize,
}

impl SimConfig {
    /// A llama-server of this name at its real pace.
    pub fn llama_server(name: impl Into<String>) -> Self {
        Self::new(name.into(), ServerKind::LlamaServer)
    }

    /// A vLLM of this name at its real pace.
    pub fn vllm(name: impl Into<String>) -> Self {
        Self::new(name.into(), ServerKind::Vllm)
    }

    /// The same backend without any waiting (`time_scale` 0): what most tests want.
    #[must_use]
    pub fn instant(mut self) -> Self {
        self.time_scale = 0.0;
        self
    }

    /// The same backend, recording up to `limit` requests.
    #[must_use]
    pub fn recording(mut self, limit: usize) -> Self {
        self.record = limit;
        self
    }

    fn new(name: String, server: ServerKind) -> Self {
        Self {
            name,
            server,
            model: "sim-model".into(),
            slots: 4,
            cache_tokens: 131_072,
            block_tokens: 16,
            cache_output: true,
            prefill_rate: 8000.0,
            decode_rate: 40.0,
            default_output_tokens: 64,
            time_scale: 1.0,
            loading: Duration::ZERO,
            early_head: true,
            ping_interval: (server == ServerKind::LlamaServer).then_some(PING_INTERVAL),
            metrics: true,
            slots_endpoint: true,
            prompt_tokens_details: false,
            keep_alive: KeepAlive { close_after_stream: server == ServerKind::LlamaServer, ..KeepAlive::default() },
            record: 0,
            max_body: 256 << 20,
        }
    }

    /// Wall time of `tokens` at `rate` tokens/s.
    pub(crate) fn wall_time(&self, tokens: usize, rate: f64) -> Duration {
        let seconds = tokens as f64 / rate * self.time_scale;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
    }
}

/// llama-server's `--sse-ping-interval`.
const PING_INTERVAL: Duration = Duration::from_secs(30);

impl Default for SimConfig {
    fn default() -> Self {
        Self::llama_server("sim")
    }
}
