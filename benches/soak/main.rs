//! The soak: hours of mixed load, clients that leave, reloads, upgrades and kills against the real binary.
//!
//! ```text
//! make soak ARGS="--minutes 240"
//! cargo bench --profile fast --bench soak [-- --minutes 45 --write docs/soak.md]
//! ```
//!
//! It fails if anything grows or any request fails that nothing explains; what that means is in `docs/soak.md`, where
//! `--write` puts the tables, between the two marks.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench that can't run says why and ends")]
#![expect(clippy::cast_possible_truncation, reason = "figures for people")]

#[allow(dead_code, reason = "CPU time is the business of benches/pressure")]
mod harness;

use std::process::ExitCode;

use harness::options::{Options, USAGE};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let Some(options) = Options::parse(&args) else {
        println!("{USAGE}");
        return ExitCode::from(2);
    };
    // One thread: the client shall leave most of the machine to the gateway.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let soak = async {
        tokio::select! {
            report = harness::soak(&options) => report,
            // Its processes end with it.
            _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
        }
    };
    let report = match runtime.block_on(soak) {
        Ok(report) => report,
        Err(why) => {
            println!("the soak did not come to its end: {why}");
            return ExitCode::FAILURE;
        }
    };
    let text = report.text();
    println!("{text}");
    if let Some(file) = &options.write {
        harness::document::write(file, &text);
    }
    let wrong = report.wrong();
    wrong.iter().for_each(|what| println!("WRONG: {what}"));
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The allocator of the `ingle` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
