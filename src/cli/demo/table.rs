//! The live table: as a block for terminals, as one line for pipes.

use super::figures::{Figures, Moment};
use super::plan::Plan;
use super::words::{count, percent, seconds};

/// Columns that the block and the lines need.
pub(super) const WIDTH: usize = 79;

/// The block that a terminal redraws, without a newline at its end.
pub(super) fn block(moment: &Moment, plan: &Plan) -> String {
    let clock = format!("{} s of {} s", moment.elapsed.as_secs().min(plan.length.as_secs()), plan.length.as_secs());
    let mut lines =
        vec![String::new(), row(&clock, "with ingle", "round robin"), format!("  {}", "-".repeat(WIDTH - 4))];
    lines.extend(rows(moment));
    lines.push(String::new());
    let backend = |(name, state, running): &(String, &str, usize)| format!("{name} {running} ({state})");
    let backends: Vec<String> = moment.gateway.backends.iter().map(backend).collect();
    lines.push(format!("  requests now: {}", backends.join("  ")));
    lines.join("\n")
}

/// The heading of the lines of a pipe.
pub(super) fn heading() -> String {
    let names = columns("time", ["ingle"; 3].map(|name| pair(name, "round robin")));
    columns("", ["reuse", "first token, median", "first token, slow 1 %"].map(|name| format!("{name:^21}")))
        + "\n"
        + &names
}

/// One line of a pipe.
pub(super) fn line(moment: &Moment) -> String {
    let both = |value: fn(&Figures) -> String| pair(&value(&moment.affinity), &value(&moment.round_robin));
    let cells =
        [both(|f| percent(f.reuse())), both(|f| seconds(f.first_token_p50)), both(|f| seconds(f.first_token_p99))];
    columns(&format!("{} s", moment.elapsed.as_secs()), cells)
}

fn columns(time: &str, [a, b, c]: [String; 3]) -> String {
    format!("{time:>7}   {a}   {b}   {c}").trim_end().to_owned()
}

fn pair(affinity: &str, round_robin: &str) -> String {
    format!("{affinity:>7} | {round_robin:<11}")
}

/// The rows that the block and the summary share.
pub(super) fn rows(moment: &Moment) -> Vec<String> {
    let both =
        |name: &str, value: fn(&Figures) -> String| row(name, &value(&moment.affinity), &value(&moment.round_robin));
    vec![
        both("reuse: prompt tokens found in a cache", |f| percent(f.reuse())),
        both("first token: typical wait (median)", |f| seconds(f.first_token_p50)),
        both("first token: slowest 1 in 100 (p99)", |f| seconds(f.first_token_p99)),
        both("prompt tokens the GPUs had to compute", |f| count(f.computed())),
        both("turns answered", |f| count(f.turns)),
        both("requests failed before their first token", |f| count(f.failed)),
    ]
}

/// A row of three columns.
pub(super) fn row(name: &str, affinity: &str, round_robin: &str) -> String {
    format!("  {name:<43}{affinity:>16}{round_robin:>16}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::figures::GatewayFigures;
    use super::*;

    fn moment() -> Moment {
        let backend = |name: &str, state| (name.to_owned(), state, 12);
        Moment {
            elapsed: Duration::from_millis(12_700),
            affinity: Figures {
                turns: 310,
                requests: 400,
                prompt_tokens: 1_000_000,
                cached_tokens: 876_000,
                first_token_p50: 0.0612,
                first_token_p99: 0.71,
                failed: 0,
                cut: 2,
                stranded: 3,
            },
            round_robin: Figures { turns: 240, first_token_p50: 1.44, failed: 3, ..Figures::default() },
            gateway: GatewayFigures {
                backends: vec![backend("gpu0", "healthy"), backend("gpu1", "unhealthy"), backend("gpu2", "probation")],
                away: 9,
                stayed: 20,
            },
        }
    }

    #[test]
    fn the_block_compares_side_by_side() {
        let text = block(&moment(), &Plan::new(45, 36));
        let expected = "
  12 s of 45 s                                     with ingle     round robin
  ---------------------------------------------------------------------------
  reuse: prompt tokens found in a cache                  88 %               -
  first token: typical wait (median)                    61 ms           1.4 s
  first token: slowest 1 in 100 (p99)                  710 ms               -
  prompt tokens the GPUs had to compute                 124 k               0
  turns answered                                          310             240
  requests failed before their first token                  0               3

  requests now: gpu0 12 (healthy)  gpu1 12 (unhealthy)  gpu2 12 (probation)";
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.len() <= WIDTH));
    }

    #[test]
    fn lines_stand_below_their_heading_and_fit() {
        let (heading, line) = (heading(), line(&moment()));
        let bars = |text: &str| text.char_indices().filter(|(_, c)| *c == '|').map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(bars(heading.lines().last().unwrap()), bars(&line), "\n{heading}\n{line}");
        assert!(heading.lines().chain([line.as_str()]).all(|line| line.len() <= WIDTH));
        assert_eq!(line, "   12 s      88 % | -               61 ms | 1.4 s          710 ms | -");
    }
}
