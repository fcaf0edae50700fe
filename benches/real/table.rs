//! The table that the bench prints.

use std::path::Path;
use std::time::SystemTime;

use super::Options;
use super::played::{Phase, Played, Reuse, Step, sum, ttft};
use super::proxies::Proxy;
use super::scenario::SLOTS;

/// Markdown: a line for each proxy over all rounds, and how it came about.
pub(crate) fn table(options: &Options, runs: &[(Proxy, Vec<Played>)]) -> String {
    let scenario = options.scenario;
    let mut text = format!(
        "{} llama-servers of one thread and {SLOTS} slots; one session of {} turns that begins with 3,000 tokens, and {} of \
         {} turns that begin with 500, {} at a time; {} rounds, {}; {}.\n\n",
        options.servers,
        scenario.long_turns,
        scenario.sessions,
        scenario.turns,
        scenario.concurrency + 1,
        options.rounds,
        machine(),
        today(),
    );
    text += "| in front | TTFT, all turns: mean / p50 / p99 | short sessions: mean / p50 / p99 | before the kill: mean / p99 \
             | while a server is down | after its return |\n|---|---|---|---|---|---|\n";
    for (proxy, played) in runs {
        text += &format!("| {} | {} |\n", proxy.title(), times(played).join(" | "));
    }
    text += "\n| in front | reused of what there was: before / down / after | prompt tokens computed | first turns back: \
             recomputed | moves | broke with their server | failed otherwise |\n|---|---|---|---|---|---|---|\n";
    for (proxy, played) in runs {
        text += &format!("| {} | {} |\n", proxy.title(), tokens(played).join(" | "));
    }
    text
}

/// One run on one line.
pub(crate) fn brief(proxy: Proxy, played: &Played) -> String {
    let one = std::slice::from_ref(played);
    format!("{} ({:.0} s): {}; {}", proxy.name(), played.seconds, times(one).join(", "), tokens(one).join(", "))
}

/// The long session's few cold prompts would be the p99 of all: the short ones have columns of their own.
fn times(runs: &[Played]) -> Vec<String> {
    let [all, short] = [ttft(runs, |_, _, _| true), ttft(runs, |_, talk, _| !talk.long)]
        .map(|part| format!("{:.2} / {:.2} / {:.2} s", part.mean, part.p50, part.p99));
    let phases = PHASES.map(|phase| ttft(runs, |run, talk, turn| !talk.long && run.phase(turn) == phase));
    let phases = phases.map(|part| format!("{:.2} / {:.2} s", part.mean, part.p99));
    [vec![all, short], phases.to_vec()].concat()
}

fn tokens(runs: &[Played]) -> Vec<String> {
    let total = |of: &dyn Fn(&Played) -> Reuse| {
        let mut all = Reuse::default();
        runs.iter().for_each(|run| all.add(of(run)));
        all
    };
    let reuse = PHASES.map(|phase| format!("{:.0} %", 100.0 * total(&|run| run.reuse(phase)).of_known()));
    let all = total(&|run| sum(run.steps()));
    let back = total(&|run| sum(run.first_turns_back()));
    let turns: usize = runs.iter().map(|run| run.first_turns_back().len()).sum();
    let moves: usize = runs.iter().map(|run| run.steps().filter(Step::moved).count()).sum();
    let unexplained: usize = runs.iter().map(|run| run.unexplained().count()).sum();
    let failed: usize = runs.iter().map(Played::failed).sum();
    vec![
        reuse.join(" / "),
        format!("{}", all.prompt - all.cached),
        format!("{:.0} % of {turns}", 100.0 * back.recomputed()),
        moves.to_string(),
        (failed - unexplained).to_string(),
        unexplained.to_string(),
    ]
}

/// Replaces what stands between the marks of a document.
pub(crate) fn write(file: &Path, table: &str) {
    let text = std::fs::read_to_string(file).expect("the document");
    let (before, rest) = text.split_once(BEGIN).expect("the first mark");
    let (_, after) = rest.split_once(END).expect("the second mark");
    std::fs::write(file, format!("{before}{BEGIN}\n{table}{END}{after}")).expect("the document can be written");
}

/// Every turn, one JSON object on a line.
pub(crate) fn raw(file: &Path, runs: &[(Proxy, Vec<Played>)]) {
    let mut text = String::new();
    for (proxy, played) in runs {
        for (round, run) in played.iter().enumerate() {
            for (talk, turn) in run.talks.iter().flat_map(|talk| talk.turns.iter().map(move |turn| (talk, turn))) {
                let phase = format!("{:?}", run.phase(turn));
                let line = serde_json::json!({ "proxy": proxy.name(), "round": round + 1, "long": talk.long, "phase": phase, "turn": turn });
                text += &format!("{line}\n");
            }
        }
    }
    std::fs::write(file, text).expect("the turns can be written");
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

const PHASES: [Phase; 3] = [Phase::Before, Phase::Down, Phase::After];
const BEGIN: &str = "<!-- from here to the end mark: make bench-real -->";
const END: &str = "<!-- end -->";
