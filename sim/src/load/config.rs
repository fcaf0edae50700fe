//! What load to make.

use std::fmt;
use std::time::Duration;

use crate::api::Api;

/// Configuration of a load. Start from [`LoadConfig::new`].
#[derive(Clone, Debug, PartialEq)]
pub struct LoadConfig {
    /// Base URLs such as `http://127.0.0.1:8080`, at least one.
    pub urls: Vec<String>,
    /// Which of the URLs a request goes to (default: each session has one).
    pub url_choice: UrlChoice,
    /// Which API the conversations use; all but [`Api::Completions`], which has none (default [`Api::Chat`]).
    pub api: Api,
    /// `model` of each request (default `sim-model`).
    pub model: String,
    /// Conversations, all alive at the same time (default 8).
    pub sessions: usize,
    /// Turns of each conversation (default 5).
    pub turns: usize,
    /// Whether a conversation that is over is followed by a new one, until the load is stopped (default false).
    pub successors: bool,
    /// The first conversations begin evenly spread over this time (default 0: all at once).
    pub ramp: Duration,
    /// Requests in flight at once, at least 1 (default 8).
    pub concurrency: usize,
    /// Pause between an answer and the next turn of the session (default 0).
    pub think_time: Duration,
    /// Text that all sessions begin with, in bytes: a shared system prompt (default 0).
    pub shared_prompt_bytes: usize,
    /// Each session's own text in its first turn, in bytes (default 8000).
    pub first_prompt_bytes: usize,
    /// User text of each later turn, in bytes (default 400).
    pub turn_bytes: usize,
    /// Length of the answers in tokens (default 16).
    pub max_tokens: usize,
    /// Whether answers are streamed (default true).
    pub stream: bool,
    /// Name of the header with the session id; `None` sends none (default `X-Session-Id`).
    pub session_header: Option<String>,
    /// Session ids are this, a dash and a number (default `s`).
    pub session_prefix: String,
    /// Further headers of each request.
    pub headers: Vec<(String, String)>,
    /// Sidecar calls (short, without a session) per turn, on average; 0 to 1 (default 0).
    pub sidecar_ratio: f64,
    /// Prompt of a sidecar call, in bytes (default 400).
    pub sidecar_bytes: usize,
    /// Seed of texts and of sidecar calls: the same seed sends the same requests, in an order that
    /// depends on timing (default 1).
    pub seed: u64,
    /// Longest time of one request (default 10 minutes).
    pub timeout: Duration,
    /// Whether connections are used again (default false). Through a gateway: as you like. Directly to a llama-server:
    /// no, because it closes after each stream without saying so and some requests would meet a closed connection.
    pub keep_connections: bool,
    /// Whether the report has every turn on its own (default false): memory grows with each.
    pub keep_turns: bool,
}

/// Which of several base URLs a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlChoice {
    /// All turns of a session go to the same one.
    PerSession,
    /// Each turn goes to the next one: as clients in front of several gateways do.
    PerRequest,
}

impl LoadConfig {
    /// The default load against these base URLs.
    pub fn new(urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            urls: urls.into_iter().map(Into::into).collect(),
            url_choice: UrlChoice::PerSession,
            api: Api::Chat,
            model: "sim-model".into(),
            sessions: 8,
            turns: 5,
            successors: false,
            ramp: Duration::ZERO,
            concurrency: 8,
            think_time: Duration::ZERO,
            shared_prompt_bytes: 0,
            first_prompt_bytes: 8000,
            turn_bytes: 400,
            max_tokens: 16,
            stream: true,
            session_header: Some("X-Session-Id".into()),
            session_prefix: "s".into(),
            headers: Vec::new(),
            sidecar_ratio: 0.0,
            sidecar_bytes: 400,
            seed: 1,
            timeout: Duration::from_secs(600),
            keep_connections: false,
            keep_turns: false,
        }
    }

    /// The id of session number `index`, counted from 0.
    pub fn session_id(&self, index: usize) -> String {
        format!("{}-{index}", self.session_prefix)
    }
}

/// A load configuration that cannot work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// There is no URL.
    NoUrl,
    /// This is not an `http://` URL.
    BadUrl(String),
    /// This is not a header.
    BadHeader(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUrl => f.write_str("no URL to send requests to"),
            Self::BadUrl(url) => write!(f, "not an http:// URL: {url}"),
            Self::BadHeader(header) => write!(f, "not a header: {header}"),
        }
    }
}

impl std::error::Error for LoadError {}
