//! Which policy reads prompts soonest: the real `core::Pool` on a trace, in a simulated fleet, without sockets.
//!
//! ```text
//! cargo bench --bench policies [-- --trace FILE --seeds 1,2,3 --only TEXT,TEXT]
//! ```
//!
//! Half a minute. Without `--trace` a trace is made up. The published ones are kvcache-ai/Mooncake's, `FAST25-release/traces`. `--only`
//! picks cells whose name has one of the texts.
//!
//! A machine reads prompts one after the other (8,000 tokens a second of what is not cached), answers 40 tokens a second
//! each, holds a slot (of 16) from a prompt's start to its answer's end, and keeps K blocks of 512 tokens, least recently
//! used out first. A turn begins a second after its parent's end, or later. Arrival times are scaled until a greedy
//! oracle, which sees all caches and queues, keeps the machines' prefill (or slots) busy for the share u. Gateways see
//! session ids, body lengths (4 bytes a token, sigma .15 per session) and their own first tokens and ends.
//!
//! rec: share of the prompt tokens that were computed. Times to the first token are seconds. skew: most over mean in
//! flight. moves: turns that left their session's last machine. x: over the plain hash; + rec: points above its.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a program for the terminal, not a part of the gateway")]
#![allow(clippy::cast_possible_truncation, reason = "tokens, blocks and milliseconds of a trace")]

mod cells;
mod figures;
mod gateways;
mod machine;
mod oracle;
mod simulation;
mod table;
mod trace;
mod workload;

use std::collections::HashMap;
use std::process::ExitCode;

use cells::{Cell, Kind};
use figures::Figures;
use gateways::Gateways;
use oracle::{Oracle, calibrate};
use simulation::{Scene, play};
use table::Row;
use trace::Line;
use workload::Workload;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let options = match Options::parse(&args) {
        Ok(options) => options,
        Err(why) => {
            println!("{why}\nusage: [--trace FILE] [--seeds N,N] [--only TEXT,TEXT]");
            return ExitCode::from(2);
        }
    };
    let mut scales: HashMap<String, f64> = HashMap::new();
    let mut rows = Vec::new();
    table::head();
    for cell in cells::all() {
        if !options.only.is_empty() && !options.only.iter().any(|only| cell.name.contains(only)) {
            continue;
        }
        let scale = scales
            .entry(format!("{:?} {}", cell.machines, cell.load))
            .or_insert_with(|| calibrate(&Workload::new(&options.lines, options.seeds[0]), &cell.machines, cell.load));
        let figures = Kind::ALL.map(|kind| (kind, run(kind, &cell, *scale, &options))).to_vec();
        rows.push(Row { cell, figures });
        rows.last().into_iter().for_each(table::print);
    }
    table::verdict(&rows);
    ExitCode::SUCCESS
}

/// The mean over the seeds. Of an outage few sessions can tell: it takes four times as many.
fn run(kind: Kind, cell: &Cell, scale: f64, options: &Options) -> Figures {
    let run = |seed: u64| {
        let workload = Workload::new(&options.lines, seed);
        let scene = Scene { machines: cell.machines.clone(), scale, outage: cell.outage, poll: cell.poll };
        let outcome = match kind {
            Kind::Oracle => play(&workload, &scene, &mut Oracle { lines: &options.lines }),
            _ => play(&workload, &scene, &mut Gateways::new(kind, cell, &workload)),
        };
        Figures::of(&workload, &outcome, &Gateways::homes(cell, &workload))
    };
    let more = if cell.outage { 4 } else { 1 };
    let seeds = options.seeds.iter().flat_map(|seed| (0..more).map(move |i| seed + 1000 * i));
    Figures::mean(&seeds.map(run).collect::<Vec<_>>())
}

struct Options {
    lines: Vec<Line>,
    seeds: Vec<u64>,
    only: Vec<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Options, String> {
        let (mut trace, mut seeds, mut only) = (None, vec![1, 2, 3], Vec::new());
        for pair in args.chunks(2) {
            let [name, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
            match name.as_str() {
                "--trace" => trace = Some(trace::read(value.as_ref())?),
                "--seeds" => {
                    let seed = |text: &str| text.parse().map_err(|_| format!("{text} is no seed"));
                    seeds = value.split(',').map(seed).collect::<Result<_, _>>()?;
                }
                "--only" => only = value.split(',').map(str::to_owned).collect(),
                _ => return Err(format!("no option {name}")),
            }
        }
        let lines = trace.unwrap_or_else(|| trace::synthetic(6000, &mut fastrand::Rng::with_seed(1)));
        Ok(Options { lines, seeds, only })
    }
}
