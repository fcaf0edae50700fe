//! How long clients wait on real llama-servers with uneven sessions, through ingle and through Caddy, side by side.
//!
//! ```text
//! make bench-real            or, with what scripts/real/setup.sh prints in the environment:
//! cargo bench --bench real [-- --rounds 3 --servers 2 --sessions 12 --turns 8 --only ingle,caddy --write FILE --raw FILE]
//! ```
//!
//! One session with a very long history and many short ones; the long one's server is killed at a third and comes back
//! cold at two thirds. Every proxy is a process of its own, in each round each gets fresh servers and the same requests,
//! and they take turns, so that a noisy machine is noisy for all. `--write` puts the table into a document, between its
//! two marks; `--raw` keeps every turn, one JSON object on a line.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that can't run says why and ends"
)]

#[path = "../../tests/real/played.rs"]
mod played;
#[allow(dead_code, reason = "CPU time and memory are the other bench's")]
#[path = "../proxy/process.rs"]
mod process;
mod proxies;
#[path = "../../tests/real/scenario.rs"]
mod scenario;
#[allow(dead_code, reason = "more is used by the tests it comes from")]
#[path = "../../tests/real/servers.rs"]
mod servers;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use played::Played;
use proxies::Proxy;
use scenario::{SLOTS, Scenario, play};
use servers::{Fleet, Launcher, NAMES};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let Some(options) = Options::parse(&args) else {
        println!(
            "usage: [--rounds N] [--servers 2|3] [--sessions N] [--turns N] [--only NAME,NAME] [--write FILE] [--raw FILE]"
        );
        return ExitCode::from(2);
    };
    let Some(launcher) = Launcher::from_env() else {
        println!("it needs real llama-servers: make bench-real");
        return ExitCode::FAILURE;
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let runs = runtime.block_on(bench(&options, &launcher));
    let table = table::table(&options, &runs);
    println!("{table}");
    if let Some(file) = &options.write {
        table::write(file, &table);
    }
    if let Some(file) = &options.raw {
        table::raw(file, &runs);
    }
    ExitCode::SUCCESS
}

/// How much is played.
struct Options {
    rounds: u64,
    servers: usize,
    scenario: Scenario,
    only: Option<Vec<String>>,
    write: Option<PathBuf>,
    raw: Option<PathBuf>,
}

impl Options {
    fn parse(args: &[String]) -> Option<Options> {
        let scenario = Scenario { sessions: 12, turns: 8, long_turns: 12, concurrency: SLOTS + 1, seed: 1 };
        let mut options = Options { rounds: 3, servers: 2, scenario, only: None, write: None, raw: None };
        for pair in args.chunks(2) {
            let [name, value] = pair else { return None };
            match name.as_str() {
                "--rounds" => options.rounds = value.parse().ok()?,
                "--servers" => options.servers = value.parse().ok().filter(|n| (2..=NAMES.len()).contains(n))?,
                "--sessions" => options.scenario.sessions = value.parse().ok()?,
                "--turns" => options.scenario.turns = value.parse().ok()?,
                "--only" => options.only = Some(value.split(',').map(str::to_owned).collect()),
                "--write" => options.write = Some(value.into()),
                "--raw" => options.raw = Some(value.into()),
                _ => return None,
            }
        }
        Some(options)
    }
}

/// What was played through each proxy, round by round.
async fn bench(options: &Options, launcher: &Launcher) -> Vec<(Proxy, Vec<Played>)> {
    let wanted = |proxy: &Proxy| options.only.as_ref().is_none_or(|only| only.iter().any(|name| name == proxy.name()));
    let mut runs: Vec<_> = proxies::there_are().into_iter().filter(wanted).map(|proxy| (proxy, Vec::new())).collect();
    for round in 1..=options.rounds {
        for (proxy, played) in &mut runs {
            let run = run(*proxy, options, round, launcher).await;
            eprintln!("round {round} of {}: {}", options.rounds, table::brief(*proxy, &run));
            for turn in run.unexplained() {
                eprintln!("failed: {turn:?}");
            }
            played.push(run);
        }
        // Who is first meets another machine than who is last.
        runs.rotate_left(1);
    }
    runs.sort_by_key(|(proxy, _)| *proxy);
    runs
}

/// One proxy, with servers that have seen nothing yet.
async fn run(proxy: Proxy, options: &Options, round: u64, launcher: &Launcher) -> Played {
    let scenario = Scenario { seed: round, ..options.scenario };
    let mut fleet = Fleet::start(launcher, options.servers, SLOTS).await;
    let addresses: Vec<_> = fleet.servers.iter().map(|server| server.address).collect();
    let running = proxies::start(proxy, &addresses).await;
    // Other ids in each round: where their homes are is luck.
    let loads = [scenario.long(&format!("long{round}")), scenario.short(&format!("short{round}"))];
    play(loads, &[running.url()], Some(&mut fleet)).await
}
