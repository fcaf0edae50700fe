//! Everything that goes wrong around a gateway, one scenario each, against the real binary with traffic running.
//!
//! ```text
//! cargo test --test faults [-- NAME...]      the short form of those whose `group::name` has one of these in it
//! make faults                                the long form of all, and docs/faults.md
//! ```
//!
//! While the fault happens, clients with and without sessions stream and ask over HTTP/1.1 and HTTP/2. Every answer is
//! compared, byte by byte, with what its backend sends. A failure is explained only if the scenario says beforehand
//! that it may happen, and only while the fault lasts; any other one fails the suite, and so does a session that moves
//! without need, a byte at a backend that no client sent, and a request that is counted for ever.
//!
//! | file | what |
//! |---|---|
//! | `connecting` ... `machine` | the scenarios, one file for each part of a gateway's world |
//! | `scenario`, `stage`, `table` | a row, what it is played on, the table |
//! | `backend`, `connection`, `answers`, `script` | a backend that does what a value says, and checks what it is sent |
//! | `asked`, `exchange`, `traffic`, `tally` | requests, the clients that send them, what they saw |
//! | `cable` | network namespaces with a cable between them that can be cut |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test fails by panicking")]

mod answers;
mod asked;
mod backend;
mod cable;
mod connection;
mod exchange;
mod scenario;
mod script;
mod stage;
mod table;
mod tally;
mod traffic;

mod bodies;
mod clients;
mod config;
mod connecting;
mod gateway;
mod heads;
mod http2;
mod lives;
mod machine;
mod names;
mod pooled;
mod prefill;
mod requests;
mod sessions;
mod statuses;

#[allow(dead_code, reason = "more is used by the tests it comes from")]
#[path = "../hostile/cases.rs"]
mod cases;
#[allow(dead_code, reason = "more is used by the tests it comes from")]
#[path = "../gateway/certs.rs"]
mod certs;
#[allow(dead_code, reason = "more is used by the tests it comes from")]
#[path = "../gateway/client.rs"]
mod client;
#[path = "../hostile/table/mod.rs"]
mod corpus;
#[allow(dead_code, reason = "more is used by the tests it comes from")]
#[path = "../hostile/frames.rs"]
mod frames;
#[allow(dead_code, reason = "more is used by the tests it comes from")]
#[path = "../gateway/harness.rs"]
mod harness;
#[allow(dead_code, reason = "more is used by the tests it comes from")]
#[path = "../hostile/client.rs"]
mod hostile;
#[allow(dead_code, reason = "more is used by the tests it comes from")]
#[path = "../gateway/process.rs"]
mod process;
#[allow(dead_code, unused_imports, reason = "more is used by the tests it comes from, and its own tests run there")]
#[path = "../hostile/strict.rs"]
mod strict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use scenario::{Play, Played, Role, Scenario};

/// Scenarios that belong together.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    all: fn() -> Vec<Scenario>,
}

/// A scenario and what came of it.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) group: Group,
    pub(crate) scenario: Scenario,
    pub(crate) played: Played,
}

const GROUPS: &[Group] = &[
    Group { name: "connecting", title: "Connecting to a backend", all: connecting::all },
    Group { name: "heads", title: "Heads of a backend's answers", all: heads::all },
    Group { name: "prefill", title: "Between the head of a stream and its first token", all: prefill::all },
    Group { name: "bodies", title: "Bodies of a backend's answers", all: bodies::all },
    Group { name: "http2", title: "HTTP/2 frames from clients", all: http2::all },
    Group { name: "pooled", title: "Connections that are kept", all: pooled::all },
    Group { name: "statuses", title: "Statuses", all: statuses::all },
    Group { name: "lives", title: "The life of backends", all: lives::all },
    Group { name: "gateway", title: "The gateway's own life", all: gateway::all },
    Group { name: "config", title: "Config files", all: config::all },
    Group { name: "clients", title: "Clients", all: clients::all },
    Group { name: "requests", title: "Requests that smuggle", all: requests::all },
    Group { name: "sessions", title: "Session headers", all: sessions::all },
    Group { name: "names", title: "Names of backends", all: names::all },
    Group { name: "machine", title: "The machine", all: machine::all },
];

fn main() -> ExitCode {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        println!("usage: [NAME]... [--long] [--list] [--test-threads N] [--write FILE]");
        return ExitCode::from(2);
    };
    let wanted = |group: &Group, scenario: &Scenario| {
        let name = format!("{}::{}", group.name, scenario.name);
        options.names.is_empty() || options.names.iter().any(|wanted| name.contains(wanted.as_str()))
    };
    let rows: Vec<Row> = GROUPS
        .iter()
        .flat_map(|group| (group.all)().into_iter().map(|scenario| (*group, scenario)))
        .filter(|(group, scenario)| wanted(group, scenario))
        .map(|(group, scenario)| Row { group, scenario, played: Played::default() })
        .collect();
    if options.list {
        rows.iter().for_each(|row| println!("{}::{}: {}", row.group.name, row.scenario.name, row.scenario.head));
        return ExitCode::SUCCESS;
    }
    if rows.is_empty() {
        return ExitCode::SUCCESS;
    }
    let begun = Instant::now();
    let rows = play_all(rows, &options);
    let table = table::table(&rows, options.long);
    println!("\n{table}{:.0} s in all", begun.elapsed().as_secs_f64());
    let bad: Vec<&Row> = rows.iter().filter(|row| !row.played.is_good()).collect();
    for row in &bad {
        println!("\nFAILED {}::{}\n{:#?}", row.group.name, row.scenario.name, row.played);
    }
    if let (Some(file), true) = (&options.write, bad.is_empty()) {
        table::write(file, &table);
    }
    if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is to be done.
struct Options {
    names: Vec<String>,
    long: bool,
    list: bool,
    at_once: usize,
    write: Option<PathBuf>,
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Option<Options> {
        let mut options = Options { names: Vec::new(), long: false, list: false, at_once: 4, write: None };
        let mut args = args;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--long" => options.long = true,
                "--list" => options.list = true,
                "--write" => options.write = Some(args.next()?.into()),
                "--test-threads" => options.at_once = args.next()?.parse().ok().filter(|n| *n > 0)?,
                // What `cargo test` gives to all tests.
                "--nocapture" | "--show-output" | "-q" | "--quiet" => {}
                flag if flag.starts_with("--test-threads=") => {
                    options.at_once = flag.split_once('=')?.1.parse().ok().filter(|n| *n > 0)?;
                }
                flag if flag.starts_with('-') => return None,
                name => options.names.push(name.to_owned()),
            }
        }
        Some(options)
    }
}

/// A few at a time; a line for each as it ends.
fn play_all(rows: Vec<Row>, options: &Options) -> Vec<Row> {
    let next = Mutex::new(rows.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.at_once {
            scope.spawn(|| {
                loop {
                    let Some((at, mut row)) = next.lock().unwrap().next() else { return };
                    let begun = Instant::now();
                    row.played = play(&row.scenario, options.long);
                    let verdict = match (&row.played.skipped, row.played.is_good()) {
                        (Some(why), _) => format!("SKIPPED: {why}"),
                        (None, true) => "ok".to_owned(),
                        (None, false) => "FAILED".to_owned(),
                    };
                    let (group, name, time) = (row.group.name, row.scenario.name, begun.elapsed().as_secs_f64());
                    println!("{group}::{name} ({time:.1} s): {verdict}");
                    done.lock().unwrap().push((at, row));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, row)| row).collect()
}

/// On a thread of its own: it may be moved into another network, and it may panic.
fn play(scenario: &Scenario, long: bool) -> Played {
    let Role::Play(run) = &scenario.role else { return Played::default() };
    let played = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(Play { long, may: scenario.may.clone() }))
        });
        thread.join()
    });
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Played { problems: vec![text.unwrap_or_else(|| "a panic".to_owned())], ..Played::default() }
    })
}
