//! The house rules, as tests: what the documents say is what the code does, and imports, lengths and words are as
//! CONTRIBUTING.md wants them. Each message says what to do.
//!
//! - [`code`]: imports run one way, the core is pure, files and functions are short, nothing is left to do
//! - [`tables`]: the README's tables of config keys, metrics, outcomes and states are the code's
//! - [`papers`]: links, paths, commands, `make` targets, example configs and tests that documents name
//! - [`deploy`]: shipped configs are valid; rules and dashboard ask for metrics that there are
//! - [`files`], [`markdown`]: what the others read with

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/deploy.rs"]
mod deploy;
#[path = "tidy/files.rs"]
mod files;
#[path = "tidy/markdown.rs"]
mod markdown;
#[path = "tidy/papers.rs"]
mod papers;
#[path = "tidy/tables.rs"]
mod tables;

/// Fails with all findings at once, each on a line of its own.
#[track_caller]
fn none(findings: &[String], what_to_do: &str) {
    assert!(findings.is_empty(), "{what_to_do}\n  {}\n", findings.join("\n  "));
}
