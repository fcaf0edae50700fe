//! The YAML document as a tree in which every scalar knows where it stands.
//!
//! serde_yaml hands out no positions, except in its errors. So the visitor of a scalar keeps the value aside and
//! fails on purpose; the error says where. The scalar has been consumed by then, and the walk goes on: one pass, every position.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Visitor};
use serde_yaml::Value;

use super::errors::ConfigError;

/// A place in a file. Lines and columns count from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

/// A node and its position: of the scalar itself; of its key for a list or map; of its first scalar for a list or map in a list.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) position: Position,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Scalar(Value),
    List(Vec<Node>),
    /// In file order, duplicates included.
    Map(Vec<(Node, Node)>),
}

/// One step of a key path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Node {
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let slot = Slot::default();
        let start = Position { line: 1, column: 1 };
        let seed = NodeSeed { slot: &slot, place: Place::FirstScalar(start) };
        let node =
            seed.deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| unreadable(&error, text))?;
        match &node.content {
            Content::Scalar(Value::Null) => Err(ConfigError::at(start, EMPTY)),
            Content::Map(_) => Ok(node),
            _ => Err(ConfigError::at(
                node.position,
                "must be a map of keys at the top, such as `listeners:` and `pools:`",
            )),
        }
    }

    /// The node at the end of a path; where the path leaves the tree, the last node that is there.
    pub(super) fn find(&self, path: &[Step]) -> &Self {
        let Some((step, rest)) = path.split_first() else { return self };
        let next = match (&self.content, step) {
            (Content::Map(entries), Step::Key(name)) => {
                entries.iter().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value)
            }
            (Content::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        };
        next.map_or(self, |node| node.find(rest))
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }
}

impl Position {
    /// Where a character would stand that follows this text.
    pub(super) fn after(text: &str) -> Self {
        let last_line = text.rsplit('\n').next().unwrap_or_default();
        Self { line: text.matches('\n').count() + 1, column: last_line.chars().count() + 1 }
    }
}

/// Where a scalar's visitor leaves the value before it fails.
type Slot = Cell<Option<Value>>;

/// What a scalar's visitor fails with; serde_yaml adds the place.
const SCALAR: &str = "a scalar, kept aside";
const EMPTY: &str = "is empty: it needs at least `listeners:` and `pools:`";
const TAG: &str = "tags such as `!name` are not supported: remove it";

/// Reads one node and all below it.
#[derive(Clone, Copy)]
struct NodeSeed<'a> {
    slot: &'a Slot,
    /// Where a list or map stands.
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    /// At its key.
    Fixed(Position),
    /// At its first scalar, or here if it has none.
    FirstScalar(Position),
}

impl<'a> NodeSeed<'a> {
    fn below(self, place: Place) -> NodeSeed<'a> {
        NodeSeed { place, ..self }
    }

    fn keep<E: serde::de::Error>(self, scalar: impl Into<Value>) -> Result<Node, E> {
        self.slot.set(Some(scalar.into()));
        Err(E::custom(SCALAR))
    }
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self).or_else(|error| {
            let scalar = self
                .slot
                .take()
                .ok_or(())
                .map(|value| Node { position: scalar_position(&error.to_string()), content: Content::Scalar(value) });
            scalar.map_err(|()| error)
        })
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Node, E> {
        self.keep(value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
        self.keep(value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Node, E> {
        self.keep(value)
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Node, E> {
        self.keep(value.to_string()) // no key takes a number of that size: any message will quote it
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Node, E> {
        self.keep(value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        self.keep(value)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Node, E> {
        self.keep(value)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
        self.keep(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Node, E> {
        self.keep(Value::Null)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(A::Error::custom(TAG))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let (Place::Fixed(mut last) | Place::FirstScalar(mut last)) = self.place;
        let mut items: Vec<Node> = Vec::new();
        while let Some(item) = list.next_element_seed(self.below(Place::FirstScalar(last)))? {
            last = item.position;
            items.push(item);
        }
        Ok(Node { position: self.place.or_first(items.first()), content: Content::List(items) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let (Place::Fixed(mut last) | Place::FirstScalar(mut last)) = self.place;
        let mut entries: Vec<(Node, Node)> = Vec::new();
        while let Some(key) = map.next_key_seed(self.below(Place::FirstScalar(last)))? {
            last = key.position;
            let value = map.next_value_seed(self.below(Place::Fixed(last)))?;
            entries.push((key, value));
        }
        Ok(Node { position: self.place.or_first(entries.first().map(|(key, _)| key)), content: Content::Map(entries) })
    }
}

impl Place {
    fn or_first(self, first: Option<&Node>) -> Position {
        match (self, first) {
            (Self::FirstScalar(_), Some(node)) => node.position,
            (Self::Fixed(position) | Self::FirstScalar(position), _) => position,
        }
    }
}

/// Reads `... at line 3 column 5`, as serde_yaml ends its messages; it says nothing for the very first character.
fn scalar_position(message: &str) -> Position {
    let tail = message.rsplit_once(SCALAR).map_or("", |(_, tail)| tail);
    let mut numbers = tail.split(' ').filter_map(|word| word.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(line), Some(column)) => Position { line, column },
        _ => Position { line: 1, column: 1 },
    }
}

/// A document that serde_yaml cannot read.
fn unreadable(error: &serde_yaml::Error, text: &str) -> ConfigError {
    let position = error
        .location()
        .map_or(Position { line: 1, column: 1 }, |place| Position { line: place.line(), column: place.column() });
    let full = error.to_string();
    let what = full.replacen(&format!(" at line {} column {}", position.line, position.column), "", 1);
    let line = text.lines().nth(position.line - 1).unwrap_or_default();
    let message = if what.starts_with("EOF") {
        EMPTY.into()
    } else if what.ends_with(TAG) {
        TAG.into()
    } else if what.contains("more than one document") {
        "holds more than one YAML document: remove the `---` between them".into()
    } else if line.trim_start_matches(' ').starts_with('\t') {
        "a tab indents this line: YAML wants spaces".into()
    } else {
        format!("is not valid YAML: {what}")
    };
    ConfigError::at(position, message)
}
