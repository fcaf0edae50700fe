//! Durations, sizes and shares: numbers that need their unit.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_yaml::Value;

use super::lenient::{Leaf, quote};

/// A duration such as `500ms`, `2s`, `10m`, `1h`; at most a year, so that adding it to a clock cannot overflow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span(pub(super) Duration);

/// A size in bytes, such as `512B`, `64KiB`, `4MiB`, `1GiB`; at most 1024 GiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub(super) u64);

/// A share such as `20%`; 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share(pub(super) f64);

const DURATIONS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const LONGEST_MS: u64 = 365 * 24 * 3_600_000;
const LARGEST: u64 = 1 << 40;

impl Leaf for Span {
    fn read(value: Value) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("{} {what}: write a whole number and ms, s, m or h, such as `500ms`, `2s`, `10m`", quote(&value))
        };
        match &value {
            Value::String(text) => match scaled(text, &DURATIONS) {
                None => Err(wrong("is not a duration")),
                Some(ms) if ms > LONGEST_MS => Err(format!("{} is longer than a year (`8760h`)", quote(&value))),
                Some(ms) => Ok(Self(Duration::from_millis(ms))),
            },
            Value::Number(_) => Err(wrong("has no unit")),
            _ => Err(wrong("is not a duration")),
        }
    }
}

impl Leaf for Size {
    fn read(value: Value) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("{} {what}: write a whole number and B, KiB, MiB or GiB, such as `64KiB`, `4MiB`", quote(&value))
        };
        match &value {
            Value::String(text) => match scaled(text, &SIZES) {
                None => Err(wrong("is not a size")),
                Some(bytes) if bytes > LARGEST => Err(format!("{} is larger than `1024GiB`", quote(&value))),
                Some(bytes) => Ok(Self(bytes)),
            },
            Value::Number(_) => Err(wrong("has no unit")),
            _ => Err(wrong("is not a size")),
        }
    }
}

impl Leaf for Share {
    fn read(value: Value) -> Result<Self, String> {
        let percent = value.as_str().and_then(|text| text.strip_suffix('%')).filter(|number| {
            number.starts_with(|c: char| c.is_ascii_digit()) && number.chars().all(|c| c.is_ascii_digit() || c == '.')
        });
        match percent.and_then(|number| number.parse::<f64>().ok()) {
            Some(percent) if percent <= 100.0 => Ok(Self(percent / 100.0)),
            Some(_) => Err(format!("{} is over `100%`", quote(&value))),
            None => Err(format!("{} is not a share: write a percentage from `0%` to `100%`", quote(&value))),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(LONGEST_MS);
        serializer.collect_str(&with_unit(ms, &DURATIONS, "s"))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&with_unit(self.0, &SIZES, "B"))
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}%", self.0 * 100.0))
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+(ms|s|m|h)$",
            "description": "A duration: a whole number and its unit, such as 500ms, 2s, 10m, 1h."
        })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+(B|KiB|MiB|GiB)$",
            "description": "A size: a whole number and its unit, such as 512B, 64KiB, 4MiB, 1GiB."
        })
    }
}

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(100(\\.0+)?|[0-9]{1,2}(\\.[0-9]+)?)%$",
            "description": "A share from 0% to 100%."
        })
    }
}

/// `12KiB` → 12 · 1024; saturates. `None` for another form or unit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    // More digits than a u64 holds are too many for any unit.
    (!number.is_empty()).then(|| number.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(*factor))
}

/// The largest unit that divides a value.
fn with_unit(value: u64, units: &[(&str, u64)], of_zero: &str) -> String {
    match units.iter().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", value / factor),
        None => format!("{value}{of_zero}"),
    }
}
