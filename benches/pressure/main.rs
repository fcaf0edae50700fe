//! The gateway under pressure: many connections, slow clients, hostile input, and a stop with streams under way.
//!
//! ```text
//! make pressure
//! cargo bench --profile fast --bench pressure [-- --only crowd,slow,cost,drain --write docs/pressure.md]
//! ```
//!
//! Everything is measured at the real binary, a process of its own. What must hold is in `docs/pressure.md`, where
//! `--write` puts the tables, between the two marks; the exit code is 1 if something does not.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench that can't run says why and ends")]
#![expect(clippy::cast_possible_truncation, reason = "figures for people")]
#![allow(clippy::unwrap_used, reason = "tests/hostile is test code")]

#[allow(dead_code, reason = "frames need its patience")]
#[path = "../../tests/hostile/cases.rs"]
mod cases;
mod cost;
mod crowd;
mod drain;
#[allow(dead_code, reason = "the frames, not what becomes of them")]
#[path = "../../tests/hostile/frames.rs"]
mod frames;
#[allow(dead_code, reason = "the soak uses the rest")]
#[path = "../soak/harness/mod.rs"]
mod harness;
mod shapes;
mod slow;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use table::Findings;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let Some(options) = Options::parse(&args) else {
        println!("usage: [--only crowd,slow,cost,drain] [--rounds N] [--seconds N] [--copies N] [--write FILE]");
        return ExitCode::from(2);
    };
    harness::process::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let measured = async {
        tokio::select! {
            findings = measure(&options) => Some(findings),
            // Its processes end with it.
            _ = tokio::signal::ctrl_c() => None,
        }
    };
    let Some(findings) = runtime.block_on(measured) else { return ExitCode::FAILURE };
    let text = findings.text();
    println!("{text}");
    if let Some(file) = &options.write {
        harness::document::write(file, &text);
    }
    let wrong = findings.wrong();
    wrong.iter().for_each(|what| println!("WRONG: {what}"));
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How much is done.
struct Options {
    only: Option<Vec<String>>,
    /// Quiet and besieged minutes, and how long such a minute is.
    rounds: usize,
    seconds: u64,
    /// Of each hostile input, at once.
    copies: usize,
    write: Option<PathBuf>,
}

impl Options {
    fn parse(args: &[String]) -> Option<Options> {
        let mut options = Options { only: None, rounds: 2, seconds: 60, copies: 100, write: None };
        for pair in args.chunks(2) {
            let [name, value] = pair else { return None };
            match name.as_str() {
                "--only" => options.only = Some(value.split(',').map(str::to_owned).collect()),
                "--rounds" => options.rounds = value.parse().ok().filter(|n| *n > 0)?,
                "--seconds" => options.seconds = value.parse().ok().filter(|n| *n > 0)?,
                "--copies" => options.copies = value.parse().ok().filter(|n| *n > 0)?,
                "--write" => options.write = Some(value.into()),
                _ => return None,
            }
        }
        Some(options)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == part))
    }
}

/// A part that can't be measured does not take the others with it.
async fn measure(options: &Options) -> Findings {
    let mut findings = Findings::default();
    if options.wants("drain") {
        findings.drained = findings.keep(drain::run(50).await);
    }
    if options.wants("cost") {
        findings.costs = findings.keep(cost::all(options.copies, COST_ROUNDS).await).unwrap_or_default();
    }
    if options.wants("slow") {
        findings.slow = findings.keep(slow::run(options.rounds, options.seconds).await);
    }
    if options.wants("crowd") {
        findings.crowd = findings.keep(crowd::run(10_000, 2_000).await);
    }
    findings
}

/// The median counts.
const COST_ROUNDS: usize = 3;

/// The allocator of the `ingle` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
