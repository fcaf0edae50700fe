//! What is asked for on the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use ingle_sim::trace::{FleetConfig, Head, Model};

use super::run::Result;

/// Replays a trace through ingle and the proxies that people use today, side by side.
#[derive(Debug, Parser)]
#[command(name = "replay")]
pub(crate) struct Options {
    /// A trace in the Mooncake format; without it one of the same shape is made up.
    #[arg(long)]
    pub(crate) trace: Option<PathBuf>,
    /// Only the first N requests of the trace; of a made-up one, how many [default: all; 6000].
    #[arg(long, value_name = "N")]
    pub(crate) requests: Option<usize>,
    /// What happens during the replay.
    #[arg(long, value_delimiter = ',', default_value = "steady,failure,gateways")]
    pub(crate) scenarios: Vec<Scenario>,
    /// Share of the time that a greedy oracle would keep the backends busy with prefill.
    #[arg(long, value_delimiter = ',', default_value = "0.75")]
    pub(crate) loads: Vec<f64>,
    /// Each decides branches, jitter, session ids and hashes; figures are of all of them together.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    pub(crate) seeds: Vec<u64>,
    /// Only roles whose name contains one of these.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) only: Option<Vec<String>>,
    /// How many backends there are.
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(crate) backends: usize,
    /// Blocks of 512 tokens that each backend's cache holds.
    #[arg(long, default_value_t = 3_000, value_name = "BLOCKS")]
    pub(crate) cache: usize,
    /// Prompt tokens a backend computes in a second.
    #[arg(long, default_value_t = 8_000.0, value_name = "TOKENS")]
    pub(crate) prefill: f64,
    /// Tokens a backend generates in a second for each request.
    #[arg(long, default_value_t = 40.0, value_name = "TOKENS")]
    pub(crate) decode: f64,
    /// Requests that a backend computes or generates for at once.
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub(crate) slots: usize,
    /// How many seconds of the trace pass in a second.
    #[arg(long, default_value_t = 30.0, value_name = "FACTOR")]
    pub(crate) compression: f64,
    /// Backends send the head of an answer with its first token, as older servers did, not at once.
    #[arg(long)]
    pub(crate) late_head: bool,
    /// How often backends send a comment between a head and a first token, in seconds of the trace; 0 is never.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) ping_interval: f64,
    /// How often a role that played on a busy machine plays again; the one with the least lateness of the client counts.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) repeats: usize,
    /// 400 requests and a few roles; fails when a request fails.
    #[arg(long)]
    pub(crate) quick: bool,
    /// The ingle to run [default: the one that cargo built with this bench].
    #[arg(long, default_value = env!("CARGO_BIN_EXE_ingle"), hide_default_value = true)]
    pub(crate) ingle: PathBuf,
    /// The Caddy to run.
    #[arg(long, default_value = "caddy")]
    pub(crate) caddy: PathBuf,
    /// The Envoy to run.
    #[arg(long, default_value = "envoy")]
    pub(crate) envoy: PathBuf,
    /// The nginx to run.
    #[arg(long, default_value = "nginx")]
    pub(crate) nginx: PathBuf,
    /// The HAProxy to run.
    #[arg(long, default_value = "haproxy")]
    pub(crate) haproxy: PathBuf,
    /// Where the tables go, as Markdown.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Where every request of every run goes, as CSV.
    #[arg(long, value_name = "FILE")]
    pub(crate) raw: Option<PathBuf>,
    /// Where a plot of each table goes: PREFIX-SCENARIO-LOAD.svg.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) plot: Option<PathBuf>,
    /// What cargo adds to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What happens during a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Nothing: one gateway, all backends well.
    Steady,
    /// One backend is killed after a third and comes back cold after two thirds.
    Failure,
    /// Three gateways, each request to one of them by chance.
    Gateways,
}

impl Scenario {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Failure => "failure",
            Self::Gateways => "gateways",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Steady => "One gateway, all backends well",
            Self::Failure => "One backend killed after a third of the time, back cold after two thirds",
            Self::Gateways => "Three gateways, each request to one of them by chance",
        }
    }

    /// How many gateways there are.
    pub(crate) fn gateways(self) -> usize {
        if self == Self::Gateways { 3 } else { 1 }
    }
}

impl Options {
    /// With what `--quick` means.
    pub(crate) fn settled(mut self) -> Self {
        if self.quick {
            self.requests = self.requests.or(Some(400));
            self.repeats = 0;
            let few = ["no proxy: hash", "ingle", "nginx: hash"];
            self.only = self.only.or_else(|| Some(few.map(str::to_owned).to_vec()));
        }
        self
    }

    /// All pairs of a scenario and a load.
    pub(crate) fn cases(&self) -> impl Iterator<Item = (Scenario, f64)> {
        self.scenarios.iter().flat_map(|scenario| self.loads.iter().map(|load| (*scenario, *load)))
    }

    pub(crate) fn model(&self) -> Model {
        Model { prefill_rate: self.prefill, decode_rate: self.decode, slots: self.slots, cache_blocks: self.cache }
    }

    /// By backend.
    pub(crate) fn models(&self) -> Vec<Model> {
        vec![self.model(); self.backends]
    }

    pub(crate) fn fleet(&self) -> FleetConfig {
        FleetConfig {
            model: self.model(),
            backends: self.backends,
            compression: self.compression,
            head: if self.late_head { Head::WithFirstToken } else { Head::AtOnce },
            ping_interval: (self.ping_interval > 0.0)
                .then(|| Duration::from_secs_f64(self.ping_interval / self.compression)),
        }
    }

    /// Whether a role was asked for.
    pub(crate) fn wants(&self, role: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|wanted| role.contains(wanted.as_str())))
    }

    pub(crate) fn write(&self, tables: &str, raw: &str) -> Result<()> {
        self.out.as_deref().map_or(Ok(()), |path| write(path, tables))?;
        self.raw.as_deref().map_or(Ok(()), |path| write(path, raw))
    }

    pub(crate) fn write_plot(&self, scenario: Scenario, load: f64, svg: &str) -> Result<()> {
        let Some(prefix) = &self.plot else { return Ok(()) };
        write(Path::new(&format!("{}-{}-{:.0}.svg", prefix.display(), scenario.name(), load * 100.0)), svg)
    }
}

/// Up to a day; 0 is off.
fn seconds(text: &str) -> Result<f64> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "not a number from 0 to 86400".to_owned())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
