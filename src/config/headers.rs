//! Headers that a backend gets with every request.

use std::borrow::Cow;

use http::HeaderValue;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_yaml::Value;

use super::at::At;
use super::lenient::Leaf;
use super::node::Step;
use crate::http1::{is_hop_by_hop, is_token};

/// A header that a backend gets in place of the clients' own of that name. The value can be a secret: nothing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendHeader {
    /// The name as it is written.
    pub name: String,
    /// The value, marked as sensitive.
    pub value: HeaderValue,
}

/// A map of names and values. What is wrong with a value is known without showing it.
pub(super) struct HeaderMap(Vec<(String, Result<String, &'static str>)>);

impl HeaderMap {
    pub(super) fn new() -> HeaderMap {
        HeaderMap(Vec::new())
    }
}

impl Leaf for HeaderMap {
    fn read(value: Value) -> Result<Self, String> {
        let Value::Mapping(map) = value else {
            return Err("must be a map of header names and values".into());
        };
        let text = |value: Value| match value {
            Value::String(text) => Ok(text),
            Value::Number(number) if number.is_u64() => Ok(number.to_string()),
            _ => Err("is not text: write it in quotes"),
        };
        let name = |name: Value| name.as_str().unwrap_or_default().to_owned();
        Ok(HeaderMap(map.into_iter().map(|(key, value)| (name(key), text(value))).collect()))
    }
}

impl Serialize for HeaderMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().filter_map(|(name, value)| Some((name, value.as_ref().ok()?))))
    }
}

impl JsonSchema for HeaderMap {
    fn schema_name() -> Cow<'static, str> {
        "Headers".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "additionalProperties": { "type": ["string", "integer"] },
            "maxProperties": MOST_HEADERS,
            "description": "Header names and values."
        })
    }
}

/// Checks the headers of a backend.
pub(super) fn headers(map: HeaderMap, at: &mut At<'_>) -> Option<Vec<BackendHeader>> {
    if map.0.len() > MOST_HEADERS {
        return at.note(format!("has {} headers: at most {MOST_HEADERS}", map.0.len()));
    }
    let mut headers: Vec<BackendHeader> = Vec::new();
    let mut is_good = true;
    for (name, value) in map.0 {
        let is_twice = headers.iter().any(|other| other.name.eq_ignore_ascii_case(&name));
        let checked = match check_name(&name) {
            Err(wrong) => Err(wrong),
            Ok(()) if is_twice => Err("is given twice: names of headers have no case"),
            Ok(()) => value.and_then(|value| parse(&value)),
        };
        match checked {
            Ok(value) => headers.push(BackendHeader { name, value }),
            Err(wrong) => {
                is_good = false;
                at.error(&[Step::Key(name)], wrong.to_owned());
            }
        }
    }
    is_good.then_some(headers)
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let lower = name.to_ascii_lowercase();
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err("is not the name of a header");
    }
    if lower == "authorization" {
        return Err("belongs in `api_key_file`");
    }
    if is_hop_by_hop(name.as_bytes()) {
        return Err("belongs to one connection: a backend can't be given it");
    }
    if OWN.contains(&lower.as_str()) || lower.starts_with("x-ingle-") {
        return Err("is a header that ingle sets itself");
    }
    Ok(())
}

fn parse(value: &str) -> Result<HeaderValue, &'static str> {
    let is_plain = value.len() <= LONGEST && value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let value = HeaderValue::from_str(value.trim()).ok().filter(|_| is_plain);
    let mut value =
        value.ok_or("has a value that is too long, or has other characters than visible ASCII and spaces")?;
    value.set_sensitive(true);
    Ok(value)
}

/// What ingle writes for every request.
const OWN: [&str; 9] = [
    "host",
    "content-length",
    "expect",
    "trailer",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-request-id",
];
const MOST_HEADERS: usize = 32;
/// Bytes of a value.
const LONGEST: usize = 4096;
