//! Placement through the public API of the core: which backend takes a request, and why.
//!
//! - [`home`]: a key's home and preference order; what moves when a config changes; shares; tiers
//! - [`vectors`]: the published formula and its test vectors, read from `docs/placement.md`
//! - [`balance`]: requests without a session; fail-open; the in-flight guard
//! - [`stay_put`]: sessions away from home
//! - [`rebuild`]: what outlives a change of the config
//! - [`bounded`]: who spills, who waits and who is refused when there is much to do
//! - [`slow_start`]: backends that recovered or joined
//! - [`trials`]: backends that have to show whether they answer well
//! - [`drain`]: backends that an operator takes out of rotation
//! - [`faster`]: what `least_ttft` makes of a pool
//! - [`known`]: the table of known sessions, and what is explained of one
//! - [`fleet`]: pools to test with
//!
//! Keys are fixed wherever shares are judged, so such a test gives the same answer in every run.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "placement/balance.rs"]
mod balance;
#[path = "placement/bounded.rs"]
mod bounded;
#[path = "placement/drain.rs"]
mod drain;
#[path = "placement/faster.rs"]
mod faster;
#[path = "placement/fleet.rs"]
mod fleet;
#[path = "placement/home.rs"]
mod home;
#[path = "placement/known.rs"]
mod known;
#[path = "placement/rebuild.rs"]
mod rebuild;
#[path = "placement/slow_start.rs"]
mod slow_start;
#[path = "placement/stay_put.rs"]
mod stay_put;
#[path = "placement/trials.rs"]
mod trials;
#[path = "placement/vectors.rs"]
mod vectors;
