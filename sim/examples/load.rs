//! Plays sessions against real or simulated servers and prints the report.
//!
//! `cargo run -p ingle-sim --example load URL [SESSIONS TURNS CONCURRENCY FIRST_PROMPT_BYTES [keep]]`
#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::error::Error;

use ingle_sim::load::{LoadConfig, LoadRun};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut load = LoadConfig::new([arguments.next().ok_or("URL missing")?]);
    for field in [&mut load.sessions, &mut load.turns, &mut load.concurrency, &mut load.first_prompt_bytes] {
        if let Some(value) = arguments.next() {
            *field = value.parse()?;
        }
    }
    load.keep_connections = arguments.next().is_some_and(|argument| argument == "keep");
    println!("{}", LoadRun::start(load)?.finish().await);
    Ok(())
}
