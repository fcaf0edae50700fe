//! What came of it, in words.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::options::Options;
use super::process::{self, Holds};
use super::rest::Rest;
use super::samples::{HEAD, Series};
use super::tally::{Kind, Tally};
use super::verdict::SHORTEST;

/// A soak that is over.
pub(crate) struct Report {
    pub(crate) options: Options,
    pub(crate) seconds: f64,
    pub(crate) series: Series,
    pub(crate) tally: Tally,
    /// What the operator did.
    pub(crate) done: BTreeMap<&'static str, u64>,
    /// What the gateway complained of.
    pub(crate) complaints: BTreeMap<String, u64>,
    pub(crate) before: Rest,
    /// What was held when nobody wanted anything any more, and how long the gateway then took to end.
    pub(crate) end: Result<(Rest, Duration), String>,
}

/// A figure that may not grow: its name, what it is, and how much an hour is too much.
type Bound = (&'static str, fn(&Holds) -> f64, f64);

impl Report {
    /// What was wrong; nothing is as it should be.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong = self.tally.failures.clone();
        if self.tally.failed as usize > wrong.len() {
            wrong.push(format!("and {} failures more", self.tally.failed as usize - wrong.len()));
        }
        let mut pids: Vec<_> = self.series.measured().map(|sample| sample.pid).collect();
        pids.dedup();
        if pids.len() > 1 || pids.contains(&None) {
            wrong.push("the measured process ended".to_owned());
        }
        if self.done.keys().any(|what| what.ends_with("in prefill")) && self.tally.repeated == 0 {
            wrong.push("no kill or freeze met a prefill".to_owned());
        }
        if self.long_enough() {
            wrong.extend(BOUNDS.iter().filter_map(|(name, figure, limit)| {
                let line = self.series.line(figure)?;
                line.grows(*limit).then(|| format!("{name} grow by {:.2} an hour, R² {:.2}", line.per_hour, line.r2))
            }));
        }
        let more = |after: &Rest| {
            after.descriptors > self.before.descriptors + SPARE || after.threads > self.before.threads + SPARE
        };
        match &self.end {
            Ok((after, _)) if more(after) => {
                wrong.push(format!("at rest it holds {after:?}, and {:?} before the first request", self.before));
            }
            Ok(_) => {}
            Err(why) => wrong.push(format!("at the end: {why}")),
        }
        let bad = |kind: &&String| BAD.iter().any(|bad| kind.contains(bad));
        wrong.extend(self.complaints.keys().filter(bad).map(|kind| format!("the log says: {kind}")));
        wrong
    }

    /// Everything, as markdown.
    pub(crate) fn text(&self) -> String {
        let mut text = self.summary();
        let by = self.series.samples.len().div_ceil(MOST_ROWS);
        let _ = writeln!(text, "\n{HEAD}");
        for row in self.series.rows(by) {
            let _ = writeln!(text, "{}", row.row());
        }
        text
    }

    fn summary(&self) -> String {
        let (tally, options) = (&self.tally, &self.options);
        let (requests, today) = (tally.requests(), humantime::format_rfc3339_seconds(SystemTime::now()).to_string());
        let mut text = format!(
            "`make soak ARGS=\"--minutes {} --warm-up {} --rate {} --streams {} --seed {}\"`, {}, {}: {requests} requests in \
             {:.1} minutes, {:.0} per second, {:.1} GB of answers verified. {}\n\n",
            options.minutes,
            options.warm_up,
            options.rate,
            options.streams,
            options.seed,
            process::machine(),
            &today[..10],
            self.seconds / 60.0,
            requests as f64 / self.seconds,
            tally.bytes as f64 / 1e9,
            self.verdict(),
        );
        text += "| what | how many |\n|---|---|\n";
        let whole = Kind::ALL
            .iter()
            .filter_map(|kind| Some((format!("{}: whole and right", kind.title()), *tally.whole.get(kind)?)));
        let left = tally.left.iter().map(|(when, count)| (format!("left: {when}"), *count));
        let explained = tally.explained.iter().map(|(why, count)| (format!("cut, explained: {why}"), *count));
        let others = [
            ("attempts that the gateway repeated meanwhile".to_owned(), tally.repeated),
            ("sent again: HTTP/2, not begun on a connection that takes no more".to_owned(), tally.not_taken),
            ("failed, unexplained".to_owned(), tally.failed),
        ];
        for (what, count) in whole.chain(left).chain(explained).chain(others) {
            let _ = writeln!(text, "| {what} | {count} |");
        }
        let done: Vec<_> = self.done.iter().map(|(what, count)| format!("{what}: {count}")).collect();
        let _ = writeln!(text, "\nThe operator: {}.", done.join(", "));
        let logged: Vec<_> = self.complaints.iter().map(|(kind, count)| format!("\"{kind}\": {count}")).collect();
        let _ = writeln!(
            text,
            "\nWarnings and errors in the log: {}.",
            if logged.is_empty() { "none".to_owned() } else { logged.join(", ") }
        );
        text + &self.growth()
    }

    fn growth(&self) -> String {
        let mut text = "\n| figure | at the beginning of the measured time | at its end | slope, per hour | R² | limit |\n|---|---|---|---|---|---|\n".to_owned();
        for (name, figure, limit) in BOUNDS {
            let ends = (self.series.measured().next(), self.series.measured().last());
            if let ((Some(first), Some(last)), Some(line)) = (ends, self.series.line(figure)) {
                let (first, last) = (figure(&first.holds), figure(&last.holds));
                let _ = writeln!(
                    text,
                    "| {name} | {first:.1} | {last:.1} | {:+.2} | {:.2} | {limit} |",
                    line.per_hour, line.r2
                );
            }
        }
        let Rest { descriptors, threads } = self.before;
        let _ = match &self.end {
            Ok((after, stopped)) => writeln!(
                text,
                "\nAt rest: {descriptors} descriptors and {threads} threads before the first request, {} and {} after the last, \
                 every count 0; on SIGTERM it ended within {:.1} s.",
                after.descriptors,
                after.threads,
                stopped.as_secs_f64(),
            ),
            Err(why) => writeln!(text, "\nAt the end: {why}."),
        };
        text
    }

    /// One sentence.
    pub(crate) fn verdict(&self) -> String {
        match (self.wrong().len(), self.long_enough()) {
            (0, true) => "Nothing failed unexplained, and nothing grew.".to_owned(),
            (0, false) => "Nothing failed unexplained. Too short to judge growth.".to_owned(),
            (wrong, _) => format!("**{wrong} things were wrong.**"),
        }
    }

    fn long_enough(&self) -> bool {
        let mut measured = self.series.measured().map(|sample| sample.seconds);
        let first = measured.next().unwrap_or_default();
        measured.last().unwrap_or(first) - first >= SHORTEST
    }
}

/// Half a megabyte, ten descriptors, four threads: a runtime's spare thread that comes in the middle of half an hour is a
/// slope of three.
const BOUNDS: [Bound; 4] = [
    ("resident MB", |holds| holds.rss, 0.5),
    ("MB of heap", |holds| holds.anonymous, 0.5),
    ("descriptors", |holds| holds.descriptors as f64, 10.0),
    ("threads", |holds| holds.threads as f64, 4.0),
];
/// Descriptors and threads that a process may have at rest more than another one: probes under way, a runtime's spare thread.
const SPARE: usize = 8;
/// What no log may say.
const BAD: [&str; 3] = ["panicked", "ends with requests under way", "not reloaded"];
/// Of the table.
const MOST_ROWS: usize = 60;
