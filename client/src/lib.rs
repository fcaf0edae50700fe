//! One session per conversation, so that the ingle gateway sends every turn to the GPU that holds its KV cache.
//!
//! The session is ambient: set it once around a turn of the conversation, and every HTTP call made inside carries
//! `X-Session-Id`. Calls outside do not. Nothing in between has to pass an id along.
//!
//! ```
//! # #[cfg(feature = "tower")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use ingle_client::{Affinity, AffinityLayer, SessionExt, SessionId};
//!
//! // Once: where sessions may go. There are adapters for tower and reqwest-middleware.
//! let layer = AffinityLayer::new(Affinity::for_origin("http://gateway:8080")?);
//!
//! // Per turn: whose calls these are.
//! let id = SessionId::new("chat-7")?;
//! let turn = async { /* call the model, run tools, call it again */ }.in_session(id);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "tower"))]
//! # fn main() {}
//! ```
//!
//! # Layout
//!
//! - [`SessionId`]: what the gateway takes for a session, checked here.
//! - [`SessionExt`]: [`in_session`](SessionExt::in_session) and its kin, for futures and streams; [`sync_scope`] for
//!   blocking code; `spawn` for tasks; [`current`] for adapters.
//! - [`Affinity`]: which requests carry the session, to which origins, in which header.
//! - Adapters: `AffinityLayer`, `AffinityMiddleware`, and for any other client [`Affinity::apply`].
//!
//! # Features
//!
//! None is on by default; all of the above without a condition below is always there.
//!
//! | feature | adds |
//! |---|---|
//! | `hash` | `SessionId::hashed`: ids from any bytes |
//! | `tokio` | `spawn`, `spawn_blocking` |
//! | `tower` | `AffinityLayer` for `http::Request` (hyper, tonic, tower-http), with `reqwest` for `reqwest::Request` |
//! | `reqwest` | `same_origin_redirects`, `Affinity::apply_to_reqwest` |
//! | `reqwest-middleware` | `AffinityMiddleware` (rig takes such a client, too) |
//!
//! # Invariants
//!
//! - No request carries a session to an origin that was not named.
//! - The session of one future is never seen by another, on whatever threads they run; a panic changes nothing.
//! - No runtime is needed, and there is no global state but one thread-local.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod affinity;
mod in_session;
#[cfg(feature = "tower")]
mod layer;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod origin;
#[cfg(feature = "reqwest")]
mod redirect;
mod scope;
mod session_id;
#[cfg(feature = "tokio")]
mod task;

pub use affinity::{Affinity, Applied, NoSession, X_SESSION_ID};
pub use in_session::{InSession, SessionExt};
#[cfg(feature = "tower")]
pub use layer::{AffinityLayer, AffinityService};
#[cfg(feature = "reqwest-middleware")]
pub use middleware::AffinityMiddleware;
pub use origin::InvalidOrigin;
#[cfg(feature = "reqwest")]
pub use redirect::same_origin_redirects;
pub use scope::{current, sync_scope};
pub use session_id::{InvalidSessionId, SessionId};
#[cfg(feature = "tokio")]
pub use task::{spawn, spawn_blocking};

/// The README's code is compiled with the doc tests.
#[cfg(all(doctest, feature = "hash", feature = "reqwest-middleware", feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
