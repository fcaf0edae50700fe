//! ingle: a session-affine load balancer for self-hosted LLM servers.
//!
//! Every turn of a session goes to the backend whose KV cache has the turns before. A functional core decides, a thin
//! shell around Pingora does. This page is the map; `docs/architecture.md` has the reasons.
//!
//! # Layout
//!
//! From the bottom up. A part uses those above it in this table, never one of its own line or below:
//!
//! | part | what |
//! |---|---|
//! | [`tls`], [`http1`], [`sse`], [`log`] | certificates and keys, from PEM to what rustls takes; HTTP/1.1 on the wire; streams of events, up to their first output; lines on their way to standard error |
//! | [`config`] | the YAML file; a [`config::Config`] that exists is valid |
//! | [`core`] | the decisions: where a session's home is, who is healthy, who is next, who may try again |
//! | [`api`] | the figures and errors of each API |
//! | [`clock`], [`access_log`], [`gauge`], [`kept`] | the one clock of the process, jitter; one line for each request; how much of something is in use; files that are followed |
//! | [`metrics`] | every metric name, label and bucket |
//! | [`certificates`] | the certificates in force, of listeners and towards backends; they follow their files |
//! | [`link`], [`watch`] | the gateway's end of the wire to one backend: address, attempts under way, last error; how well affinity works |
//! | [`snapshot`] | a config in force and what was built from it; a request keeps the one that it began with |
//! | [`reload`], [`access`] | what a new config changes, and how many sessions it moves; the API keys in force |
//! | [`gateway`] | what the parts of the shell share |
//! | [`proxy`], [`probe`], [`signals`], [`admin`] | traffic, through our own relay; active checks; the backends' own figures; the admin listener |
//! | [`server`] | the life of the process: bind, serve, reload, drain, hand over |
//! | [`cli`] | one file for each subcommand |
//!
//! To follow one request, begin in [`proxy`], whose table leads through its files; to follow one decision, in [`core`].
//!
//! # Invariants
//!
//! What is deliberately absent:
//!
//! - `core` has no tokio, no Pingora, no clock, no log and no metric: time comes in as an argument, facts go out as values;
//! - placement knows no address, no health and no load: names, weights, priorities and the seed alone make an order, so
//!   two gateways agree without talking; availability only filters it;
//! - no selection asks a table of sessions, but for those that are away from home; every table is bounded;
//! - a session id is kept nowhere: a [`core::SessionKey`] is its hash, so no log, label or page can show it;
//! - nothing is counted at the end of a request by a hook, which may not be called: guards count when they drop;
//! - no response is buffered, and no request goes to a second backend once a byte of a response reached the client;
//! - there is no place that checks a [`config::Config`] again, and none that makes one but [`config::Config::parse`];
//! - there is no `unsafe`, and nothing that grows without a bound.
//!
//! `tests/tidy.rs` keeps the order of the parts and the purity of the core.

#![forbid(unsafe_code)]

pub mod access;
pub mod access_log;
pub mod admin;
pub mod api;
pub mod certificates;
pub mod cli;
pub mod clock;
pub mod config;
pub mod core;
pub mod gateway;
pub mod gauge;
pub mod http1;
pub mod kept;
pub mod link;
pub mod log;
pub mod metrics;
pub mod probe;
pub mod proxy;
pub mod reload;
pub mod server;
pub mod signals;
pub mod snapshot;
pub mod sse;
pub mod tls;
pub mod watch;
