//! ingle: a session-affine load balancer for self-hosted LLM servers.

pub mod access_log;
pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod core;
pub mod gateway;
pub mod link;
pub mod metrics;
pub mod probe;
pub mod proxy;
pub mod server;
pub mod snapshot;
