//! The README's tables are the code's.

use std::collections::{BTreeMap, BTreeSet};

use ingle::config::Config;
use ingle::core::hints::Hint;
use ingle::core::{Affinity, Signals, State};
use ingle::metrics::Metrics;
use ingle::snapshot::Snapshot;
use serde_json::Value;

use super::files::read;
use super::markdown::{spans, table};
use super::none;

/// What is said of a key where nothing is said of its default.
const REQUIRED: &str = "required";

#[test]
fn every_config_key_stands_in_the_readme_with_its_default() {
    let readme = read("README.md").text;
    let rows = table(&readme, "| key | default | meaning |");
    let written: BTreeMap<&str, &str> = rows.iter().map(|row| (row[0].trim_matches('`'), row[1])).collect();
    let schema = ingle::config::schema();
    let mut keys = BTreeMap::new();
    leaves(&schema, &schema, "", &mut keys);
    let mut wrong = Vec::new();
    for (key, default) in &keys {
        match (written.get(key.as_str()), default) {
            (None, _) => wrong.push(format!("`{key}` ({default:?}) is missing")),
            (Some(cell), Some(default)) if cell != default => {
                wrong.push(format!("`{key}`: {cell} should be {default}"))
            }
            (Some(cell), None) if *cell == REQUIRED || cell.contains('`') => {
                wrong.push(format!("`{key}`: {cell}: it has no fixed default; say in words what is taken"));
            }
            _ => {}
        }
    }
    wrong.extend(written.keys().filter(|key| !keys.contains_key(**key)).map(|key| format!("`{key}` is no key")));
    none(&wrong, "README.md, \"Configuration\": make the table say what src/config/file.rs and defaults.rs say.");
}

/// The keys below a node that have no keys below them, each as the README should say its default; `None` if it has
/// neither one nor is required.
fn leaves(schema: &Value, node: &Value, path: &str, keys: &mut BTreeMap<String, Option<String>>) {
    let Some(properties) = node["properties"].as_object() else { return };
    for (name, property) in properties {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let kind = resolve(schema, property);
        let item = resolve(schema, &kind["items"]);
        if kind["properties"].is_object() {
            leaves(schema, kind, &path, keys);
        } else if item["properties"].is_object() {
            leaves(schema, item, &format!("{path}[]"), keys);
        } else {
            let required = node["required"].as_array().is_some_and(|all| all.contains(&Value::from(name.as_str())));
            let default = property.get("default").map(|default| format!("`{}`", as_yaml(default)));
            keys.insert(path, if required { Some(REQUIRED.to_owned()) } else { default });
        }
    }
}

fn resolve<'a>(schema: &'a Value, node: &'a Value) -> &'a Value {
    let reference = node["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    reference.map_or(node, |pointer| schema.pointer(pointer).unwrap())
}

fn as_yaml(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(as_yaml).collect::<Vec<_>>().join(", ")),
        Value::Number(number) => number.to_string().trim_end_matches(".0").to_owned(),
        other => other.to_string(),
    }
}

/// The families of `/metrics`, with their labels and the values that each label has from the start.
pub(crate) fn families() -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let text = "listeners: [{ address: 127.0.0.1:1 }]\npools: [{ name: p, backends: [{ url: http://127.0.0.1:2 }] }]";
    let metrics = Metrics::new().unwrap();
    let snapshot = Snapshot::new(Config::parse(text, "tidy").unwrap(), &metrics);
    // What backends say of themselves has a series only once they have said it.
    let said = Signals { slots: Some(1), running: Some(1), waiting: Some(1), kv_usage: Some(1.0) };
    snapshot.pool.members()[0].backend.set_signals(said);
    metrics.certificates.set(&[("cert.pem".to_owned(), 0)]);
    let rendered = metrics.render("p", &snapshot.pool, 0);
    let mut families = BTreeMap::<String, BTreeMap<String, BTreeSet<String>>>::new();
    for line in rendered.lines().filter(|line| !line.starts_with('#')) {
        let labelled = line.rsplit_once('}').and_then(|(series, _)| series.split_once('{'));
        let (name, labels) = labelled.unwrap_or_else(|| (line.split(' ').next().unwrap(), ""));
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let family = families.entry(name.to_owned()).or_default();
        for (label, value) in
            labels.split(',').filter_map(|pair| pair.split_once('=')).filter(|(label, _)| *label != "le")
        {
            family.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
        }
    }
    families
}

#[test]
fn every_metric_stands_in_the_readme_with_its_labels() {
    let readme = read("README.md").text;
    let mut wrong = Vec::new();
    let mut written = BTreeSet::new();
    let families = families();
    for row in table(&readme, "| metric | labels | meaning |") {
        let name = row[0].trim_matches('`');
        written.insert(name.to_owned());
        let Some(labels) = families.get(name) else {
            wrong.push(format!("`{name}` is no metric"));
            continue;
        };
        let said: BTreeSet<&str> = spans(row[1]).into_iter().collect();
        let there: BTreeSet<&str> = labels.keys().map(String::as_str).collect();
        if said != there {
            wrong.push(format!("`{name}` has the labels {there:?}, not {said:?}"));
        }
        // The values of these are told nowhere else.
        for label in ["reason", "phase", "result"] {
            let values =
                labels.get(label).into_iter().flatten().filter(|value| !spans(row[2]).contains(&value.as_str()));
            wrong.extend(values.map(|value| format!("`{name}`: its row does not name {label} `{value}`")));
        }
    }
    wrong.extend(families.keys().filter(|name| !written.contains(*name)).map(|name| format!("`{name}` is missing")));
    none(&wrong, "README.md, \"Metrics\": make the table say what src/metrics.rs says.");
}

#[test]
fn every_outcome_and_state_stands_in_the_readme() {
    let readme = read("README.md").text;
    let first = |head: &str| -> BTreeSet<String> {
        table(&readme, head).iter().map(|row| row[0].trim_matches('`').to_owned()).collect()
    };
    let mut outcomes: BTreeSet<String> = Affinity::ALL.iter().map(|outcome| outcome.as_str().to_owned()).collect();
    outcomes.insert("none".to_owned());
    assert_eq!(first("| outcome | meaning |"), outcomes, "README.md: core::Affinity says what outcomes there are");
    let states: BTreeSet<String> = State::ALL.iter().map(|state| state.as_str().to_owned()).collect();
    assert_eq!(first("| state | serves | meaning |"), states, "README.md: core::State says what states there are");
    for row in table(&readme, "| state | serves | meaning |") {
        let state = State::ALL.into_iter().find(|state| state.as_str() == row[0].trim_matches('`')).unwrap();
        assert_eq!(row[1] == "yes", state.serves(), "README.md: whether {} serves", row[0]);
    }
}

#[test]
fn every_hint_stands_in_the_readme() {
    let readme = read("README.md").text;
    let rows = table(&readme, "| hint | it means | what to do |");
    let written: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    assert_eq!(written, Hint::ALL.map(Hint::as_str), "README.md: core::hints says what hints there are");
    let limits = read("src/core/hints/finding.rs").text;
    for (row, hint) in rows.iter().zip(Hint::ALL) {
        let name = hint.as_str().to_uppercase();
        let numbers = limits
            .lines()
            .find_map(|line| line.strip_prefix(&format!("const {name}: Limit = "))?.split_once("least: "));
        let numbers =
            numbers.map(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty()));
        for number in numbers.into_iter().flatten() {
            assert!(row[1].contains(number), "README.md: the row of {} does not name its limit {number}", row[0]);
        }
    }
}

#[test]
fn test_vectors_in_the_readme_are_those_of_the_placement_page() {
    let (readme, placement) = (read("README.md").text, read("docs/placement.md").text);
    let section =
        readme.split("## Computing a home").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    let lines: Vec<&str> = section.lines().filter(|line| line.starts_with("    ") || line.starts_with("| `")).collect();
    assert!(lines.len() > 10, "README.md, \"Computing a home\": the formula and the vectors are gone");
    let wrong: Vec<String> =
        lines.iter().filter(|line| !placement.contains(**line)).map(|line| (*line).to_owned()).collect();
    none(
        &wrong,
        "README.md, \"Computing a home\": copy these lines from docs/placement.md, which tests/placement.rs reads.",
    );
}
