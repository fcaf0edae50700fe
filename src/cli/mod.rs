//! The command line: one file for each subcommand.

pub mod check;
mod completions;
mod demo;
mod explain;
mod key;
mod log;
mod run;
pub mod schema;
mod sim;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// A session-affine load balancer for LLM servers: every turn of a session finds its KV cache.
#[derive(Parser)]
#[command(name = "ingle", version, disable_help_subcommand = true)]
pub struct Cli {
    /// Log more: once for details, twice for everything.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// The format of the log on standard error: human on a terminal, JSON otherwise.
    #[arg(long, value_enum, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Human,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway.
    Run {
        /// The config file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Validate a config file: every error at once, with its place. Exit code 2 if it is invalid.
    Check {
        /// The config file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Where a session goes, or what share of sessions a change of the config would move.
    Explain(explain::Args),
    /// See in a minute what ingle is for: simulated GPUs, the gateway and traffic, nothing else needed.
    Demo(demo::Args),
    /// Run one simulated llama-server or vLLM, to try a config without a GPU.
    Sim(sim::Args),
    /// Make an API key: its line for a file of keys, and the key itself.
    Key(key::Args),
    /// Print the JSON Schema of the config file.
    Schema,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let _flush = log::FlushOnDrop;
    log::init(cli.verbose, cli.log_format, matches!(cli.command, Command::Demo(_)));
    match cli.command {
        Command::Run { config } => run::run(&config),
        Command::Check { config } => check::run(&config),
        Command::Explain(args) => explain::run(&args),
        Command::Demo(args) => demo::run(&args, cli.verbose > 0),
        Command::Sim(args) => sim::run(args),
        Command::Key(args) => key::run(&args),
        Command::Schema => schema::run(),
        Command::Completions { shell } => completions::run(shell),
    }
}

/// Wrong usage or an invalid config.
const INVALID: u8 = 2;
