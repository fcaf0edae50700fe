//! Markdown and CSV.

use std::fmt::Write as _;

use ingle_sim::trace::figures::Figures;
use ingle_sim::trace::{Calibration, Line, Workload};

use super::noise;
use super::options::{Options, Scenario};
use super::others;
use super::roles::BASELINE;
use super::run::{Phase, Run};

/// What was replayed on what.
pub(crate) fn preamble(options: &Options, lines: &[Line]) -> String {
    let trace = options
        .trace
        .as_ref()
        .map_or("made up".into(), |path| path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    let args = || std::env::args().skip(1).filter(|arg| arg != "--bench").collect::<Vec<_>>().join(" ");
    // The script knows how it was called.
    let command =
        std::env::var("REPLAY_COMMAND").unwrap_or_else(|_| format!("cargo bench --bench replay -- {}", args()));
    format!(
        "`{command}`\n\n\
         Trace: {trace}, {} requests in {:.0} s; {} backends, {} tokens/s of prefill, {} of decode, {} slots, {} blocks of cache; \
         {} times as fast as real time; seeds {:?}. {}.\n",
        lines.len(),
        lines.last().map_or(0.0, |line| line.timestamp as f64 / 1e3),
        options.backends,
        options.prefill,
        options.decode,
        options.slots,
        options.cache,
        options.compression,
        options.seeds,
        others::versions(options),
    )
}

/// The tables of a case.
pub(crate) fn of(
    options: &Options,
    scenario: Scenario,
    load: f64,
    workloads: &[(Workload, Calibration)],
    runs: &[Run],
) -> String {
    let mut text = format!("\n### {}, load {load}\n\n", scenario.title());
    for (seed, (workload, calibration)) in options.seeds.iter().zip(workloads) {
        let census = workload.census;
        let _ = writeln!(
            text,
            "Seed {seed}: time scale {:.3} (oracle's load {:.3}), {} sessions ({} without a parent, {} continuations, {} branches).",
            calibration.scale,
            calibration.load,
            workload.sessions,
            census.roots,
            census.continuations + census.late_continuations,
            census.branches
        );
    }
    text.push('\n');
    text += &main_table(runs);
    if scenario == Scenario::Failure {
        text += &failure_table(runs);
    }
    text + &harness_table(runs) + &noise::of(options, scenario, workloads, runs)
}

fn main_table(runs: &[Run]) -> String {
    let mut text = "| role | recomputed | TTFT mean | p50 | p90 | p99 | mean, x hash | p99, x hash | skew | sessions moved | moves | errors | cut |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let baseline = baseline(runs, Phase::All);
    for run in runs {
        let figures = run.figures(Phase::All);
        let (ttft, (sessions, turns)) = (figures.first_token, run.moves());
        let (mean, p99) = ratios(&figures, baseline.as_ref());
        let mark = if run.saturated() { " (!)" } else { "" };
        let _ = writeln!(
            text,
            "| {}{mark} | {:.3} | {:.2} s | {:.2} s | {:.2} s | {:.2} s | {mean} | {p99} | {:.2} | {sessions:.0} | {turns:.0} | {} | {} |",
            run.role.name,
            figures.recomputed(),
            ttft.mean,
            ttft.p50,
            ttft.p90,
            ttft.p99,
            figures.skew,
            figures.errors,
            figures.cut,
        );
    }
    text
}

fn failure_table(runs: &[Run]) -> String {
    let mut text = "\nWhile it is down, after its return, and the first turn after its return of the sessions that it had driven from home:\n\n\
         | role | down: recomputed | mean | p99 | p99, x hash | errors | back: recomputed | mean | p99 | displaced turns | recomputed | mean |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let baseline = baseline(runs, Phase::Down);
    for run in runs {
        let (down, back, displaced) = (run.figures(Phase::Down), run.figures(Phase::Back), run.displaced());
        let first = match displaced.turns {
            0 => "0 | - | -".to_owned(),
            n => format!("{n} | {:.3} | {:.2} s", displaced.recomputed(), displaced.first_token / n as f64),
        };
        let _ = writeln!(
            text,
            "| {} | {:.3} | {:.2} s | {:.2} s | {} | {} | {:.3} | {:.2} s | {:.2} s | {first} |",
            run.role.name,
            down.recomputed(),
            down.first_token.mean,
            down.first_token.p99,
            ratios(&down, baseline.as_ref()).1,
            down.errors,
            back.recomputed(),
            back.first_token.mean,
            back.first_token.p99,
        );
    }
    text
}

/// How far the figures can be trusted.
fn harness_table(runs: &[Run]) -> String {
    let mut text =
        "\nThe machine meanwhile, in cores, and how late the client sent requests, in real milliseconds:\n\n\
         | role | harness | proxies | idle | late, mean | late, p99 |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for run in runs {
        let (shares, (mean, p99)) = (run.shares(), run.lateness());
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.2} | {:.2} | {mean:.2} | {p99:.2} |",
            run.role.name, shares.harness, shares.proxies, shares.idle
        );
    }
    if runs.iter().any(Run::saturated) {
        text += "\n(!) the machine was busy with other things or the harness at its limit: times are too long\n";
    }
    text
}

fn baseline(runs: &[Run], phase: Phase) -> Option<Figures> {
    runs.iter().find(|run| run.role.name == BASELINE).map(|run| run.figures(phase))
}

/// Mean and 99th percentile over the baseline's.
fn ratios(figures: &Figures, baseline: Option<&Figures>) -> (String, String) {
    let ratio = |of: f64, to: f64| if to > 0.0 { format!("{:.2}", of / to) } else { "-".to_owned() };
    baseline.map_or(("-".to_owned(), "-".to_owned()), |baseline| {
        let (of, to) = (figures.first_token, baseline.first_token);
        (ratio(of.mean, to.mean), ratio(of.p99, to.p99))
    })
}

pub(crate) const RAW_HEAD: &str =
    "scenario,load,role,seed,turn,session,sent,first_token,end,backend,prompt,cached,skew,error\n";

/// Every request of a run.
pub(crate) fn raw(scenario: Scenario, load: f64, run: &Run) -> String {
    let mut text = String::new();
    let shown = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.4}"));
    for play in &run.plays {
        for outcome in &play.outcomes {
            let _ = writeln!(
                text,
                "{},{load},\"{}\",{},{},{},{:.4},{},{:.4},{},{},{},{},{}",
                scenario.name(),
                run.role.name,
                play.seed,
                outcome.index,
                outcome.session,
                outcome.sent,
                shown(outcome.first_token),
                outcome.end,
                outcome.machine.map_or(String::new(), |machine| machine.to_string()),
                outcome.prompt,
                outcome.cached,
                shown(outcome.skew),
                outcome.error.unwrap_or_default(),
            );
        }
    }
    text
}
