//! What documents name exists.

use std::collections::{BTreeMap, BTreeSet};

use clap::CommandFactory;
use ingle::cli::Cli;
use ingle::config::Config;

use super::files::{below, papers, read, root};
use super::markdown::{anchors, code, links, spans};
use super::none;

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for paper in papers() {
        for link in links(&paper.text).into_iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let folder = root().join(&paper.path).parent().unwrap().to_owned();
            let target = if path.is_empty() { root().join(&paper.path) } else { folder.join(path) };
            let anchored = |anchor: &str| {
                let text = std::fs::read_to_string(&target).unwrap_or_default();
                anchors(&text).iter().any(|there| there == anchor)
            };
            if !target.exists() || anchor.is_some_and(|anchor| !anchored(anchor)) {
                broken.push(format!("{}: {link}", paper.path));
            }
        }
    }
    none(&broken, "These links of documents lead nowhere: correct them.");
}

#[test]
fn paths_exist() {
    let folders = ["src", "client", "sim", "tests", "benches", "docs", "conf", "deploy", "scripts", "fuzz"];
    let mut missing = Vec::new();
    for paper in papers() {
        for path in paper.text.lines().flat_map(spans) {
            let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
            let ours = path.split_once('/').is_some_and(|(first, _)| folders.contains(&first));
            let source = plain && path.ends_with(".rs") && path.contains('/');
            let bases = [root(), root().join("src"), root().join(&paper.path).parent().unwrap().to_owned()];
            if plain && (ours || source) && !bases.iter().any(|base| base.join(path).exists()) {
                missing.push(format!("{}: {path}", paper.path));
            }
        }
    }
    none(&missing, "Documents name these files, and they are not there: correct the name.");
}

#[test]
fn commands_are_the_binarys() {
    let cli = Cli::command();
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    for paper in papers() {
        for line in code(&paper.text) {
            let Some(rest) = line.strip_prefix("ingle ") else { continue };
            // A heading of such a block, or a sentence, is no command.
            let words: Vec<&str> = rest.split(" #").next().unwrap_or(rest).split_whitespace().collect();
            let Some(command) = words.first().and_then(|name| cli.find_subcommand(name)) else {
                wrong.push(format!("{}: there is no such subcommand: {line}", paper.path));
                continue;
            };
            named.insert(command.get_name().to_owned());
            let unknown = words.iter().filter(|word| word.starts_with('-') && !has_flag(&cli, command, word));
            wrong.extend(unknown.map(|flag| format!("{}: `ingle {}` has no {flag}", paper.path, command.get_name())));
        }
    }
    let all = cli.get_subcommands().map(clap::Command::get_name);
    wrong.extend(all.filter(|name| !named.contains(*name)).map(|name| format!("no document shows `ingle {name}`")));
    none(
        &wrong,
        "Documents show commands that the binary has not, or leave some out: `ingle --help` says what there is.",
    );
}

/// The README's rows on commands name more flags of theirs in further spans.
#[test]
fn flags_in_the_readmes_rows_are_the_binarys() {
    let cli = Cli::command();
    let readme = read("README.md");
    let mut rows = 0;
    let mut wrong = Vec::new();
    for line in readme.text.lines().filter(|line| line.starts_with("| `ingle ")) {
        rows += 1;
        let spans = spans(line);
        let name = spans[0].split_whitespace().nth(1).unwrap();
        let Some(command) = cli.find_subcommand(name) else {
            wrong.push(format!("no subcommand: {name}"));
            continue;
        };
        let flags = spans[1..].iter().filter_map(|span| span.split_whitespace().next());
        let unknown = flags.filter(|word| word.starts_with("--") && !has_flag(&cli, command, word));
        wrong.extend(unknown.map(|flag| format!("`ingle {name}` has no {flag}")));
    }
    assert!(rows >= cli.get_subcommands().count(), "README.md, \"Commands\": a row for each subcommand");
    none(&wrong, "README.md, \"Commands\": `ingle --help` says what there is.");
}

fn has_flag(cli: &clap::Command, command: &clap::Command, word: &str) -> bool {
    let word = word.split('=').next().unwrap_or(word);
    let is = |arg: &clap::Arg| match word.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => arg.get_short().is_some_and(|short| word.trim_start_matches('-') == short.to_string()),
    };
    command.get_arguments().chain(cli.get_arguments()).any(is)
}

#[test]
fn make_targets_exist() {
    let makefile = read("Makefile").text;
    let targets: BTreeSet<&str> =
        makefile.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect();
    let mut missing = Vec::new();
    for paper in papers() {
        for line in code(&paper.text) {
            let target = line.strip_prefix("make ").and_then(|rest| rest.split_whitespace().next());
            missing.extend(target.filter(|name| !targets.contains(name)).map(|name| format!("{}: {name}", paper.path)));
        }
    }
    none(&missing, "Documents name targets that the Makefile has not.");
}

#[test]
fn whole_configs_in_documents_are_valid() {
    let mut wrong = Vec::new();
    let mut found = 0;
    for paper in papers() {
        let lines: Vec<&str> = paper.text.lines().collect();
        let begins = lines.iter().enumerate().filter(|(_, line)| line.trim_start().starts_with("listeners:"));
        for (at, first) in begins {
            found += 1;
            let indent = first.len() - first.trim_start().len();
            let within = |line: &&&str| line.len() > indent && line[..indent].trim().is_empty();
            let block: Vec<&str> = lines[at..].iter().take_while(within).map(|line| &line[indent..]).collect();
            let block: Vec<&str> = block.into_iter().take_while(|line| !line.starts_with("```")).collect();
            if let Err(errors) = Config::parse(&block.join("\n"), &paper.path) {
                wrong.push(format!("{}, the config in line {}: {errors}", paper.path, at + 1));
            }
        }
    }
    assert!(found >= 2, "the README and docs/migration.md have a whole config each");
    none(&wrong, "A reader will copy these configs.");
}

#[test]
fn tests_named_in_documents_exist() {
    let there = tests();
    let mut missing = Vec::new();
    let mut named = BTreeMap::<String, usize>::new();
    for paper in papers().iter().filter(|paper| paper.path.starts_with("docs/") || paper.path == "SECURITY.md") {
        for name in paper.text.lines().flat_map(spans).filter(|span| names_a_test(span)) {
            *named.entry(paper.path.clone()).or_default() += 1;
            if !there.contains(name) {
                missing.push(format!("{}: {name}", paper.path));
            }
        }
    }
    for path in ["docs/failure-modes.md", "SECURITY.md"] {
        assert!(named.get(path).is_some_and(|named| *named > 50), "{path} names the tests that hold each row");
    }
    none(&missing, "Documents name these tests, and they are not there: correct the name, or write the test.");
}

/// Whether each row says who holds it: a test, or a command.
#[test]
fn every_claim_is_held_by_something() {
    let security = read("SECURITY.md").text;
    let lines: Vec<&str> = security.lines().collect();
    let heads = lines.iter().enumerate().filter(|(_, line)| **line == "| claim | held by |");
    let rows: Vec<&str> =
        heads.flat_map(|(at, _)| lines[at + 2..].iter().take_while(|line| line.starts_with('|'))).copied().collect();
    assert!(rows.len() > 20, "SECURITY.md: only {} claims: has the head of its tables changed?", rows.len());
    let held = |row: &str| {
        let by = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap_or_default();
        by.starts_with("the command `make ") || spans(by).iter().any(|span| names_a_test(span))
    };
    let bare: Vec<String> = rows.into_iter().filter(|row| !held(row)).map(str::to_owned).collect();
    none(
        &bare,
        "SECURITY.md: name the test that holds this claim, or say under \"What is not there\" that nobody does.",
    );
}

/// Whether it looks like the name of a test of ours.
fn names_a_test(span: &str) -> bool {
    let binaries =
        ["gateway", "faults", "hostile", "placement", "memory", "simulation", "fuzz", "demo", "real", "tidy", "ingle"];
    let test = span.split_once("::").is_some_and(|(first, rest)| binaries.contains(&first) && !rest.is_empty());
    test && span.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
}

/// The table of faults has a row for each scenario, in its own words.
#[test]
fn the_page_of_faults_is_the_suites() {
    let page = read("docs/faults.md").text;
    let all = scenarios();
    assert!(all.len() > 60, "only {} scenarios: are they still found?", all.len());
    let missing = all.iter().filter(|(name, head)| {
        let name = name.rsplit("::").next().unwrap_or_default();
        !page.contains(&format!("| `{name}` {head} |"))
    });
    let missing: Vec<String> = missing.map(|(name, head)| format!("{name}: {head}")).collect();
    none(&missing, "docs/faults.md: `make faults` writes it anew.");
}

/// The fault suite's scenarios, as `faults::group::name`, and their heads.
fn scenarios() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in below(&["tests/faults"], ".rs") {
        let group = file.path["tests/".len()..].trim_end_matches(".rs").replace('/', "::");
        for call in ["scenario(", "not_applicable("] {
            for (at, _) in file.text.match_indices(call) {
                let strings: Vec<&str> = file.text[at + call.len()..].splitn(5, '"').collect();
                if let [before, name, between, head, _] = strings[..]
                    && before.trim().is_empty()
                    && between.trim() == ","
                {
                    found.push((format!("{group}::{name}"), head.to_owned()));
                }
            }
        }
    }
    found
}

/// All tests, as `binary::module::name`; unit tests as `ingle::module::name`.
fn tests() -> BTreeSet<String> {
    let mut names: BTreeSet<String> = scenarios().into_iter().map(|(name, _)| name).collect();
    for file in below(&["src", "tests"], ".rs") {
        let module = match file.path.strip_prefix("src/") {
            Some(path) => format!("ingle/{path}"),
            None => file.path["tests/".len()..].to_owned(),
        };
        let module =
            module.trim_end_matches(".rs").trim_end_matches("/main").trim_end_matches("/mod").replace('/', "::");
        let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
        for (at, _) in lines.iter().enumerate().filter(|(_, line)| is_test(line)) {
            let function =
                lines[at + 1..].iter().find_map(|line| line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn "));
            names.extend(function.and_then(|rest| rest.split('(').next()).map(|name| format!("{module}::{name}")));
        }
    }
    names
}

fn is_test(line: &str) -> bool {
    line == "#[test]" || line.starts_with("#[tokio::test")
}
