//! The functional core: which backend takes a request, and what is known of its health.
//!
//! # Layout
//!
//! Read in this order:
//!
//! - [`session`]: what a client sent becomes a [`SessionKey`];
//! - [`hash`]: a key and the names of the backends become a preference order;
//! - [`answer`]: what an answer says of its backend;
//! - [`health`]: what was seen of a backend becomes its state;
//! - [`signals`]: what a backend says of its own load;
//! - [`ttft`]: where the first token is expected soonest;
//! - [`backend`]: one backend's identity, state and load;
//! - [`round_robin`]: whose turn it is, for requests without a session;
//! - [`turns`]: which request is next among those that wait for the same place;
//! - [`displaced`]: the sessions that are away from home;
//! - [`sessions`]: those that are known, and where they were;
//! - [`pool`]: all of it together, `select`;
//! - [`retry`]: whose fault a failure was, and whether the request is sent again;
//! - [`budget`]: how many retries the moment allows;
//! - [`rate`]: how often somebody may do something;
//! - [`clients`]: what each client uses;
//! - [`ttft`]: the policy `least_ttft`, where the first token will probably come soonest;
//! - [`signals`]: what a backend says of its own load;
//! - [`stall`]: when a request has waited for too long;
//! - [`usage`]: prompt and cached tokens, read from the end of a response;
//! - [`window`], [`savings`], [`latency`]: what happened lately; what affinity saved; how long first tokens took;
//! - [`history`]: what a pool did in each piece of the last quarter of an hour;
//! - [`hints`], with [`heavy`]: signs that affinity does less than it could, and what to do.
//!
//! # Invariants
//!
//! Nothing here does I/O, reads a clock, logs or counts a metric: time comes in as [`Millis`], facts go out as
//! values. The same calls give the same answers, so a simulation with a seed can replay any of them.

pub mod answer;
pub mod backend;
pub mod budget;
pub mod clients;
pub mod displaced;
pub mod hash;
pub mod health;
pub mod heavy;
pub mod hints;
pub mod history;
pub mod latency;
pub mod pool;
pub mod rate;
mod recent;
pub mod retry;
pub mod round_robin;
pub mod savings;
pub mod session;
pub mod sessions;
pub mod signals;
pub mod stall;
pub mod ttft;
pub mod turns;
pub mod usage;
pub mod window;

pub use backend::{Backend, BackendId, InFlight, Queued};
pub use hash::Seed;
pub use health::{Cause, Observation, State, Thresholds, Transition};
pub use pool::{Affinity, Ask, Patience, Pool, Reason, Selection, Tried, Verdict};
pub use session::SessionKey;
pub use signals::Signals;

/// Milliseconds since some fixed moment, the same one in all calls to a pool.
pub type Millis = u64;
