//! The table of all scenarios, on the screen and in the document.

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::Row;
use crate::scenario::Role;

/// All rows, group by group.
pub(crate) fn table(rows: &[Row], long: bool) -> String {
    let mut text = format!("{}, {}, {} form.\n", today(), machine(), if long { "long" } else { "short" });
    text += &format!("\n{}\n", summary(rows));
    let mut group = "";
    for row in rows {
        if row.group.name != group {
            group = row.group.name;
            text += &format!("\n### {}\n\n{HEAD}\n", row.group.title);
        }
        text += &format!("{}\n", line(row));
    }
    text + "\n"
}

/// All of it in a sentence.
pub(crate) fn summary(rows: &[Row]) -> String {
    let sum = |of: &dyn Fn(&Row) -> usize| rows.iter().map(of).sum::<usize>();
    let (requests, streams) = (sum(&|row| row.played.tally.requests), sum(&|row| row.played.tally.streams));
    let explained = sum(&|row| row.played.tally.explained);
    let unexplained = sum(&|row| row.played.tally.unexplained.len());
    let moved = sum(&|row| row.played.tally.moved.len());
    let skipped = sum(&|row| usize::from(row.played.skipped.is_some()));
    let not = sum(&|row| usize::from(matches!(row.scenario.role, Role::NotApplicable(_))));
    let played = rows.len() - skipped - not;
    format!(
        "**{played} faults: {requests} requests, of them {streams} streams; {explained} failures explained, \
         {unexplained} unexplained; {moved} needless moves of sessions.** {skipped} skipped, {not} not applicable."
    )
}

fn line(row: &Row) -> String {
    let (played, head) = (&row.played, format!("`{}` {}", row.scenario.name, row.scenario.head));
    if let Role::NotApplicable(why) = row.scenario.role {
        return format!("| {head} | not applicable: {why} | | | | | | | |");
    }
    if let Some(why) = &played.skipped {
        return format!("| {head} | SKIPPED: {why} | | | | | | | |");
    }
    let may: Vec<&str> = row.scenario.may.iter().map(|may| may.why).collect();
    let may = if may.is_empty() { "nothing".to_owned() } else { may.join("; ") };
    let tally = &played.tally;
    let mut notes = played.notes.join("; ");
    if !played.problems.is_empty() {
        notes += &format!(" **FAILED: {}**", played.problems.join("; ").replace('|', "/"));
    }
    format!(
        "| {head} | {may} | {} | {} | {} | {} | {} | {} | {} | {notes} |",
        tally.requests,
        tally.streams,
        tally.explained,
        tally.unexplained.len(),
        tally.moved.len(),
        time(played.left_alone),
        time(played.back),
    )
}

fn time(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
}

/// Replaces what stands between the marks of a document.
pub(crate) fn write(file: &Path, table: &str) {
    let text = std::fs::read_to_string(file).expect("the document");
    let (before, rest) = text.split_once(BEGIN).expect("the first mark");
    let (_, after) = rest.split_once(END).expect("the second mark");
    std::fs::write(file, format!("{before}{BEGIN}\n{table}{END}{after}")).expect("the document can be written");
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores of {}", model.map_or("an unknown processor", |(_, name)| name))
}

fn today() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()[..10].to_owned()
}

const HEAD: &str = "\
| what goes wrong | may fail | requests | streams | explained | unexplained | moved | left alone after | back after | besides |
|---|---|---|---|---|---|---|---|---|---|";
const BEGIN: &str = "<!-- from here to the end mark: make faults -->";
const END: &str = "<!-- end -->";
