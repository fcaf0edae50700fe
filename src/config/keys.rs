//! Keys that are unknown, given twice, without a value or not text, found by comparing the tree with the schema.
//!
//! What is wrong is reported and left out, so that the rest of the file can still be read and checked.

use serde_json::Value as Json;
use serde_yaml::{Mapping, Value};

use super::errors::ConfigError;
use super::lenient::{quote, quote_text};
use super::node::{Content, Node, Step};

/// Keys of later issues, and what to do until then.
const NOT_YET: [(&str, &str); 2] = [
    ("pools[].backends[].tls", "write the url with https://; files and names are in `pools[].upstream_tls`"),
    ("routes", "not yet supported: everything goes to the one pool"),
];

/// The tree without what is wrong with its keys.
pub(super) struct Keys<'a> {
    root_schema: &'a Json,
    problems: &'a mut Vec<ConfigError>,
    path: Vec<Step>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(root_schema: &'a Json, problems: &'a mut Vec<ConfigError>) -> Self {
        Self { root_schema, problems, path: Vec::new() }
    }

    /// The document as a plain value.
    pub(super) fn check(mut self, root: &Node) -> Value {
        self.node(root, self.root_schema)
    }

    fn node(&mut self, node: &Node, schema: &'a Json) -> Value {
        match &node.content {
            Content::Scalar(scalar) => scalar.clone(),
            Content::List(items) => self.list(items, schema),
            Content::Map(entries) => self.map(entries, schema),
        }
    }

    fn list(&mut self, items: &[Node], schema: &'a Json) -> Value {
        let item_schema = schema.get("items").map_or(&Json::Null, |items| self.resolve(items));
        let items = items.iter().enumerate().map(|(index, item)| {
            self.path.push(Step::Index(index));
            let value = self.node(item, item_schema);
            self.path.pop();
            value
        });
        Value::Sequence(items.collect())
    }

    fn map(&mut self, entries: &[(Node, Node)], schema: &'a Json) -> Value {
        let mut map = Mapping::new();
        for (key, value) in entries {
            let Content::Scalar(Value::String(name)) = &key.content else {
                self.problem(key, "a key must be text".into());
                continue;
            };
            self.path.push(Step::Key(name.clone()));
            if let Some(value) = self.entry(key, name, value, schema, &map) {
                map.insert(Value::from(name.as_str()), value);
            }
            self.path.pop();
        }
        Value::Mapping(map)
    }

    fn entry(&mut self, key: &Node, name: &str, value: &Node, schema: &'a Json, before: &Mapping) -> Option<Value> {
        let known = schema.get("properties").and_then(Json::as_object);
        let property = known.and_then(|keys| keys.get(name));
        if let (Some(known), None) = (known, property) {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            self.problem(key, self.unknown(name, &names));
            return None;
        }
        if before.contains_key(name) {
            self.problem(key, "is given twice in this section: keep one".into());
            return None;
        }
        if matches!(value.content, Content::Scalar(Value::Null)) {
            self.problem(key, "has no value: give it one or remove the key".into());
            return None;
        }
        Some(self.node(value, property.map_or(&Json::Null, |property| self.resolve(property))))
    }

    fn unknown(&self, name: &str, known: &[&str]) -> String {
        let any_item: Vec<Step> = self
            .path
            .iter()
            .map(|step| if let Step::Index(_) = step { Step::Index(0) } else { step.clone() })
            .collect();
        let pattern = path_text(&any_item).replace("[0]", "[]");
        if let Some((_, advice)) = NOT_YET.iter().find(|(at, _)| *at == pattern) {
            return (*advice).to_owned();
        }
        if name == "<<" {
            return "merging with `<<` is not supported: write the keys out, or use an alias for a whole value".into();
        }
        let elsewhere = self.sections_with(name);
        let advice = if let Some(right) = nearest(name, known.iter().copied()) {
            format!("did you mean `{right}`?")
        } else if elsewhere.is_empty() {
            format!("this section has `{}`", known.join("`, `"))
        } else {
            format!("it belongs in {}", elsewhere.join(" or "))
        };
        format!("unknown key; {advice}")
    }

    /// Where keys of this name are known, in alphabetical order.
    fn sections_with(&self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut sections = vec![(String::new(), self.root_schema)];
        while let Some((path, schema)) = sections.pop() {
            for (key, property) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
                if key == name && !path.is_empty() {
                    found.push(format!("`{path}`"));
                }
                let dot = if path.is_empty() { "" } else { "." };
                let mut below = self.resolve(property);
                let mut path = format!("{path}{dot}{key}");
                if let Some(items) = below.get("items") {
                    below = self.resolve(items);
                    path.push_str("[]");
                }
                sections.push((path, below));
            }
        }
        found.sort();
        found
    }

    fn resolve(&self, schema: &'a Json) -> &'a Json {
        let pointer = schema.get("$ref").and_then(Json::as_str).and_then(|reference| reference.strip_prefix('#'));
        pointer.and_then(|pointer| self.root_schema.pointer(pointer)).unwrap_or(schema)
    }

    fn problem(&mut self, key: &Node, message: String) {
        let mut path = path_text(&self.path);
        if let Content::Scalar(scalar @ (Value::Null | Value::Bool(_) | Value::Number(_))) = &key.content {
            let dot = if path.is_empty() { "" } else { "." };
            path = format!("{path}{dot}{}", quote(scalar).trim_matches('`'));
        }
        self.problems.push(ConfigError { position: Some(key.position), path, message });
    }
}

/// `pools[0].backends[1].url`; what is not printable is escaped.
pub(super) fn path_text(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(quote_text(key).trim_matches('`'));
            }
        }
    }
    text
}

/// The word that was probably meant: a third of its letters may be wrong.
pub(super) fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let word = word.to_lowercase().replace('-', "_");
    known
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
