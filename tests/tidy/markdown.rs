//! As much of Markdown as the documents use.

/// The rows of the table with this head, as cells.
pub(crate) fn table<'a>(text: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let rows: Vec<&str> = text.lines().skip_while(|line| *line != head).skip(2).collect();
    let rows: Vec<_> = rows.into_iter().take_while(|line| line.starts_with('|')).map(cells).collect();
    assert!(!rows.is_empty(), "no table with the head {head}: has its head changed? Then change it in tests/tidy, too");
    rows
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split(" | ").map(str::trim).collect()
}

/// What stands between backquotes in a line.
pub(crate) fn spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// All code: spans, and the lines of indented and fenced blocks.
pub(crate) fn code(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut code = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") {
            fenced = !fenced;
        } else if fenced || line.starts_with("    ") {
            code.push(trimmed);
        } else {
            code.extend(spans(line));
        }
    }
    code
}

/// The targets of all links.
pub(crate) fn links(text: &str) -> Vec<&str> {
    text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split(')').next()).collect()
}

/// The anchors that GitHub gives the headings.
pub(crate) fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

#[test]
fn the_reader_reads() {
    let text = "# A b, c?\n| a | b |\n|---|---|\n| `x` | 1 |\n| y | [z](w#v) |\n\n    make demo\n";
    assert_eq!(table(text, "| a | b |"), [["`x`", "1"], ["y", "[z](w#v)"]]);
    assert_eq!(code(text), ["x", "make demo"]);
    assert_eq!(links(text), ["w#v"]);
    assert_eq!(anchors(text), ["a-b-c"]);
}
