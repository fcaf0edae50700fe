//! The simulated backends and the load client, over real sockets.
//!
//! | file | what |
//! |---|---|
//! | `raw` | a client that sees every byte |
//! | `answers` | endpoints and JSON of both servers, field by field |
//! | `apis` | the same of Messages and Responses |
//! | `cache` | reuse figures, eviction, slots |
//! | `life` | loading, kill and revival, keep-alive, clients that leave |
//! | `heads` | when the head of a stream comes, pings |
//! | `faults` | each fault on the wire |
//! | `load` | the load client's report |
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod answers;
mod apis;
mod cache;
mod faults;
mod heads;
mod life;
mod load;
mod raw;
