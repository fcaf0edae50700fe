//! What happens when a backend has enough to do, as configured.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_yaml::Value;

use super::lenient::{Leaf, quote};

/// How much of a pool's work one backend may have, and what becomes of a request that finds its backend full.
#[derive(Debug, Clone, PartialEq)]
pub struct Overload {
    /// The hard bound: a backend with that many requests in flight gets no more.
    pub max_in_flight: MaxInFlight,
    /// The soft bound: how many times its fair share of the requests in flight a backend may have; `None` is unbounded.
    /// Over 1, up to 100.
    pub balance_factor: Option<f64>,
    /// Requests in flight that every backend may have whatever its fair share is: 1..=1,000,000.
    pub balance_floor: u32,
    /// How long a session's request waits for a place where it belongs before it spills to another backend, up to
    /// 10 min; `None` never waits (written `0s`).
    pub queue_wait: Option<Duration>,
    /// The most requests that wait at one backend: 1..=1,000,000.
    pub max_waiting: u32,
}

/// The most requests in flight at one backend. Written `0`, a whole number, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxInFlight {
    /// Unbounded.
    Off,
    /// The same for each backend: 1..=1,000,000.
    Fixed(u32),
    /// As many as the backend has slots, by its own account; unbounded where that is not known.
    Auto,
}

impl Leaf for MaxInFlight {
    fn read(value: Value) -> Result<Self, String> {
        let wrong = |advice: &str| Err(format!("{} is not a whole number or `auto`{advice}", quote(&value)));
        match value.as_str() {
            Some("auto") => return Ok(Self::Auto),
            Some("off" | "none" | "unlimited") => return wrong("; `0` turns it off"),
            Some(text) if text.parse::<u64>().is_ok() => return wrong(": write the number without quotes"),
            _ => {}
        }
        match value.as_u64() {
            None => wrong(""),
            Some(0) => Ok(Self::Off),
            Some(count) => match u32::try_from(count) {
                Ok(fits) if fits <= MOST_REQUESTS => Ok(Self::Fixed(fits)),
                _ => Err(format!("{count} is not from 0 to {MOST_REQUESTS}")),
            },
        }
    }
}

impl Serialize for MaxInFlight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_u32(0),
            Self::Fixed(count) => serializer.serialize_u32(*count),
            Self::Auto => serializer.serialize_str("auto"),
        }
    }
}

impl JsonSchema for MaxInFlight {
    fn schema_name() -> Cow<'static, str> {
        "MaxInFlight".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "0 is off; a number of requests; auto: as many as the backend has slots.",
            "oneOf": [{ "type": "integer", "minimum": 0, "maximum": MOST_REQUESTS }, { "const": "auto" }]
        })
    }
}

/// The bound of every count of requests: as many as there can be clients (`limits.max_connections`).
pub(super) const MOST_REQUESTS: u32 = 1_000_000;
