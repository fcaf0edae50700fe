//! Values that keep their error instead of ending the parse.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_yaml::Value;

/// A value of the file: not there, not usable (with the reason), or good.
#[derive(Debug, Clone)]
pub(super) enum Lenient<T> {
    Absent,
    Bad(String),
    Good(T),
}

/// What a [`Lenient`] may hold.
pub(super) trait Leaf: Sized {
    /// Reads a value, or says what is wrong with it.
    fn read(value: Value) -> Result<Self, String>;
}

impl<T> Lenient<T> {
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<'de, T: Leaf> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match T::read(Value::deserialize(deserializer)?) {
            Ok(value) => Self::Good(value),
            Err(message) => Self::Bad(message),
        })
    }
}

/// Only defaults are written, for the schema: they are good or absent.
impl<T: Serialize> Serialize for Lenient<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Good(value) => value.serialize(serializer),
            Self::Absent | Self::Bad(_) => serializer.serialize_unit(),
        }
    }
}

/// The schema of what it holds.
impl<T: JsonSchema> JsonSchema for Lenient<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A value in backticks, short and printable whatever it is.
pub(super) fn quote(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        Value::String(text) => text.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'"),
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::Sequence(_) => return "a list".into(),
        Value::Mapping(_) | Value::Tagged(_) => return "a map".into(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}...`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// [`quote`] for text.
pub(super) fn quote_text(text: &str) -> String {
    quote(&Value::from(text))
}
