//! What was found, in words and tables.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::cost::Cost;
use super::crowd::Crowd;
use super::drain::Drained;
use super::harness::process::machine;
use super::slow::{SLICE, Slow};

/// Of each part that was asked for.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) crowd: Option<Crowd>,
    pub(crate) slow: Option<Slow>,
    /// The ordinary request first.
    pub(crate) costs: Vec<Cost>,
    pub(crate) drained: Option<Drained>,
    /// Why parts could not be measured.
    failed: Vec<String>,
}

impl Findings {
    /// What was found, or nothing and the reason.
    pub(crate) fn keep<T>(&mut self, found: Result<T, String>) -> Option<T> {
        found.map_err(|why| self.failed.push(format!("it could not be measured: {why}"))).ok()
    }

    pub(crate) fn text(&self) -> String {
        let today = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let mut text = format!("`make pressure`, {}, {}.\n", machine(), &today[..10]);
        text += &self.crowd.as_ref().map(crowd).unwrap_or_default();
        text += &self.slow.as_ref().map(slow).unwrap_or_default();
        text += &costs(&self.costs);
        text += &self.drained.as_ref().map(drained).unwrap_or_default();
        text
    }

    /// What does not hold.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong = self.failed.clone();
        let mut must = |holds: bool, what: String| {
            if !holds {
                wrong.push(what)
            }
        };
        if let Some(crowd) = &self.crowd {
            must(crowd.full.peak < MOST_CROWD, format!("{:.0} MB with all connections open", crowd.full.peak));
            let counts = [crowd.connections.0 as u64, crowd.connections.1];
            must(counts.iter().all(|count| *count >= crowd.wanted as u64), format!("{counts:?} connections"));
            must(crowd.streaming >= 2_000, format!("{} streams at once", crowd.streaming));
            must(
                crowd.failures.is_empty(),
                format!("{} streams failed: {:?}", crowd.failures.len(), crowd.failures.first()),
            );
        }
        if let Some(Slow { quiet, besieged }) = &self.slow {
            let factor = besieged.added(0.99) / quiet.added(0.99);
            must(factor <= 2.0, format!("slow clients make the added p99 {factor:.2} times as long"));
            let failures = [&quiet.failures, &besieged.failures].map(Vec::len);
            must(failures == [0, 0], format!("{failures:?} requests failed beside slow clients"));
        }
        if let [ordinary, waiting, ..] = &self.costs[..] {
            for cost in &self.costs {
                // Whoever sends whole requests has them: each costs what any does, whatever is sent with it.
                let whole = |of_all: f64| SPARE * of_all / f64::from(waiting.requests) * f64::from(cost.requests);
                let (most_cpu, most_memory) = (MOST_CPU * ordinary.cpu, MOST_MEMORY);
                let holds = cost.cpu <= most_cpu.max(whole(waiting.cpu))
                    && cost.memory <= most_memory.max(whole(waiting.memory));
                must(holds, format!("{}: {:.0} µs and {:.0} KB", cost.name, cost.cpu, cost.memory));
            }
        }
        if let Some(drained) = &self.drained {
            must(drained.whole == drained.streams, format!("{:?} were cut by SIGTERM", drained.failures));
            must(drained.after.as_secs_f64() < 1.0, format!("it ended {:?} after the last stream", drained.after));
        }
        wrong
    }
}

fn crowd(crowd: &Crowd) -> String {
    let text = format!(
        "\n## Ten thousand connections\n\n{} connections open as the kernel counts them ({} as the gateway does), {} of them \
         streaming: {:.0} MB resident, {:.0} MB at the most, {:.0} MB before the first; {} descriptors, {} threads. \
         {} streams were whole, byte for byte, {} were not.\n",
        crowd.connections.0,
        crowd.connections.1,
        crowd.streaming,
        crowd.full.rss,
        crowd.full.peak,
        crowd.before.rss,
        crowd.full.descriptors,
        crowd.full.threads,
        crowd.whole,
        crowd.failures.len(),
    );
    match crowd.wanted < crowd.asked {
        true => format!("{text}\n**Not {}:** this machine allows a process too few descriptors.\n", crowd.asked),
        false => text,
    }
}

fn slow(slow: &Slow) -> String {
    let mut text = "\n## Slow clients\n\n| minutes, by turns | requests | failed | p50: through / direct, ms | p99: through / direct, ms \
                    | added p50 | added p99 |\n|---|---|---|---|---|---|---|\n"
        .to_owned();
    let siege = format!("20 slow clients more each second, {} at the end", slow.besieged.slow);
    for (name, minutes) in [("quiet", &slow.quiet), (siege.as_str(), &slow.besieged)] {
        let (p50, p99) = (minutes.quantiles(0.5), minutes.quantiles(0.99));
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {:.2} / {:.2} | {:.2} / {:.2} | {:.2} | {:.2} |",
            minutes.requests(),
            minutes.failures.len(),
            p50.0,
            p50.1,
            p99.0,
            p99.1,
            minutes.added(0.5),
            minutes.added(0.99),
        );
    }
    let factor = slow.besieged.added(0.99) / slow.quiet.added(0.99);
    text + &format!(
        "\nEach figure is the median of those of slices of {SLICE} s. What the gateway adds at p99 is {factor:.2} times as long.\n"
    )
}

fn costs(costs: &[Cost]) -> String {
    let Some(ordinary) = costs.first() else { return String::new() };
    let mut text = "\n## Ten KiB of hostile input\n\n| what is sent | bytes | requests in it | CPU, µs \
                    | times the first | memory, KB |\n|---|---|---|---|---|---|\n"
        .to_owned();
    for cost in costs {
        let Cost { name, bytes, requests, cpu, memory } = cost;
        let _ =
            writeln!(text, "| {name} | {bytes} | {requests} | {cpu:.0} | {:.1} | {memory:.0} |", cpu / ordinary.cpu);
    }
    text
}

fn drained(drained: &Drained) -> String {
    format!(
        "\n## SIGTERM\n\nWith {} streams of five seconds under way: {} were whole, {} were not; the process ended {:.0} ms after the \
         last one.\n",
        drained.streams,
        drained.whole,
        drained.failures.len(),
        drained.after.as_secs_f64() * 1e3,
    )
}

/// In MB.
const MOST_CROWD: f64 = 400.0;
/// Times the CPU of an ordinary request of as many bytes.
const MOST_CPU: f64 = 100.0;
/// How much dearer a hostile request may be than an ordinary one, by its headers.
const SPARE: f64 = 1.5;
/// KB: a MiB.
const MOST_MEMORY: f64 = 1048.6;
