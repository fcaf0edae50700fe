//! The options of the command line.

use std::path::{Path, PathBuf};

use super::proxies::Kind;
use super::work::Work;

/// What is measured, and how much of it.
pub(crate) struct Options {
    pub(crate) rounds: usize,
    /// Small requests in each round; large ones are a part of this.
    pub(crate) requests: usize,
    pub(crate) streams: usize,
    /// How long the streams are measured, and each step of the latency.
    pub(crate) seconds: f64,
    /// Connections of the idle workload.
    pub(crate) connections: usize,
    /// Requests per second of the latency workload, over all connections.
    pub(crate) rate: u32,
    pub(crate) proxies: Vec<Kind>,
    pub(crate) works: Vec<Work>,
    pub(crate) baseline: Kind,
    pub(crate) json: PathBuf,
    /// As they were given, for the note below the tables.
    pub(crate) given: Vec<String>,
}

impl Options {
    pub(crate) fn parse(args: &[String]) -> Result<Options, String> {
        let mut options = Options {
            rounds: 7,
            requests: 8_000,
            streams: 500,
            seconds: 3.0,
            connections: 10_000,
            rate: 2_000,
            proxies: Kind::ALL.to_vec(),
            works: Work::ALL.to_vec(),
            baseline: Kind::Bare,
            json: Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/proxy.json"),
            given: args.to_vec(),
        };
        for pair in args.chunks(2) {
            let [name, value] = pair else { return Err(format!("unknown option, or no value: {}", pair[0])) };
            options.set(name, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "--rounds" => self.rounds = number(name, value)?,
            "--requests" => self.requests = number(name, value)?,
            "--streams" => self.streams = number(name, value)?,
            "--seconds" => self.seconds = number(name, value)?,
            "--connections" => self.connections = number(name, value)?,
            "--rate" => self.rate = number(name, value)?,
            "--only" => self.proxies = value.split(',').map(Kind::named).collect::<Result<_, _>>()?,
            "--only-work" => self.works = value.split(',').map(Work::named).collect::<Result<_, _>>()?,
            "--baseline" => self.baseline = Kind::named(value)?,
            "--json" => self.json = value.into(),
            _ => return Err(format!("unknown option: {name}")),
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr + PartialOrd + Default>(name: &str, value: &str) -> Result<T, String> {
    let number = value.parse::<T>().ok().filter(|number| *number > T::default());
    number.ok_or_else(|| format!("{name} takes a positive number, not {value}"))
}

pub(crate) fn usage() -> String {
    let proxies: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    let works: Vec<&str> = Work::ALL.iter().map(|work| work.name()).collect();
    format!(
        "--only NAME,...       proxies: {}\n\
         --only-work NAME,...  workloads: {}\n\
         --baseline NAME       the proxy that ratios refer to (bare)\n\
         --rounds N            turns of each proxy in each workload (7)\n\
         --requests N          small requests in a turn (8000)\n\
         --streams N           event streams at once (500)\n\
         --seconds N           length of a measurement of streams or of latency (3)\n\
         --connections N       connections of the idle workload (10000)\n\
         --rate N              requests per second of the latency workload (2000)\n\
         --json FILE           where every figure goes (target/bench/proxy.json)",
        proxies.join(", "),
        works.join(", ")
    )
}
