//! The simulated backends and the load client, over real sockets.
//!
//! | file | what |
//! |---|---|
//! | `raw` | a client that sees every byte |
//! | `answers` | endpoints and JSON of both servers, field by field |
//! | `cache` | reuse figures, eviction, slots |
//! | `life` | loading, kill and revival, keep-alive, clients that leave |
//! | `faults` | each fault on the wire |
//! | `load` | the load client's report |
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod answers;
mod cache;
mod faults;
mod life;
mod load;
mod raw;
