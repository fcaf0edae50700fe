//! The rules for source files.

use super::files::{File, below};
use super::none;

const SOURCES: [&str; 3] = ["src", "client/src", "sim/src"];

/// The parts of the crate. Each may use those of earlier lines, and nobody of its own line or a later one.
const LAYERS: [&[&str]; 13] = [
    &["tls", "http1", "sse", "log"],
    &["config", "core"],
    &["api"],
    &["clock", "access_log", "gauge", "kept"],
    &["metrics"],
    &["link", "watch", "certificates"],
    &["snapshot"],
    &["reload", "access"],
    &["gateway"],
    &["proxy", "probe", "signals", "admin"],
    &["server"],
    &["cli"],
    &["main"],
];

/// What decisions must not depend on.
const NOT_IN_CORE: [&str; 10] = [
    "tokio",
    "pingora",
    "tracing",
    "prometheus",
    "Instant",
    "SystemTime",
    "std::fs",
    "std::net",
    "std::env",
    "println!",
];

/// The longest a file may be, without its unit tests.
const FILE_LINES: usize = 400;
/// The longest a function may be.
const FUNCTION_LINES: usize = 70;

/// Where in the order a file of `src` is, and the name of its part.
fn part(path: &str) -> Option<(usize, &str)> {
    let rest = path.strip_prefix("src/")?;
    let name = rest.split('/').next()?.trim_end_matches(".rs");
    LAYERS.iter().position(|layer| layer.contains(&name)).map(|layer| (layer, name))
}

/// The first names of all paths from the crate's root in a line: `crate::a::b`, `crate::{a, b::c}`.
fn roots(line: &str) -> Vec<&str> {
    let name = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    line.match_indices("crate::")
        .filter(|(at, _)| !line[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        .flat_map(|(at, word)| match line[at + word.len()..].strip_prefix('{') {
            Some(list) => list.split(',').map(str::trim).map(|item| &item[..name(item)]).collect(),
            None => vec![&line[at + word.len()..][..name(&line[at + word.len()..])]],
        })
        .collect()
}

/// The longest chain of `super::` in a line.
fn supers(line: &str) -> usize {
    (1..).take_while(|n| line.contains(&"super::".repeat(*n))).count()
}

/// How many modules a file of `src` is below the root.
fn depth(path: &str) -> usize {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').count()
}

#[test]
fn imports_run_one_way() {
    let mut wrong = Vec::new();
    for file in below(&["src"], ".rs").iter().filter(|file| file.path != "src/lib.rs") {
        let Some((layer, own)) = part(&file.path) else {
            wrong.push(format!("{}: is in no layer of tests/tidy/code.rs", file.path));
            continue;
        };
        for line in file.code() {
            for used in roots(line) {
                let allowed = used == own || LAYERS[..layer].iter().any(|earlier| earlier.contains(&used));
                if !allowed {
                    wrong.push(format!("{}: `{own}` may not use `{used}`: {}", file.path, line.trim()));
                }
            }
            if supers(line) >= depth(&file.path) {
                wrong.push(format!("{}: say `crate::`, so that it is seen: {}", file.path, line.trim()));
            }
        }
    }
    none(&wrong, "Imports run one way (CONTRIBUTING.md): move what is shared down, or the decision up.");
}

#[test]
fn the_core_is_pure() {
    let mut wrong = Vec::new();
    for file in below(&["src/core"], ".rs") {
        for line in file.code() {
            for word in NOT_IN_CORE.iter().filter(|word| line.contains(*word)) {
                wrong.push(format!("{}: `{word}`: {}", file.path, line.trim()));
            }
        }
    }
    none(&wrong, "The core decides, the shell does: take it as an argument, or return it as a value.");
}

#[test]
fn files_are_short() {
    let files = below(&SOURCES, ".rs");
    let long = files.iter().filter(|file| file.without_tests().len() > FILE_LINES);
    let long: Vec<String> = long.map(|file| format!("{}: {} lines", file.path, file.without_tests().len())).collect();
    none(&long, "A file has one noun and at most 400 lines without its tests: split it.");
}

#[test]
fn functions_fit_a_screen() {
    let files = below(&SOURCES, ".rs");
    let found: Vec<(String, usize)> = files.iter().flat_map(functions).collect();
    assert!(found.len() > 500, "only {} functions: are they still found?", found.len());
    let long = found.iter().filter(|(_, lines)| *lines > FUNCTION_LINES);
    let long: Vec<String> = long.map(|(name, lines)| format!("{name}: {lines} lines")).collect();
    none(&long, "A function fits a screen, at most 70 lines: give a part of it a name.");
}

/// The functions of a file that rustfmt has formatted, with their lines: a body ends where its function is indented.
fn functions(file: &File) -> Vec<(String, usize)> {
    let lines: Vec<&str> = file.text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let last = |line: &&str| {
            line.strip_prefix(indent).is_some_and(|rest| rest == "}" || rest.starts_with(')') && rest.ends_with(';'))
        };
        let more = match line.ends_with(['}', ';']) {
            true => 0,
            false => lines[at + 1..].iter().position(last).map_or(0, |more| more + 1),
        };
        found.push((format!("{}: {name}", file.path), more + 1));
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let modifier = |word: &str| matches!(word, "async" | "const" | "extern" | "unsafe") || word.starts_with("pub");
    let all = before.split_whitespace().all(|word| modifier(word) || word.ends_with(')'));
    all.then(|| after.split(['(', '<']).next().unwrap_or(after))
}

#[test]
fn nothing_is_left_to_do() {
    // In two parts, so that this file does not find itself.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!("), concat!("unimple", "mented!(")];
    let mut left = Vec::new();
    let mut files = below(&["src", "client", "sim", "tests", "benches"], ".rs");
    for end in [".sh", ".py"] {
        files.extend(below(&["scripts"], end));
    }
    for end in [".md", ".yaml", ".yml"] {
        files.extend(below(&["docs", "conf", "deploy"], end));
    }
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                left.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    none(&left, "Do it now, or open an issue and say what is not there yet.");
}

#[test]
fn the_finders_find() {
    assert_eq!(roots("use crate::{config, core::Pool};"), ["config", "core"]);
    assert_eq!(roots("let a = crate::link::x(crate::core::Y); ingle_crate::z"), ["link", "core"]);
    assert_eq!((supers("use super::super::x;"), supers("use super::x;"), supers("x")), (2, 1, 0));
    assert_eq!((depth("src/proxy/retry.rs"), depth("src/proxy/mod.rs"), depth("src/probe.rs")), (2, 1, 1));
    let text = "fn a() {}\n\npub(super) async fn b<T>(\n    t: T,\n) {\n    c();\n}\n\ntrait D {\n    fn e(\n        &self,\n    );\n}\n";
    let found = functions(&File { path: "f".to_owned(), text: text.to_owned() });
    let expected = [("f: a", 1), ("f: b", 5), ("f: e", 3)].map(|(name, lines)| (name.to_owned(), lines));
    assert_eq!(found, expected);
}
