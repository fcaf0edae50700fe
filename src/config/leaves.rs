//! How each kind of value is read, and what is said when it is of another kind.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_yaml::Value;

use super::file::{
    AccessSection, AdminSection, AffinitySection, BackendSection, CertificateSection, DrainSection, HealthCheckSection,
    HoldSection, LimitsSection, ListenerSection, ListenerTlsSection, OverloadSection, PerClientSection, PoolSection,
    ReloadSection, RetrySection, ShutdownSection, SignalsSection, TimeoutsSection, UpstreamTlsSection,
};
use super::keys::nearest;
use super::lenient::{Leaf, Lenient, quote};
use super::{AccessLog, Balance, Cors, DrainSessions, Policy, ProbeKind, RetryUntil, ReturnHome, ServerKind};

impl Leaf for bool {
    fn read(value: Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| format!("{} is not `true` or `false`", quote(&value)))
    }
}

impl Leaf for u64 {
    fn read(value: Value) -> Result<Self, String> {
        value.as_u64().ok_or_else(|| format!("{} is not a whole number", quote(&value)))
    }
}

impl Leaf for f64 {
    fn read(value: Value) -> Result<Self, String> {
        value.as_f64().ok_or_else(|| format!("{} is not a number", quote(&value)))
    }
}

impl Leaf for String {
    fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(text),
            Value::Number(_) | Value::Bool(_) => {
                let plain = quote(&value);
                Err(format!("{plain} is not text: write it in quotes, \"{}\"", plain.trim_matches('`')))
            }
            other => Err(format!("{} is not text", quote(&other))),
        }
    }
}

impl<T: Leaf> Leaf for Vec<Lenient<T>> {
    fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::Sequence(items) => {
                Ok(items.into_iter().map(|item| T::read(item).map_or_else(Lenient::Bad, Lenient::Good)).collect())
            }
            Value::Mapping(_) => Err("must be a list: begin each item with `- `".into()),
            other => Err(format!("must be a list: write [{}]", quote(&other).trim_matches('`'))),
        }
    }
}

/// `keys` has removed what serde would refuse.
fn read_section<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    match value {
        Value::Mapping(_) => serde_yaml::from_value(value).map_err(|error| error.to_string()),
        other => Err(format!("must be a map of keys, not {}", quote(&other))),
    }
}

/// The schema knows the words.
fn read_choice<T: DeserializeOwned + JsonSchema>(value: &Value) -> Result<T, String> {
    serde_yaml::from_value(value.clone()).map_err(|_| {
        let words = words(&schemars::schema_for!(T).to_value());
        let hint = value.as_str().and_then(|text| nearest(text, words.iter().map(String::as_str)));
        let hint = hint.map(|word| format!("; did you mean `{word}`?")).unwrap_or_default();
        format!("{} is not one of `{}`{hint}", quote(value), words.join("`, `"))
    })
}

fn words(schema: &serde_json::Value) -> Vec<String> {
    let of = |key: &str| schema.get(key).and_then(serde_json::Value::as_array).into_iter().flatten();
    let listed = of("enum").filter_map(|word| word.as_str().map(str::to_owned));
    let documented = of("oneOf").flat_map(|variant| {
        let constant = variant.get("const").and_then(|word| word.as_str().map(str::to_owned));
        constant.into_iter().chain(words(variant))
    });
    listed.chain(documented).collect()
}

/// Reads each of these types in the same way.
macro_rules! read_as {
    ($read:expr; $($name:ident)*) => {$(
        impl Leaf for $name {
            fn read(value: Value) -> Result<Self, String> {
                $read(value)
            }
        }
    )*};
}

read_as!(|value| read_choice(&value); AccessLog Balance Cors DrainSessions Policy ProbeKind ReturnHome RetryUntil ServerKind);
read_as!(read_section; CertificateSection ListenerTlsSection PerClientSection UpstreamTlsSection);
read_as!(read_section; AccessSection AdminSection AffinitySection BackendSection HealthCheckSection LimitsSection ListenerSection);
read_as!(read_section; DrainSection HoldSection OverloadSection PoolSection ReloadSection RetrySection ShutdownSection SignalsSection TimeoutsSection);
