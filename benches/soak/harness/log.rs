//! The gateway's log, while it is written.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

/// What is known of a log that may be long.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    /// Warnings and errors, and what is no log line, by what they say.
    complaints: BTreeMap<String, u64>,
    /// What somebody waits for.
    notable: Vec<Value>,
}

impl Log {
    /// Reads a log to its end, on a thread of its own.
    pub(crate) fn read(&self, from: impl Read + Send + 'static) {
        let log = self.clone();
        std::thread::spawn(move || {
            BufReader::new(from).lines().map_while(Result::ok).for_each(|line| log.take(&line));
        });
    }

    /// How often each warning, error and other complaint was made.
    pub(crate) fn complaints(&self) -> BTreeMap<String, u64> {
        self.0.lock().complaints.clone()
    }

    /// Notable lines whose message begins like this.
    pub(crate) fn notable(&self, message: &str) -> Vec<Value> {
        let begins = |line: &&Value| line["message"].as_str().is_some_and(|text| text.starts_with(message));
        self.0.lock().notable.iter().filter(begins).cloned().collect()
    }

    fn take(&self, line: &str) {
        let mut lines = self.0.lock();
        let Ok(parsed) = serde_json::from_str::<Value>(line) else {
            return lines.complain(format!("(no log line) {line}"));
        };
        let message = parsed["message"].as_str().unwrap_or_default();
        if matches!(parsed["level"].as_str(), Some("WARN" | "ERROR")) {
            let error = parsed["error"].as_str().map(|error| format!(": {error}")).unwrap_or_default();
            lines.complain(format!("{} {message}{error}", parsed["level"].as_str().unwrap_or_default()));
        }
        if NOTABLE.iter().any(|notable| message.starts_with(notable)) {
            lines.notable.push(parsed);
        }
    }
}

impl Lines {
    fn complain(&mut self, text: String) {
        // Numbers and names make no kind of their own.
        let kind: String = text.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).take(160).collect();
        let mut kind = kind;
        while kind.contains("##") {
            kind = kind.replace("##", "#");
        }
        let known = self.complaints.contains_key(&kind) || self.complaints.len() < MOST_KINDS;
        *self.complaints.entry(if known { kind } else { "(others)".to_owned() }).or_default() += 1;
    }
}

/// Begun with in lines that somebody waits for: as many as an operator does things.
const NOTABLE: [&str; 7] = [
    "listening for",
    "config reloaded",
    "config not reloaded",
    "took over from the old process",
    "draining",
    "drained, ingle ends",
    "ingle ends",
];
const MOST_KINDS: usize = 200;

#[cfg(test)]
#[allow(dead_code, unused_imports, reason = "for `tests/soak.rs`: a bench has no tests")]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_counted_by_kind_and_panics_are_among_them() {
        let log = Log::default();
        for line in [
            r#"{"level":"WARN","message":"it took 17 ms","error":"no"}"#,
            r#"{"level":"WARN","message":"it took 3 ms","error":"no"}"#,
            r#"{"level":"INFO","message":"config reloaded: nothing changes"}"#,
            "thread 'ingle' panicked at src/x.rs:1:1:",
        ] {
            log.take(line);
        }
        let complaints = log.complaints();
        assert_eq!(complaints["WARN it took # ms: no"], 2);
        assert!(complaints.keys().any(|kind| kind.contains("panicked")) && complaints.len() == 2);
        assert_eq!((log.notable("config reloaded").len(), log.notable("draining").len()), (1, 0));
    }
}
