//! What a request costs: ingle, a bare Pingora proxy, and what people use today, side by side.
//!
//! ```text
//! cargo bench --bench proxy [-- --rounds 15 --requests 8000 --streams 500 --only ingle,bare]
//! ```
//!
//! Every proxy is a process of its own in front of the same two backends, and all of them take turns in every round,
//! so that a noisy machine is noisy for all. CPU time is the process's own (with its children), from `/proc`; ratios
//! are against the bare Pingora proxy of the same run, medians over the rounds. nginx, HAProxy and Caddy take part
//! where they are installed (`INGLE_CADDY` may name Caddy's path).

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench that can't run says why and ends")]

mod load;
mod process;
mod proxies;
mod roles;
mod table;

use std::process::ExitCode;

use load::{Latency, Streams};
use proxies::Proxy;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let Some((role, rest)) = args.split_first()
        && let Some(code) = roles::run(role, rest)
    {
        return code;
    }
    let Some(options) = Options::parse(&args) else {
        println!("usage: [--rounds N] [--requests N] [--streams N] [--chunks N] [--only NAME,NAME]");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(bench(&options));
    ExitCode::SUCCESS
}

/// How much work is done.
struct Options {
    rounds: usize,
    requests: usize,
    streams: usize,
    chunks: usize,
    only: Option<Vec<String>>,
}

impl Options {
    fn parse(args: &[String]) -> Option<Options> {
        let mut options = Options { rounds: 15, requests: 8_000, streams: 500, chunks: 60, only: None };
        for pair in args.chunks(2) {
            let [name, value] = pair else { return None };
            match name.as_str() {
                "--rounds" => options.rounds = value.parse().ok()?,
                "--requests" => options.requests = value.parse().ok()?,
                "--streams" => options.streams = value.parse().ok()?,
                "--chunks" => options.chunks = value.parse().ok()?,
                "--only" => options.only = Some(value.split(',').map(str::to_owned).collect()),
                _ => return None,
            }
        }
        Some(options)
    }
}

/// What one proxy did in all rounds.
#[derive(Default)]
struct Figures {
    micros_per_request: Vec<f64>,
    micros_per_chunk: Vec<f64>,
    kib_per_stream: Vec<f64>,
    added: Vec<Latency>,
}

async fn bench(options: &Options) {
    let backends = [roles::backend(), roles::backend()];
    let ports = [backends[0].port, backends[1].port];
    let proxies = proxies::all(ports, options.only.as_deref());
    let mut figures: Vec<Figures> = proxies.iter().map(|_| Figures::default()).collect();
    for proxy in &proxies {
        load::requests(proxy.port, load::CONNECTIONS, options.requests / 10).await;
    }
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        let direct = load::latency(ports[0], 400).await;
        for (proxy, figures) in proxies.iter().zip(&mut figures) {
            round_of(proxy, figures, direct, options).await;
        }
    }
    table::print(&proxies, &figures, options.streams);
}

async fn round_of(proxy: &Proxy, figures: &mut Figures, direct: Latency, options: &Options) {
    let before = proxy.process.cpu();
    let done = load::requests(proxy.port, load::CONNECTIONS, options.requests).await;
    figures.micros_per_request.push(per(proxy.process.cpu() - before, done));

    let latency = load::latency(proxy.port, 400).await;
    figures.added.push(latency - direct);

    if options.streams == 0 {
        return;
    }
    let memory = proxy.process.rss_kib();
    let streams = Streams::open(proxy.port, options.streams, options.chunks).await;
    figures.kib_per_stream.push((proxy.process.rss_kib() - memory) / options.streams as f64);
    let before = proxy.process.cpu();
    let chunks = streams.read_all().await;
    figures.micros_per_chunk.push(per(proxy.process.cpu() - before, chunks));
}

/// Microseconds each.
fn per(seconds: f64, n: usize) -> f64 {
    seconds * 1e6 / n as f64
}

/// The allocator of the `ingle` binary, for all roles: what is compared is our own logic.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
