//! One line for each request.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};

use serde::Serialize;

use crate::config;
use crate::log;

/// Where requests are logged: nowhere, or standard error, through the same bounded buffer as every other line.
pub struct AccessLog {
    format: AtomicU8,
}

/// What a line says. Sizes are in bytes, times in milliseconds.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// When the request ended, RFC 3339 in UTC.
    pub time: String,
    /// The method.
    pub method: &'a str,
    /// The path, without its query, which may hold secrets.
    pub path: &'a str,
    /// Where the client is: the peer, or whom a trusted proxy forwards.
    pub client: Option<IpAddr>,
    /// Whose API key it showed.
    pub key: Option<&'a str>,
    /// The status that the client got; 499 if it left.
    pub status: u16,
    /// The pool.
    pub pool: &'a str,
    /// The last backend tried.
    pub backend: Option<&'a str>,
    /// What became of the affinity.
    pub affinity: Option<&'static str>,
    /// Why it is not at home, or not where its session was.
    pub reason: Option<&'static str>,
    /// How many backends were tried, each try counted.
    pub attempts: u32,
    /// The request's body.
    pub bytes_in: u64,
    /// The response's body.
    pub bytes_out: u64,
    /// To the first byte of the response.
    pub first_byte_ms: Option<u64>,
    /// To the first output of a stream, or the first byte of another response's body.
    pub first_token_ms: Option<u64>,
    /// To its end.
    pub total_ms: u64,
    /// Tokens of the prompt, as the backend reports them.
    pub prompt_tokens: Option<u64>,
    /// Those of them that were in the KV cache.
    pub cached_tokens: Option<u64>,
    /// The hash of the session.
    pub session: Option<String>,
    /// The request id, the client's own or ours.
    pub request_id: &'a str,
    /// What went wrong.
    pub error: Option<&'a str>,
}

impl AccessLog {
    /// A log of the configured format.
    #[must_use]
    pub fn new(format: config::AccessLog) -> AccessLog {
        AccessLog { format: AtomicU8::new(format as u8) }
    }

    /// From now on lines are of this format.
    pub fn set_format(&self, format: config::AccessLog) {
        self.format.store(format as u8, Ordering::Relaxed);
    }

    fn format(&self) -> config::AccessLog {
        let all = [config::AccessLog::Off, config::AccessLog::Human, config::AccessLog::Json];
        let format = self.format.load(Ordering::Relaxed);
        all.into_iter().find(|one| *one as u8 == format).unwrap_or(config::AccessLog::Off)
    }

    /// Whether lines are written at all.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.format() != config::AccessLog::Off
    }

    /// Writes a line.
    pub fn write(&self, line: &Line<'_>) {
        let text = match self.format() {
            config::AccessLog::Off => return,
            config::AccessLog::Human => human(line),
            config::AccessLog::Json => json(line),
        };
        log::stderr().push(text.as_bytes());
    }
}

fn json(line: &Line<'_>) -> String {
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}

fn human(line: &Line<'_>) -> String {
    let time = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms}ms"));
    let count = |tokens: Option<u64>| tokens.map_or_else(|| "-".to_owned(), |tokens| tokens.to_string());
    let mut text = format!(
        "{} {} {} {} client={}{} backend={} affinity={}{} attempts={} in={} out={} first_byte={} first_token={} total={}ms prompt={} cached={} session={} id={:?}",
        line.time,
        line.method,
        line.path.escape_debug(),
        line.status,
        line.client.map_or_else(|| "-".to_owned(), |client| client.to_string()),
        line.key.map_or_else(String::new, |key| format!(" key={key}")),
        line.backend.unwrap_or("-"),
        line.affinity.unwrap_or("-"),
        line.reason.map_or_else(String::new, |reason| format!(" reason={reason}")),
        line.attempts,
        line.bytes_in,
        line.bytes_out,
        time(line.first_byte_ms),
        time(line.first_token_ms),
        line.total_ms,
        count(line.prompt_tokens),
        count(line.cached_tokens),
        line.session.as_deref().unwrap_or("-"),
        line.request_id,
    );
    if let Some(error) = line.error {
        text.push_str(&format!(" error={error:?}"));
    }
    text.push('\n');
    text
}
