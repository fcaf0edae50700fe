//! The Markdown table of a workload.

use super::figures::{Column, Compare, DIRECT, Results, Row};

/// A row for each proxy.
pub(crate) fn markdown(results: &Results, baseline: &str) -> String {
    let baseline = results.row(baseline);
    let direct = results.row(DIRECT);
    let heads: Vec<String> = results.columns.iter().flat_map(heads).collect();
    let mut lines = vec![format!("| proxy | {} |", heads.join(" | ")), format!("|---{}|", "|---".repeat(heads.len()))];
    for row in &results.rows {
        let cells =
            results.columns.iter().enumerate().flat_map(|(at, column)| cells(row, at, column, baseline, direct));
        lines.push(format!("| {} | {} |", row.name, cells.collect::<Vec<_>>().join(" | ")));
    }
    for row in results.rows.iter().filter(|row| !row.failures.is_empty()) {
        let rounds = row.rounds.len();
        lines.push(format!("\n{} failed in {} of {rounds} rounds: {}", row.name, row.failures.len(), row.failures[0]));
    }
    lines.join("\n")
}

fn heads(column: &Column) -> Vec<String> {
    match column.compare {
        Compare::Nothing => vec![column.head.clone()],
        Compare::Ratio => vec![column.head.clone(), "ratio".to_owned()],
        Compare::Added => vec![format!("added {}", column.head)],
    }
}

fn cells(row: &Row, at: usize, column: &Column, baseline: Option<&Row>, direct: Option<&Row>) -> Vec<String> {
    let median = row.median(at);
    match column.compare {
        Compare::Nothing => vec![cell(median, column.unit)],
        Compare::Ratio => {
            let ratio = baseline.map_or(f64::NAN, |baseline| row.ratio(at, baseline));
            vec![cell(median, column.unit), if ratio.is_finite() { format!("{ratio:.2}") } else { NONE.to_owned() }]
        }
        Compare::Added if row.name == DIRECT => vec![format!("({})", cell(median, column.unit))],
        Compare::Added => {
            vec![cell(direct.map_or(f64::NAN, |direct| row.added(at, direct)), column.unit)]
        }
    }
}

/// Three significant digits, except for counts, which have no unit.
fn cell(value: f64, unit: &str) -> String {
    match value.abs() {
        _ if !value.is_finite() => NONE.to_owned(),
        _ if unit.is_empty() => format!("{value:.0}"),
        size if size < 10.0 => format!("{value:.2} {unit}"),
        size if size < 100.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// In place of a figure that there is not.
const NONE: &str = "-";
