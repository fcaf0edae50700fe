//! Simulated LLM servers and a client that loads them.
//!
//! A [`SimServer`] answers as a real llama-server or vLLM does: the same endpoints, the same JSON and SSE, the same
//! usage figures, a prefix KV cache, slots and a queue, prefill and decode time, and [`Fault`]s on request. The
//! [`load`] module plays multi-turn sessions against any such server or proxy and reports the results.
//!
//! As from current servers, the head of a stream comes first, then the prompt is computed, then the events come: see
//! [`SimConfig::early_head`] and [`SimConfig::ping_interval`].
//!
//! ```
//! use ingle_sim::load::{LoadConfig, LoadRun};
//! use ingle_sim::{Fault, SimConfig, SimServer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gpu0 = SimServer::start(SimConfig::llama_server("gpu0").instant()).await?;
//!
//! let load = LoadConfig { sessions: 2, turns: 3, ..LoadConfig::new([gpu0.url()]) };
//! let report = LoadRun::start(load.clone())?.finish().await;
//! assert_eq!(report.succeeded, 6);
//! assert!(report.later_turns.reuse().unwrap() > 0.9);
//!
//! gpu0.inject(Fault::status_retry_after(503, 1));
//! let report = LoadRun::start(load)?.finish().await;
//! assert_eq!(report.failed(), 6);
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | `config` | [`SimConfig`]: what one backend is like |
//! | `server` | [`SimServer`]: listener, kill, revive, loading |
//! | `connection`, `request`, `wire` | one connection; reading HTTP/1; writing it, right or wrong |
//! | `api`, `routes` | which endpoint answers |
//! | `completion`, `prompt` | one completion from the queue to its last event; its request |
//! | `shape` | the JSON and the events of llama-server and of vLLM |
//! | `engine`, `cache`, `tokens` | slots and serial prefill; LRU of blocks; text to tokens to blocks |
//! | `faults`, `stats` | what goes wrong; what was seen |
//! | [`load`] | the load client and its report |
//! | [`trace`] | production traffic, replayed: inferred sessions, machines on the clock of the trace, simulation, sockets |
//!
//! # What is deliberately absent
//!
//! No TLS, no HTTP/2: neither real server speaks them. No model: generated text is four letters a token. No
//! continuous batching: decode speed does not depend on how many requests decode. Blocks of running requests are
//! not pinned. Generation endpoints other than those of [`Api`] are 404, and no response is stored.

mod api;
mod cache;
mod completion;
mod config;
mod connection;
mod engine;
mod faults;
pub mod load;
mod prompt;
mod request;
mod routes;
mod server;
mod shape;
mod stats;
mod tokens;
pub mod trace;
mod wire;

pub use api::Api;
pub use completion::generated_text;
pub use config::{KeepAlive, ServerKind, SimConfig};
pub use faults::{BeforeToken, Ending, Fault, FaultRule, Scope};
pub use server::SimServer;
pub use stats::{Disconnect, Phase, RecordedRequest, Stats};
pub use tokens::{BYTES_PER_TOKEN, token_count};
