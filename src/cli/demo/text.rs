//! What the demo tells a newcomer: before, on the way, and at the end.

use super::figures::Moment;
use super::plan::{GPUS, Plan, VICTIM};
use super::table;
use super::words::{percent, plural, seconds, times};

/// Before the traffic begins.
pub(super) fn introduction(plan: &Plan) -> String {
    let (sessions, seconds) = (plan.sessions, plan.length.as_secs());
    let pace = times(1.0, plan.pace)
        .map(|n| format!("\n  To be short, everything here runs {n} times faster than it would.\n"));
    let pace = pace.unwrap_or_default();
    format!(
        "
ingle demo: the same chats, twice at the same time, {seconds} seconds

  A chat sends its whole history with every turn. The GPU that answered the
  turn before still has that history in its cache (the KV cache) and computes
  only what is new. Any other GPU computes all of it again, while the user waits.

  with ingle    every turn goes to the GPU that knows the chat (session affinity)
  round robin   every turn goes to the next GPU in turn

  Each side has three simulated GPUs of its own and {sessions} chats at a time, plus
  calls that belong to no chat. In the middle, one GPU of each side is killed
  while it computes prompts: its streams have a head, but no token yet.

  reuse         prompt tokens that the GPU had in its cache: less to compute
  first token   how long a user waits until the answer begins
{pace}"
    )
}

/// Below the address of the status page, which ends with the demo.
pub(super) const MORE_TIME: &str = "             (more time to look around: ingle demo --seconds 600)";

/// A GPU was killed while it computed this many prompts of each side.
pub(super) fn killed(at: u64, affinity: u64, round_robin: u64) -> String {
    let gpu = GPUS[VICTIM];
    format!(
        "{at:>5} s   {gpu} is killed, on both sides, while it computes {affinity} | {round_robin} prompts. Its cache is\n\
         {:>10}lost, its chats continue elsewhere.",
        ""
    )
}

/// The GPU was started again.
pub(super) fn revived(at: u64) -> String {
    let gpu = GPUS[VICTIM];
    format!("{at:>5} s   {gpu} starts again, with an empty cache. Chats that moved stay where they are warm.")
}

/// The GPU could not be started again.
pub(super) fn lost(at: u64, error: &std::io::Error) -> String {
    format!("{at:>5} s   {} can't start again ({error}): the demo goes on with two.", GPUS[VICTIM])
}

/// At the end, or when the user has seen enough.
pub(super) fn summary(moment: &Moment, plan: &Plan, killed: bool, interrupted: bool) -> String {
    let seconds = moment.elapsed.as_secs().min(plan.length.as_secs());
    let title = if interrupted { format!("Stopped after {seconds} s") } else { format!("After {seconds} s") };
    let mut lines = vec![String::new(), table::row(&title, "with ingle", "round robin")];
    lines.push(format!("  {}", "-".repeat(table::WIDTH - 4)));
    lines.extend(table::rows(moment));
    lines.push(String::new());
    lines.extend(comparison(moment).into_iter().map(|line| format!("  {line}")));
    if killed {
        lines.extend(rescue(moment).into_iter().map(|line| format!("  {line}")));
    }
    lines.push(format!("\n  {}", NEXT.join("\n  ")));
    lines.join("\n")
}

/// What affinity has brought.
fn comparison(moment: &Moment) -> Vec<String> {
    let (a, r) = (&moment.affinity, &moment.round_robin);
    if a.turns == 0 || r.turns == 0 {
        return vec!["There was no time to compare anything yet.".to_owned()];
    }
    let mut lines = vec![format!(
        "Reuse: {} of all prompt tokens were in the right GPU's cache with ingle, {} without.",
        percent(a.reuse()),
        percent(r.reuse())
    )];
    let (wait, without) = (seconds(a.first_token_p50), seconds(r.first_token_p50));
    let sooner = times(r.first_token_p50, a.first_token_p50).map(|n| format!(", {n} times sooner")).unwrap_or_default();
    lines.push(format!("First token: typically after {wait} instead of {without}{sooner}."));
    let per_turn = |computed: u64, turns: u64| computed as f64 / turns as f64;
    if let Some(n) = times(per_turn(r.computed(), r.turns), per_turn(a.computed(), a.turns)) {
        lines.push(format!("Work: without affinity, each turn cost the GPUs {n} times as many prompt tokens."));
    }
    lines
}

/// The outcome for the chats of the killed GPU.
fn rescue(moment: &Moment) -> Vec<String> {
    let (a, r, gpu) = (&moment.affinity, &moment.round_robin, GPUS[VICTIM]);
    let gateway = &moment.gateway;
    let away = plural(gateway.away as u64, "chat");
    let stayed = plural(gateway.stayed, "later turn");
    let mut lines = vec![
        format!("{gpu} was killed: {} of {} requests failed before their first token.", a.failed, a.requests),
        format!(
            "It was computing {} ({} without affinity){}.",
            plural(a.stranded, "prompt"),
            r.stranded,
            if a.failed + r.failed == 0 { "; other GPUs answered them" } else { "" }
        ),
        format!("{away} failed over to another GPU and stayed there ({stayed} found the new cache)."),
    ];
    if a.cut + r.cut > 0 {
        lines.push(format!(
            "Streams that broke after their first token: {} with ingle, {} without (they can't be repeated).",
            a.cut, r.cut
        ));
    }
    lines.push(
        "(\"Round robin\" is ingle too, with sessions switched off: its requests are rescued as well.)".to_owned(),
    );
    lines
}

const NEXT: [&str; 3] = [
    "Your own servers: list them in a file (conf/minimal.yaml shows one), then",
    "    ingle run --config FILE",
    "and let your clients send the header X-Session-Id: the same value for every turn of a chat.",
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::figures::{Figures, GatewayFigures};
    use super::*;

    fn moment() -> Moment {
        let figures = |turns, cached_tokens, first_token_p50, cut| Figures {
            turns,
            requests: turns + 50,
            prompt_tokens: 1_000_000,
            cached_tokens,
            first_token_p50,
            first_token_p99: 2.0,
            failed: 0,
            cut,
            stranded: 2,
        };
        Moment {
            elapsed: Duration::from_millis(45_300),
            affinity: figures(400, 900_000, 0.05, 2),
            round_robin: figures(400, 300_000, 0.8, 1),
            gateway: GatewayFigures { backends: Vec::new(), away: 11, stayed: 1 },
        }
    }

    #[test]
    fn summary_has_reuse_and_the_cost_of_the_kill() {
        let text = summary(&moment(), &Plan::new(45, 36), true, false);
        for part in [
            "After 45 s",
            "Reuse: 90 % of all prompt tokens were in the right GPU's cache with ingle, 30 % without.",
            "First token: typically after 50 ms instead of 800 ms, 16 times sooner.",
            "each turn cost the GPUs 7.0 times as many prompt tokens.",
            "gpu1 was killed: 0 of 450 requests failed before their first token.",
            "It was computing 2 prompts (2 without affinity); other GPUs answered them.",
            "11 chats failed over to another GPU and stayed there (1 later turn found the new cache).",
            "Streams that broke after their first token: 2 with ingle, 1 without",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn a_summary_that_comes_too_early_claims_nothing() {
        let text = summary(&Moment::default(), &Plan::new(45, 36), false, true);
        assert!(text.contains("Stopped after 0 s") && text.contains("no time to compare"), "{text}");
        assert!(!text.contains("sooner") && !text.contains("killed"), "{text}");
    }

    #[test]
    fn a_side_that_is_not_better_is_not_praised() {
        let moment = Moment { round_robin: moment().affinity, ..moment() };
        let text = comparison(&moment).join("\n");
        assert!(!text.contains("times"), "{text}");
    }

    #[test]
    fn texts_fit_a_terminal() {
        let plan = Plan::new(45, 36);
        let texts = [introduction(&plan), killed(18, 2, 14), revived(27), summary(&moment(), &plan, true, false)];
        for line in texts.iter().flat_map(|text| text.lines()) {
            assert!(line.len() <= 96, "{line}");
        }
    }
}
