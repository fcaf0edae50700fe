//! The rounds: every proxy takes its turn in each.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::certificate::Certificate;
use super::document::Document;
use super::figures::{DIRECT, Results};
use super::http1::Connection;
use super::limits::{self, WANTED_FDS};
use super::options::Options;
use super::process::Process;
use super::proxies::Kind;
use super::roles::Backend;
use super::table;
use super::work::Work;

/// What all measurements share.
pub(crate) struct Bench<'a> {
    pub(crate) options: &'a Options,
    pub(crate) certificate: Certificate,
    /// Connections of the idle workload that descriptors suffice for.
    pub(crate) connections: usize,
    backends: [Backend; 2],
    dir: PathBuf,
}

/// What a workload is sent to: a proxy, or a backend.
pub(crate) struct Subject<'a> {
    pub(crate) port: u16,
    process: Option<&'a Process>,
}

impl Subject<'_> {
    /// Microseconds so far; NaN without a proxy.
    pub(crate) fn cpu_micros(&self) -> f64 {
        self.process.map_or(f64::NAN, Process::cpu_micros)
    }

    pub(crate) fn memory_kib(&self) -> f64 {
        self.process.map_or(f64::NAN, Process::memory_kib)
    }
}

/// Runs the workloads one after another. Prints a table for each, and the note.
pub(crate) async fn all(options: &Options) -> ExitCode {
    let mut versions = Vec::new();
    for kind in options.proxies.iter().copied() {
        match kind.version() {
            Ok(version) => versions.push((kind, version)),
            Err(error) => eprintln!("{} does not take part: {error}", kind.name()),
        }
    }
    let kinds: Vec<Kind> = versions.iter().map(|(kind, _)| *kind).collect();
    if !kinds.contains(&options.baseline) {
        eprintln!("the baseline, {}, does not take part: there will be no ratios", options.baseline.name());
    }
    let bench = match Bench::new(options) {
        Ok(bench) => bench,
        Err(error) => {
            eprintln!("the bench can't start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut document = Document::new(versions);
    for work in options.works.iter().copied() {
        let results = bench.rounds(work, &kinds).await;
        let (title, about) = (work.name(), work.about(&bench));
        println!("## {title}\n\n{about}\n\n{}\n", table::markdown(&results, options.baseline.name()));
        document.push(work, results);
        if let Err(error) = document.write(options, &options.json) {
            eprintln!("{}: {error}", options.json.display());
        }
    }
    println!("{}", document.note(options));
    ExitCode::SUCCESS
}

impl Bench<'_> {
    fn new(options: &Options) -> std::io::Result<Bench<'_>> {
        let descriptors = limits::raise_descriptors(WANTED_FDS);
        let connections = limits::connections(options.connections, descriptors);
        if connections < options.connections {
            eprintln!("a process can have {descriptors} descriptors: idle has {connections} connections (ulimit -n)");
        }
        let dir = std::env::temp_dir().join(format!("ingle-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let backends = [Backend::start()?, Backend::start()?];
        Ok(Bench { options, certificate: Certificate::create(&dir)?, connections, backends, dir })
    }

    /// Connections to the backends so far.
    pub(crate) async fn backend_connections(&self) -> Result<f64, String> {
        let mut sum = 0.0;
        for backend in &self.backends {
            let count = Connection::open(backend.port, None).await?.get("/connections").await?;
            sum += count.parse::<f64>().map_err(|error| format!("{count}: {error}"))?;
        }
        Ok(sum)
    }

    async fn rounds(&self, work: Work, kinds: &[Kind]) -> Results {
        // `None` is a backend without a proxy.
        let direct = work.has_direct_row().then_some(None);
        let subjects: Vec<Option<Kind>> = direct.into_iter().chain(kinds.iter().copied().map(Some)).collect();
        let names = subjects.iter().map(|kind| kind.map_or(DIRECT, Kind::name));
        let mut results = Results::new(work.columns(), names);
        for round in 0..self.options.rounds {
            eprintln!("{}: round {} of {}", work.name(), round + 1, self.options.rounds);
            for turn in 0..subjects.len() {
                // Another proxy is the first in each round.
                let row = (turn + round) % subjects.len();
                let turn = tokio::time::timeout(LONGEST_TURN, self.turn(work, subjects[row])).await;
                let outcome = turn.unwrap_or_else(|_| Err(format!("it took more than {LONGEST_TURN:?}")));
                if let Err(error) = &outcome {
                    eprintln!("{}, {}: {error}", work.name(), results.rows[row].name);
                }
                results.push(row, outcome);
            }
        }
        results
    }

    async fn turn(&self, work: Work, kind: Option<Kind>) -> Result<Vec<f64>, String> {
        let ports = [self.backends[0].port, self.backends[1].port];
        let Some(kind) = kind else {
            return work.measure(&Subject { port: ports[0], process: None }, self).await;
        };
        let dir = self.dir.join(kind.name());
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let mut proxy = kind.start(work.front(), ports, &dir, &self.certificate)?;
        let subject = Subject { port: proxy.port, process: Some(&proxy.process) };
        let measured = work.measure(&subject, self).await;
        match proxy.process.has_ended() {
            true => Err("the proxy ended".to_owned()),
            false => measured,
        }
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A turn that takes longer counts as a failure.
const LONGEST_TURN: Duration = Duration::from_secs(120);
