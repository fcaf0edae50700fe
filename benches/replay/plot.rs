//! A picture of a case: how long users wait, a bar for each role.

use std::fmt::Write as _;

use super::options::{Options, Scenario};
use super::roles::{BASELINE, Kind};
use super::run::{Phase, Run};

/// Two columns of horizontal bars, mean and 99th percentile, the shortest mean first. Bars longer than three times the
/// plain hash's are cut.
pub(crate) fn svg(scenario: Scenario, load: f64, options: &Options, runs: &[Run]) -> String {
    let mut bars: Vec<Bar> = runs.iter().map(Bar::of).collect();
    bars.sort_by(|a, b| a.mean.total_cmp(&b.mean));
    let height = TOP + bars.len() as f64 * ROW + 34.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"26\" font-size=\"17\" font-weight=\"bold\">How long until the first token?</text>\n\
         <text x=\"16\" y=\"47\" fill=\"#555\">{}; {} backends, {:.0} % loaded. Shorter is better.</text>\n",
        scenario.title(),
        options.backends,
        load * 100.0
    );
    let columns: [(&str, f64, Figure); 2] =
        [("mean", LEFT, |bar| bar.mean), ("1 in 100 waits longer (p99)", LEFT + COLUMN + GAP, |bar| bar.p99)];
    for (title, x, value) in columns {
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{}\" fill=\"#555\">{title}</text>", TOP - 8.0);
        column(&mut svg, &bars, x, value);
    }
    for (row, bar) in bars.iter().enumerate() {
        let weight = if bar.look == Look::Ours { "bold" } else { "normal" };
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" font-weight=\"{weight}\">{}</text>",
            LEFT - 8.0,
            TOP + row as f64 * ROW + 15.0,
            bar.name
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"16\" y=\"{}\" fill=\"#555\" font-size=\"11\">Seconds of the trace. Orange: ingle; pale: forms of it to compare with. Grey: other proxies. \
         White: no proxy, the client chooses.</text>\n</svg>",
        height - 12.0
    );
    svg
}

type Figure = fn(&Bar) -> f64;

struct Bar {
    name: &'static str,
    mean: f64,
    p99: f64,
    look: Look,
}

#[derive(PartialEq)]
enum Look {
    Ours,
    /// A form of ingle that nobody would choose.
    OursForComparison,
    Direct,
    Other,
}

impl Bar {
    fn of(run: &Run) -> Self {
        let ttft = run.figures(Phase::All).first_token;
        let look = match run.role.kind {
            Kind::DirectHash | Kind::DirectOracle => Look::Direct,
            Kind::Other(..) => Look::Other,
            Kind::Ingle { pool: "", sessions: true, .. } => Look::Ours,
            Kind::Ingle { .. } => Look::OursForComparison,
        };
        Self { name: run.role.name, mean: ttft.mean, p99: ttft.p99, look }
    }
}

fn column(svg: &mut String, bars: &[Bar], x: f64, value: Figure) {
    let longest = bars.iter().map(value).fold(f64::MIN_POSITIVE, f64::max);
    let baseline = bars.iter().find(|bar| bar.name == BASELINE).map_or(longest, value);
    let full = longest.min(3.0 * baseline);
    for (row, bar) in bars.iter().enumerate() {
        let y = TOP + row as f64 * ROW;
        let length = (value(bar) / full).min(1.0) * (COLUMN - LABEL);
        let (fill, stroke) = match bar.look {
            Look::Ours => ("#e8710a", "#e8710a"),
            Look::OursForComparison => ("#f8d0a8", "#e8710a"),
            Look::Direct => ("white", "#888"),
            Look::Other => ("#b8bcc2", "#b8bcc2"),
        };
        let cut = if value(bar) > full { " \u{2192}" } else { "" };
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\" fill=\"{fill}\" stroke=\"{stroke}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{:.1} s{cut}</text>",
            ROW - 6.0,
            x + length + 5.0,
            y + 14.0,
            value(bar),
        );
    }
}

const WIDTH: f64 = 900.0;
const LEFT: f64 = 250.0;
const COLUMN: f64 = 310.0;
const GAP: f64 = 14.0;
const LABEL: f64 = 70.0;
const TOP: f64 = 84.0;
const ROW: f64 = 25.0;
