//! Which policy reads prompts soonest: the real `core::Pool` on a trace, in a simulated fleet, without sockets.
//!
//! ```text
//! cargo bench --bench policies [-- --trace FILE --seeds 1,2,3 --only TEXT,TEXT]
//! ```
//!
//! A minute. `docs/policies.md` explains the model, the cells and the figures; all but the gateways themselves is
//! `ingle_sim::trace`, which `benches/replay` uses, too.
//!
//! rec: share of the prompt tokens that were computed. Times to the first token are seconds. skew: most over mean in
//! flight. moves: turns that left their session's last machine. x: over the plain hash; + rec: points above its.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a program for the terminal, not a part of the gateway")]
#![allow(clippy::cast_possible_truncation, reason = "tokens, blocks and milliseconds of a trace")]

mod cells;
mod gateway;
mod run;
mod table;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ingle_sim::trace::{Line, Synthetic, Workload, calibrate, read_file};

use cells::{Cell, Kind};
use run::Run;
use table::Row;

/// Simulates ingle's policies on a trace.
#[derive(Debug, Parser)]
#[command(name = "policies")]
struct Options {
    /// A trace in the Mooncake format; without it one of the same shape is made up.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Each decides branches, jitter, session ids and the splitter; figures are of all of them together.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3])]
    seeds: Vec<u64>,
    /// Only cells whose name contains one of these.
    #[arg(long, value_delimiter = ',', value_name = "TEXT")]
    only: Option<Vec<String>>,
    /// What cargo adds to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let lines = match options.lines() {
        Ok(lines) => lines,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let mut scales: HashMap<String, f64> = HashMap::new();
    let mut rows = Vec::new();
    table::head();
    for cell in cells::all().into_iter().filter(|cell| options.wants(cell)) {
        let calibrated = || calibrate(&Workload::new(&lines, options.seeds[0]), &cell.machines, cell.load).scale;
        let scale = *scales.entry(format!("{:?} {}", cell.machines, cell.load)).or_insert_with(calibrated);
        let workload = |seed| (seed, Workload::new(&lines, seed).scaled(scale));
        let workloads: Vec<(u64, Workload)> = options.seeds(&cell).map(workload).collect();
        let row = Row { runs: Kind::ALL.map(|kind| (kind, Run::of(kind, &cell, &workloads))), cell };
        table::print(&row);
        rows.push(row);
    }
    table::verdict(&rows);
    ExitCode::SUCCESS
}

impl Options {
    fn lines(&self) -> Result<Vec<Line>, String> {
        let Some(path) = &self.trace else { return Ok(Synthetic { requests: 6_000, seed: 1 }.lines()) };
        read_file(path, usize::MAX).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn wants(&self, cell: &Cell) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|text| cell.name.contains(text)))
    }

    /// Of an outage few sessions can tell: it takes four times as many.
    fn seeds(&self, cell: &Cell) -> impl Iterator<Item = u64> {
        let more = if cell.outage { 4 } else { 1 };
        self.seeds.iter().flat_map(move |seed| (0..more).map(move |i| seed + 1000 * i))
    }
}
