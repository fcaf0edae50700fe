//! What a request, a streamed chunk and a connection cost: ingle beside a bare Pingora proxy, nginx, HAProxy and Caddy.
//!
//! ```text
//! make bench [ARGS="--rounds 5 --only ingle,bare --only-work request,chunk"]
//! cargo bench --bench proxy -- [OPTION]...                                  --help lists the options
//! ```
//!
//! Every proxy is a process in front of the same two backends. In each round every proxy takes its turn: it is started,
//! warmed up, measured and stopped, so that a noisy machine is noisy for all of them and a lucky memory layout counts
//! once. CPU time is the process's own (with its children), from `/proc`. The tables have medians over the rounds; a
//! ratio is the median of the rounds' ratios to the baseline.
//!
//! Environment: `INGLE_BINARY` is a built ingle to measure instead of the library in this executable, `INGLE_BEFORE` an
//! older one to compare with; `INGLE_BARE`, `INGLE_NGINX`, `INGLE_HAPROXY` and `INGLE_CADDY` are paths of the others.
//! A proxy that is not installed is left out, with a message. `INGLE_BENCH_VERBOSE` shows the output of the processes.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench that can't run prints why and ends")]

mod backend;
mod certificate;
mod configs;
mod document;
mod figures;
mod http1;
mod http2;
mod limits;
mod options;
mod process;
mod proxies;
mod roles;
mod run;
mod table;
mod work;

use std::process::ExitCode;

use options::Options;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let Some((role, rest)) = args.split_first()
        && let Some(code) = roles::run(role, rest)
    {
        return code;
    }
    if args.iter().any(|arg| arg == "--help") {
        println!("{}", options::usage());
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(&args) {
        Ok(options) => options,
        Err(error) => {
            println!("{error}\n\n{}", options::usage());
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::select! {
            done = run::all(&options) => done,
            // The proxies and backends end when their handles drop.
            _ = tokio::signal::ctrl_c() => ExitCode::FAILURE,
        }
    })
}

/// The allocator of the `ingle` binary, for all roles.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
