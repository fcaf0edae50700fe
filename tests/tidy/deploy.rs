//! What operators copy.

use std::collections::BTreeSet;

use ingle::config::Config;
use serde_json::Value;

use super::files::{below, papers, read, root};
use super::none;
use super::tables::families;

#[test]
fn shipped_configs_are_valid() {
    let mut paths: Vec<String> = below(&["conf"], ".yaml").into_iter().map(|file| file.path).collect();
    paths.push("deploy/docker/ingle.yaml".to_owned());
    let wrong = paths.iter().filter_map(|path| Config::load(root().join(path)).err());
    none(&wrong.map(|errors| errors.to_string()).collect::<Vec<_>>(), "Operators copy these files: correct them.");
}

#[test]
fn the_rules_ask_for_metrics_that_there_are() {
    let rules = read("deploy/prometheus/rules.yml").text;
    none(&unknown([rules.as_str()]), "deploy/prometheus/rules.yml: these are neither metrics nor recorded there.");
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/ingle.json").text).unwrap();
    let mut texts = Vec::new();
    strings(&dashboard, &mut texts);
    assert!(texts.iter().any(|text| text.contains("ingle_prompt_tokens_total")), "the number that ingle exists for");
    none(&unknown(texts), "deploy/grafana/ingle.json: these are neither metrics nor recorded.");
}

#[test]
fn documents_speak_of_metrics_that_there_are() {
    let papers: Vec<_> = papers().into_iter().filter(|paper| !paper.path.starts_with("client/")).collect();
    none(&unknown(papers.iter().map(|paper| paper.text.as_str())), "Documents name metrics that there are not.");
}

/// What looks like a metric or a recorded series, and is none.
fn unknown<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let metrics = families();
    let rules = read("deploy/prometheus/rules.yml").text;
    let recorded: BTreeSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    let known = |word: &str| match word.contains(':') {
        // `ingle_backend:…` stands for several.
        true => recorded.contains(word) || recorded.iter().any(|name| word.ends_with(':') && name.starts_with(word)),
        false => {
            let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
            metrics.contains_key(word) || name.is_some_and(|name| metrics.contains_key(name))
        }
    };
    let in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let words = texts.into_iter().flat_map(|text| text.split(move |c| !in_word(c)));
    // `ingle::core` is a path in the code, `ingle:local` an image; a recorded series has two colons.
    let series =
        |word: &&str| word.starts_with("ingle_") || word.starts_with("ingle:") && word.matches(':').count() > 1;
    let words: BTreeSet<&str> = words.filter(series).filter(|word| !word.contains("::")).collect();
    words.into_iter().filter(|word| !known(word)).map(str::to_owned).collect()
}

fn strings<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| strings(field, found)),
        _ => {}
    }
}
