//! The gateway in front of real llama-servers: what simulated ones can only promise.
//!
//! | file | what holds |
//! |---|---|
//! | `reuse` | sessions reuse as much through the gateway as directly, round robin does not; all count the same tokens |
//! | `killed` | a llama-server killed under load and started again: who fails, who moves, who stays |
//! | `loading` | a llama-server that loads its model is warming: no traffic, no failures |
//! | `prefill` | a llama-server that is killed or frozen during prefills: no stream breaks |
//! | `figures` | prompt and cached tokens of all APIs, exactly as the server counts them |
//! | `keys` | a llama-server with an API key of its own, behind a gateway that asks for another |
//! | `stale` | 1,000 POSTs over connections that llama-server closes whenever it likes |
//! | `departures` | a client that leaves frees its slot |
//! | `uneven` | one long session, many short ones, a server that dies and comes back: who fails, who moves, what is reused |
//!
//! The tools: `servers` (processes of llama-servers), `streams` (streams of each API), `llama` (looks at one), `scenario` and `played` (uneven sessions,
//! and what came of them; shared with `benches/real`), `promtool` (judges `/metrics` after each test), `wait`; and the
//! gateway and the client of `tests/gateway`.
//!
//! `make test-real` sets everything up and runs this. Where `INGLE_REAL_PYTHON` and `INGLE_REAL_MODEL` are not set, each
//! test says that it is skipped, past libtest's capture; with `INGLE_REAL=1` it fails instead. One test runs at a time:
//! two servers already keep two cores busy. Reuse is compared, never times: those are printed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "this binary does not use all of it")]
#[path = "../gateway/client.rs"]
mod client;
#[allow(dead_code, reason = "this binary does not use all of it")]
#[path = "../gateway/h2c.rs"]
mod h2c;
#[allow(dead_code, reason = "this binary does not use all of it")]
#[path = "../gateway/harness.rs"]
mod harness;

mod llama;
mod played;
mod promtool;
#[path = "../simulation/rng.rs"]
mod rng;
mod scenario;
mod servers;
mod streams;
mod wait;

mod departures;
mod figures;
mod keys;
mod killed;
mod loading;
mod prefill;
mod reuse;
mod stale;
mod uneven;
