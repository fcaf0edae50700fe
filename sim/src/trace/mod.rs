//! Production traffic, replayed: a trace in the Mooncake format, inferred sessions, backends with prefix caches.
//!
//! - [`Line`]: one request of a trace, read from a file or made up by [`Synthetic`];
//! - [`sessions`]: which lines are turns of one session;
//! - [`Workload`]: the turns, at their times, with sizes of bodies;
//! - [`Machine`]: one backend on the clock of the trace: serial prefill, slots, LRU of blocks;
//! - [`Simulation`]: a workload on a fleet of machines, placed by a [`Policy`], without sockets or waiting;
//! - [`Oracle`], [`RoundRobin`], [`Pinned`]: policies; [`calibrate`]: how fast a trace must run for a wanted load;
//! - [`Summary`](figures::Summary), [`figures`]: mean, percentiles, moves;
//! - [`Fleet`], [`Player`]: the same machines behind real sockets, in compressed time, and the client that plays the
//!   workload against them or against a proxy.
//!
//! Times are seconds of the trace as `f64`, from the beginning of a replay; sizes are tokens unless it says bytes.

mod calibrate;
pub mod figures;
mod fleet;
mod line;
mod machine;
mod player;
mod policy;
pub mod sessions;
mod simulation;
mod synthetic;
mod workload;

pub use calibrate::{Calibration, calibrate};
pub use fleet::{Fleet, FleetConfig, Head};
pub use line::{BLOCK_TOKENS, Line, TraceError, read};
pub use machine::{Job, Machine, Model, Step};
pub use player::{Player, PlayerConfig, Target};
pub use policy::{Ask, Oracle, Pinned, Policy, RoundRobin};
pub use simulation::{Outage, Outcome, Simulation};
pub use synthetic::Synthetic;
pub use workload::{Turn, Workload};
