//! Hostile clients against the real gateway, in front of a backend that remembers every byte.
//!
//! After each case: the gateway still serves, everything it took has been given back, and nothing reached the backend
//! but the well-formed requests that the table names. Hostile backends are in [`upstream`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // all of it is test code

mod backend;
mod cases;
mod client;
mod frames;
mod fuzz;
mod grammar;
mod h2c;
mod judge;
mod protocol;
#[path = "../fuzz/reader.rs"]
mod reader;
mod session;
mod slow;
mod strict;
mod table;
mod upstream;
mod world;

use table::{bytes, chunks, connection, framing, size, target};
use world::World;

/// Long enough for any case on a busy machine; the client says by itself when it has no more.
const LONG: &str = "5s";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn framing_leaves_no_room_for_a_second_request() {
    let world = World::start(LONG).await;
    let all = [framing::both(), framing::transfer_encoding(), framing::content_length(), framing::versions()];
    judge::run(&world, all.into_iter().flatten().collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_chunks_reach_no_backend() {
    let world = World::start(LONG).await;
    judge::run(&world, [chunks::chunks(), chunks::trailers()].into_iter().flatten().collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_no_head_may_have_reach_no_backend() {
    judge::run(&World::start(LONG).await, bytes::bytes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_and_methods_are_unambiguous() {
    let world = World::start(LONG).await;
    judge::run(&world, [target::targets(), target::methods()].into_iter().flatten().collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_bounded() {
    let _alone = fuzz::MEMORY.lock().await;
    judge::run(&World::start(LONG).await, size::sizes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_keep_their_own_headers_and_bytes() {
    let world = World::start(LONG).await;
    let all = [connection::nominations(), connection::upgrades(), connection::pipelines()];
    judge::run(&world, all.into_iter().flatten().collect()).await;
}
