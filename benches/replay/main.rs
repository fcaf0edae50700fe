//! A trace of production traffic through real gateways: how much is recomputed, and how long users wait.
//!
//! ```text
//! cargo bench --bench replay -- --help
//! make replay [TRACE=FILE]
//! ```
//!
//! Simulated backends with prefix caches and the client that plays the trace live in this process, on one thread;
//! every proxy is a process of its own between them. All roles play the same workload, one after the other, in
//! compressed time. `docs/replay.md` explains the model, the roles and the figures.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench that can't run says why and ends")]

mod displaced;
mod noise;
mod options;
mod others;
mod plot;
#[path = "../proxy/process.rs"]
#[allow(dead_code, reason = "the other bench measures memory, too")]
mod process;
mod roles;
mod run;
mod table;
mod weather;

use std::io::BufReader;
use std::process::ExitCode;

use clap::Parser as _;
use ingle_sim::trace::{Calibration, Line, Synthetic, Workload, calibrate, read};

use options::Options;
use run::{Result, Run};

fn main() -> ExitCode {
    let options = Options::parse().settled();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(bench(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("requests failed where none may");
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

/// Whether all is well: with `--quick`, that no request failed.
async fn bench(options: &Options) -> Result<bool> {
    let lines = trace(options)?;
    let mut output = table::preamble(options, &lines);
    println!("{output}");
    let mut raw = table::RAW_HEAD.to_owned();
    let mut failed = false;
    for (scenario, load) in options.cases() {
        let workloads = workloads(options, &lines, load);
        let runs = run::all(options, scenario, &workloads).await?;
        failed |= runs.iter().any(Run::failed);
        let text = table::of(options, scenario, load, &workloads, &runs);
        println!("{text}");
        output += &text;
        runs.iter().for_each(|run| raw += &table::raw(scenario, load, run));
        options.write_plot(scenario, load, &plot::svg(scenario, load, options, &runs))?;
    }
    options.write(&output, &raw)?;
    Ok(!(options.quick && failed))
}

/// A workload for each seed, at this load.
fn workloads(options: &Options, lines: &[Line], load: f64) -> Vec<(Workload, Calibration)> {
    let of = |seed: &u64| {
        let workload = Workload::new(lines, *seed);
        let calibration = calibrate(&workload, options.model(), options.backends, load);
        (workload.scaled(calibration.scale), calibration)
    };
    options.seeds.iter().map(of).collect()
}

fn trace(options: &Options) -> Result<Vec<Line>> {
    let Some(path) = &options.trace else {
        return Ok(Synthetic { requests: options.requests.unwrap_or(6_000), seed: 1 }.lines());
    };
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| told(&error))?;
    read(BufReader::new(file), options.requests.unwrap_or(usize::MAX)).map_err(|error| told(&error))
}

/// The allocator of the `ingle` binary: the harness must not be what is slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
