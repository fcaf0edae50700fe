//! Placement through the public API of the core: which backend takes a request, and why.
//!
//! - [`home`]: a key's home and preference order; what moves when a config changes; shares; tiers
//! - [`vectors`]: the published formula and its test vectors, read from `docs/placement.md`
//! - [`balance`]: requests without a session; fail-open; the in-flight guard
//! - [`stay_put`]: sessions away from home
//! - [`rebuild`]: what outlives a change of the config
//! - [`fleet`]: pools to test with
//!
//! Keys are fixed wherever shares are judged, so such a test gives the same answer in every run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "placement/balance.rs"]
mod balance;
#[path = "placement/fleet.rs"]
mod fleet;
#[path = "placement/home.rs"]
mod home;
#[path = "placement/rebuild.rs"]
mod rebuild;
#[path = "placement/stay_put.rs"]
mod stay_put;
#[path = "placement/vectors.rs"]
mod vectors;
