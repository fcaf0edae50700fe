//! One binary, by what is tested:
//!
//! - `scope`: where a session holds and where not, one poll at a time
//! - `tasks`: spawned tasks, threads, and many sessions at once (feature `tokio`)
//! - `layer`: the tower layer, alone and around hyper (feature `tower`)
//! - `reqwest`: whole reqwest clients against a server: middleware, redirects, retries (feature `reqwest-middleware`)
//! - `openai`: a whole async-openai client against a server
//! - `server`: that server

#![allow(clippy::unwrap_used, reason = "clippy.toml lets tests do it, and these are their helpers")]

mod openai;
mod scope;
mod server;

#[cfg(feature = "tower")]
mod layer;
#[cfg(feature = "reqwest-middleware")]
mod reqwest;
#[cfg(feature = "tokio")]
mod tasks;

use ingle_client::SessionId;

fn id(text: &str) -> SessionId {
    SessionId::new(text).unwrap()
}

/// The session of the code that asks, as text.
fn here() -> Option<String> {
    ingle_client::current().map(|id| id.to_string())
}

/// A reqwest client builder that an `HTTP_PROXY` in the environment does not lead away from the tests' servers.
fn direct() -> ::reqwest::ClientBuilder {
    ::reqwest::Client::builder().no_proxy()
}
