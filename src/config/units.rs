//! Durations, sizes, shares and rates: numbers that need their unit.

use std::borrow::Cow;
use std::num::NonZeroU32;
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

/// A rate such as `100/s`, `600/min`, `10000/h`; up to 1,000,000 in each. `0/s` is off.
#[derive(Debug, Clone, Copy)]
pub(super) struct PerTime(pub(super) Option<Rate>);

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How often in each period: 1..=1,000,000.
    pub count: NonZeroU32,
    /// A second, a minute or an hour.
    pub period: Duration,
}

impl Rate {
    /// How many may come at once after a pause: what the rate gives in a second, at least 10, and never more
    /// than the rate gives in its whole period.
    ///
    /// `600/min` is a longer word for 10 a second, not a right to 600 at once. Services that publish their limits per minute
    /// enforce them over shorter times, too: OpenAI says that 60,000 a minute may be enforced as 1,000 a second ("Rate
    /// limits", 2025).
    #[must_use]
    pub fn burst(self) -> u32 {
        let in_a_second = u64::from(self.count.get()).div_ceil(self.period.as_secs().max(1));
        u32::try_from(in_a_second).unwrap_or(u32::MAX).max(LEAST_BURST).min(self.count.get())
    }
}

/// An agent calls several tools at once and then answers: a handful together is no misuse at any rate.
const LEAST_BURST: u32 = 10;
const PERIODS: [(&str, u64); 3] = [("/h", 3600), ("/min", 60), ("/s", 1)];
const OFTENEST: u32 = 1_000_000;
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

impl Leaf for PerTime {
    fn read(value: Value) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("{} {what}: write a whole number and /s, /min or /h, such as `100/s`, `600/min`", quote(&value))
        };
        let text = match &value {
            Value::String(text) => text,
            Value::Number(_) => return Err(wrong("has no unit")),
            _ => return Err(wrong("is not a rate")),
        };
        let Some(slash) = text.find('/') else {
            return Err(wrong(if ["off", "none", "unlimited"].contains(&text.as_str()) {
                "is not a rate (`0/s` turns it off)"
            } else {
                "is not a rate"
            }));
        };
        let period = PERIODS.iter().find(|(unit, _)| *unit == &text[slash..]);
        let (Some((_, seconds)), Some(count)) = (period, scaled(&text[..slash], &[("", 1)])) else {
            return Err(wrong("is not a rate"));
        };
        match u32::try_from(count) {
            Ok(count) if count <= OFTENEST => {
                Ok(Self(NonZeroU32::new(count).map(|count| Rate { count, period: Duration::from_secs(*seconds) })))
            }
            _ => Err(format!("{} is more than {OFTENEST}", quote(&value))),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&duration(self.0))
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

impl Serialize for PerTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(Rate { count, period }) = self.0 else { return serializer.serialize_str("0/s") };
        let unit = PERIODS.iter().find(|(_, seconds)| *seconds == period.as_secs()).map_or("/s", |(unit, _)| unit);
        serializer.collect_str(&format_args!("{count}{unit}"))
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

impl JsonSchema for PerTime {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]{1,7}/(s|min|h)$",
            "description": "A rate: a whole number up to 1000000 for each second, minute or hour, such as 100/s, 600/min, 10000/h; 0/s is off."
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

/// A duration as the config file has it: `500ms`, `5m`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    with_unit(u64::try_from(duration.as_millis()).unwrap_or(LONGEST_MS), &DURATIONS, "s")
}

/// The largest unit that divides a value.
fn with_unit(value: u64, units: &[(&str, u64)], of_zero: &str) -> String {
    match units.iter().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", value / factor),
        None => format!("{value}{of_zero}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Result<Option<(u32, u64, u32)>, String> {
        let read = PerTime::read(Value::from(text))?;
        assert_eq!(serde_yaml::to_value(read).unwrap(), if read.0.is_some() { text } else { "0/s" });
        Ok(read.0.map(|rate| (rate.count.get(), rate.period.as_secs(), rate.burst())))
    }

    #[test]
    fn rates_and_what_may_come_at_once() {
        assert_eq!(rate("100/s"), Ok(Some((100, 1, 100))));
        assert_eq!(rate("3/s"), Ok(Some((3, 1, 3))));
        assert_eq!(rate("600/min"), Ok(Some((600, 60, 10))));
        assert_eq!(rate("1210/min"), Ok(Some((1210, 60, 21))));
        assert_eq!(rate("10000/h"), Ok(Some((10_000, 3600, 10))));
        assert_eq!(rate("1/h"), Ok(Some((1, 3600, 1))));
        assert_eq!(rate("1000000/h"), Ok(Some((1_000_000, 3600, 278))));
        assert_eq!(rate("0/s"), Ok(None));
        assert_eq!(rate("0/h"), Ok(None));
    }

    #[test]
    fn what_is_no_rate() {
        let advice = "write a whole number and /s, /min or /h, such as `100/s`, `600/min`";
        for text in ["fast", "100", "/s", "-1/s", "1.5/s", "100 /s", "100/ s", "100/m", "100/d", "100/S", "1/2/s", ""] {
            assert_eq!(rate(text), Err(format!("`{text}` is not a rate: {advice}")));
        }
        assert_eq!(rate("off"), Err(format!("`off` is not a rate (`0/s` turns it off): {advice}")));
        assert_eq!(rate("1000001/s"), Err("`1000001/s` is more than 1000000".into()));
        assert_eq!(rate("99999999999999999999/h"), Err("`99999999999999999999/h` is more than 1000000".into()));
        let read = |value| PerTime::read(value).unwrap_err();
        assert_eq!(read(Value::from(100)), format!("`100` has no unit: {advice}"));
        assert_eq!(read(Value::from(vec![1])), format!("a list is not a rate: {advice}"));
    }
}
