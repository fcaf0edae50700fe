//! The targets of the fuzzer, as tests: every input of `fuzz/corpus`, and a few thousand more that are made of them.
//!
//! `make fuzz` runs the same functions for as long as it is asked to, guided by coverage (docs/fuzzing.md). Each states
//! properties, most of them against a model that knows nothing of the code.
//!
//! - `INGLE_FUZZ_SEED`: other inputs than those of seed 1; a failure prints it, and the input.
//! - `INGLE_FUZZ_RUNS`: how many for each target.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test fails by panicking")]

#[path = "fuzz/config.rs"]
mod config;
#[path = "fuzz/corpus.rs"]
mod corpus;
#[path = "fuzz/events.rs"]
mod events;
#[path = "fuzz/identity.rs"]
mod identity;
#[path = "fuzz/input.rs"]
mod input;
#[path = "fuzz/keys.rs"]
mod keys;
#[path = "fuzz/reader.rs"]
mod reader;
#[path = "fuzz/response.rs"]
mod response;
#[path = "fuzz/retry.rs"]
mod retry;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "fuzz/session.rs"]
mod session;
#[path = "fuzz/signals.rs"]
mod signals;
#[path = "fuzz/usage.rs"]
mod usage;

use corpus::replay;

#[test]
fn a_config_is_valid_or_every_mistake_has_its_place() {
    replay("config", 300, config::check);
}

#[test]
fn a_session_is_what_the_contract_says() {
    replay("session", 20_000, session::check);
}

#[test]
fn usage_is_what_the_response_reports() {
    replay("usage", 3000, usage::check);
}

#[test]
fn first_output_is_found_in_any_stream() {
    replay("events", 20_000, events::check);
}

#[test]
fn what_is_tried_again_is_what_the_readme_says() {
    replay("retry", 20_000, retry::check);
}

#[test]
fn signals_are_read_or_nothing_is_known() {
    replay("signals", 10_000, signals::check);
}

#[test]
fn response_is_read_as_the_rfc_says() {
    replay("response", 20_000, response::check);
}

#[test]
fn a_file_of_keys_is_valid_or_shows_nothing() {
    replay("keys", 20_000, keys::check);
}

#[test]
fn nothing_shows_a_key_whatever_is_in_its_file() {
    replay("identity", 1000, identity::check);
}
