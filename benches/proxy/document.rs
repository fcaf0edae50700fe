//! Every figure as JSON, and the note on how they came about.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::figures::{DIRECT, Results};
use super::options::Options;
use super::proxies::Kind;
use super::work::Work;

/// What was measured so far.
pub(crate) struct Document {
    started: String,
    versions: Vec<(Kind, String)>,
    works: Vec<(Work, Results)>,
}

impl Document {
    pub(crate) fn new(versions: Vec<(Kind, String)>) -> Document {
        Document { started: machine(), versions, works: Vec::new() }
    }

    pub(crate) fn push(&mut self, work: Work, results: Results) {
        self.works.push((work, results));
    }

    /// The versions, the machine and the command.
    pub(crate) fn note(&self, options: &Options) -> String {
        let mut lines = vec![String::from("## Versions and command\n")];
        lines.extend(self.versions.iter().map(|(kind, version)| format!("- {}: {version}", kind.name())));
        lines.push(format!(
            "\nMedians of {} rounds; ratios to {}. {}.",
            options.rounds,
            options.baseline.name(),
            self.started
        ));
        lines.push(format!("\n    {}", command(options)));
        lines.join("\n")
    }

    /// Writes all of it, after each workload, so that an interrupted run is not lost.
    pub(crate) fn write(&self, options: &Options, file: &Path) -> std::io::Result<()> {
        let versions: Map<String, Value> =
            self.versions.iter().map(|(kind, version)| (kind.name().to_owned(), json!(version))).collect();
        let works: Map<String, Value> =
            self.works.iter().map(|(work, results)| (work.name().to_owned(), figures(results, options))).collect();
        let document = json!({
            "command": command(options),
            "machine": self.started,
            "rounds": options.rounds,
            "baseline": options.baseline.name(),
            "versions": versions,
            "workloads": works,
        });
        std::fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
        std::fs::write(file, format!("{document:#}\n"))
    }
}

/// For each proxy and column: unit, median, ratio to the baseline, difference to no proxy, and the rounds.
fn figures(results: &Results, options: &Options) -> Value {
    let (baseline, direct) = (results.row(options.baseline.name()), results.row(DIRECT));
    let row = |row: &super::figures::Row| {
        let mut columns = Map::new();
        for (at, column) in results.columns.iter().enumerate() {
            let figure = json!({
                "unit": column.unit,
                "median": row.median(at),
                "ratio": baseline.map(|baseline| row.ratio(at, baseline)),
                "added": direct.map(|direct| row.added(at, direct)),
                "rounds": row.values(at),
            });
            columns.insert(column.key.clone(), figure);
        }
        columns.insert("failures".to_owned(), json!(row.failures));
        Value::Object(columns)
    };
    Value::Object(results.rows.iter().map(|of| (of.name.to_owned(), row(of))).collect())
}

fn command(options: &Options) -> String {
    let variables = ["INGLE_BINARY", "INGLE_BEFORE", "INGLE_BARE", "INGLE_NGINX", "INGLE_HAPROXY", "INGLE_CADDY"];
    let set = variables.iter().filter_map(|name| Some(format!("{name}={} ", std::env::var(name).ok()?)));
    let separator = if options.given.is_empty() { "" } else { " -- " };
    format!("{}cargo bench --bench proxy{separator}{}", set.collect::<String>(), options.given.join(" "))
}

/// The processor, the kernel, and how busy the machine was at the start.
fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{cores} cores of {}, Linux {}, load {} at the start",
        model.map_or("an unknown processor", |(_, name)| name),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or_default()
    )
}
