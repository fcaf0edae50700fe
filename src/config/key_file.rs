//! Files of API keys: who may come, and how much each may ask for.
//!
//! A line for each key: a name, the SHA-256 of the key, and limits, which are optional.
//!
//! ```text
//! # name  hash                limits
//! alice   sha256:9f86d081...  requests=600/min in_flight=4 weight=2
//! alice   sha256:60303ae2...
//! ```
//!
//! A name may have several keys, so that one can take another's place; its limits hold for all of them together and
//! stand with the first. Nothing that is said of a mistake shows what stands in the file: it may be a key.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_yaml::Value;

use super::lenient::Leaf;
use super::secret::Digest;
use super::units::{PerTime, Rate};
use crate::tls;

/// What a file of API keys says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyFile {
    /// Who has keys, in the order of the file; no two names alike.
    pub holders: Vec<Holder>,
}

/// Somebody who has keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Metric label and name in logs: 1 to 255 visible ASCII characters, never `none`.
    pub name: String,
    /// The keys: at least one; nobody else has any of them.
    pub keys: Vec<Digest>,
    /// How many requests; `None` is unlimited.
    pub requests: Option<Rate>,
    /// The most requests at once, at least 1; `None` is unlimited.
    pub in_flight: Option<usize>,
    /// How many requests are served in one turn while others wait, too: 1 to 100.
    pub weight: u32,
}

/// Each name is a label of metrics.
const MOST_HOLDERS: usize = 10_000;
const LONGEST_NAME: usize = 255;
/// Requests at once that a limit may allow.
const MOST_IN_FLIGHT: usize = 1_000_000;
const MAX_WEIGHT: u32 = 100;

impl KeyFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// All mistakes, each with its line; none shows what stands there.
    pub fn read(path: &Path) -> Result<KeyFile, Vec<String>> {
        KeyFile::parse(&tls::read(path).map_err(|flaw| vec![flaw])?)
    }

    /// Whether some name has limits.
    #[must_use]
    pub fn has_limits(&self) -> bool {
        self.holders.iter().any(|holder| holder.requests.is_some() || holder.in_flight.is_some() || holder.weight > 1)
    }

    /// Takes the contents of such a file.
    ///
    /// # Errors
    ///
    /// As [`KeyFile::read`].
    pub fn parse(contents: &[u8]) -> Result<KeyFile, Vec<String>> {
        let text = std::str::from_utf8(contents).map_err(|_| vec!["is not UTF-8 text".into()])?;
        let mut reader = Reader::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            if words.is_empty() {
                continue;
            }
            if let Err(flaw) = reader.line(index + 1, &words) {
                reader.flaws.push(format!("line {}: {flaw}", index + 1));
            }
        }
        if reader.file.holders.is_empty() && reader.flaws.is_empty() {
            reader.flaws.push("holds no key: `ingle key NAME` makes one".into());
        }
        if reader.flaws.is_empty() { Ok(reader.file) } else { Err(reader.flaws) }
    }
}

#[derive(Default)]
struct Reader {
    file: KeyFile,
    /// Where in the file's holders a name is, and the line of its limits.
    places: HashMap<String, (usize, usize)>,
    keys: HashSet<Digest>,
    flaws: Vec<String>,
}

impl Reader {
    fn line(&mut self, number: usize, words: &[&str]) -> Result<(), String> {
        let [name, hash, limits @ ..] = words else {
            return Err("needs a name and `sha256:HASH`; `ingle key NAME` makes such a line".into());
        };
        let name = holder_name(name)?;
        let key = hash.strip_prefix("sha256:").and_then(Digest::parse);
        let key = key.ok_or(
            "its second word is not `sha256:` and 64 hexadecimal digits; `ingle key NAME --stdin` makes the line of a key",
        )?;
        if key == Digest::of(b"") {
            return Err("its hash is that of nothing: was a variable empty?".into());
        }
        let Limits { requests, in_flight, weight } = read_limits(limits)?;
        if !self.keys.insert(key) {
            return Err("its key stands in the file already".into());
        }
        match self.places.get(&name) {
            Some((_, first)) if !limits.is_empty() => {
                Err(format!("limits stand with the name's first key, on line {first}"))
            }
            Some((place, _)) => {
                self.file.holders[*place].keys.push(key);
                Ok(())
            }
            None if self.places.len() == MOST_HOLDERS => Err(format!("is one name too many: at most {MOST_HOLDERS}")),
            None => {
                self.places.insert(name.clone(), (self.file.holders.len(), number));
                let weight = weight.unwrap_or(1);
                self.file.holders.push(Holder { name, keys: vec![key], requests, in_flight, weight });
                Ok(())
            }
        }
    }
}

/// A name that may be a label.
///
/// # Errors
///
/// What is wrong, without the name.
pub fn holder_name(name: &str) -> Result<String, String> {
    match name {
        "none" => Err("`none` is reserved: in metrics it stands for requests without a key".into()),
        _ if name.is_empty() || name.len() > LONGEST_NAME => Err(format!("a name has 1 to {LONGEST_NAME} characters")),
        _ if !name.bytes().all(|byte| byte.is_ascii_graphic() && !b"#:".contains(&byte)) => {
            Err("a name is made of visible ASCII characters but `#` and `:`".into())
        }
        _ => Ok(name.to_owned()),
    }
}

#[derive(Default)]
struct Limits {
    requests: Option<Rate>,
    in_flight: Option<usize>,
    weight: Option<u32>,
}

fn read_limits(words: &[&str]) -> Result<Limits, String> {
    let Limits { mut requests, mut in_flight, mut weight } = Limits::default();
    for (index, word) in words.iter().enumerate() {
        let nth = index + 3;
        match word.split_once('=') {
            Some(("requests", rate)) if requests.is_none() => {
                let wrong = |_| format!("its word {nth} is no rate, such as `requests=600/min`");
                let PerTime(rate) = PerTime::read(Value::from(rate)).map_err(wrong)?;
                let none = || format!("its word {nth} allows no request: to refuse a key, remove its line");
                requests = Some(rate.ok_or_else(none)?);
            }
            Some(("in_flight", most)) if in_flight.is_none() => {
                let most = most.parse().ok().filter(|most| (1..=MOST_IN_FLIGHT).contains(most));
                in_flight =
                    Some(most.ok_or_else(|| format!("its word {nth} is not `in_flight=` and 1 to {MOST_IN_FLIGHT}"))?);
            }
            Some(("weight", share)) if weight.is_none() => {
                let share = share.parse().ok().filter(|share| (1..=MAX_WEIGHT).contains(share));
                weight = Some(share.ok_or_else(|| format!("its word {nth} is not `weight=` and 1 to {MAX_WEIGHT}"))?);
            }
            Some(("requests" | "in_flight" | "weight", _)) => return Err(format!("its word {nth} is there twice")),
            _ => return Err(format!("its word {nth} is none of `requests=RATE`, `in_flight=NUMBER`, `weight=NUMBER`")),
        }
    }
    Ok(Limits { requests, in_flight, weight })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: &str) -> String {
        format!("sha256:{}", Digest::of(key.as_bytes()).to_hex())
    }

    #[test]
    fn names_have_keys_and_limits() {
        let text = format!(
            "# who\n\n  alice {} requests=600/min in_flight=4 weight=2 # the first\nbob {}\r\nalice\t{}\n",
            hash("a1"),
            hash("b"),
            hash("a2")
        );
        let file = KeyFile::parse(text.as_bytes()).unwrap();
        let [alice, bob] = file.holders.as_slice() else { panic!("{file:?}") };
        assert_eq!((alice.name.as_str(), bob.name.as_str()), ("alice", "bob"));
        assert_eq!(alice.keys, [Digest::of(b"a1"), Digest::of(b"a2")]);
        assert_eq!(alice.requests.map(|rate| (rate.count.get(), rate.period.as_secs())), Some((600, 60)));
        assert_eq!(alice.in_flight, Some(4));
        assert_eq!((alice.weight, bob.weight), (2, 1));
        assert_eq!((&bob.requests, bob.in_flight), (&None, None));
    }

    #[test]
    fn every_mistake_is_told_with_its_line_and_none_shows_a_key() {
        let good = hash("secret");
        let (other, third) = (hash("other"), hash("third"));
        let text = [
            "secret",
            "alice secret",
            &format!("alice {good} requests=secret"),
            &format!("alice {good} in_flight=0"),
            &format!("alice {good} secret"),
            &format!("alice {good} in_flight=1 in_flight=1"),
            &format!("none {good}"),
            &format!("alic\u{e9} {good}"),
            &format!("alice {good}"),
            &format!("bob {good}"),
            &format!("alice {other} in_flight=2"),
            "alice sha256:1234",
            &format!("carol {third} requests=0/s"),
            &format!("carol: {third}"),
            &format!("carol {}", hash("")),
            &format!("carol {third} weight=0"),
            &format!("carol {third} weight=101"),
            &format!("carol {third} weight=1 weight=1"),
        ]
        .join("\n");
        let said = KeyFile::parse(text.as_bytes()).unwrap_err();
        let expected = [
            "line 1: needs a name and `sha256:HASH`; `ingle key NAME` makes such a line",
            "line 2: its second word is not `sha256:` and 64 hexadecimal digits; `ingle key NAME --stdin` makes the line of a key",
            "line 3: its word 3 is no rate, such as `requests=600/min`",
            "line 4: its word 3 is not `in_flight=` and 1 to 1000000",
            "line 5: its word 3 is none of `requests=RATE`, `in_flight=NUMBER`, `weight=NUMBER`",
            "line 6: its word 4 is there twice",
            "line 7: `none` is reserved: in metrics it stands for requests without a key",
            "line 8: a name is made of visible ASCII characters but `#` and `:`",
            "line 10: its key stands in the file already",
            "line 11: limits stand with the name's first key, on line 9",
            "line 12: its second word is not `sha256:` and 64 hexadecimal digits; `ingle key NAME --stdin` makes the line of a key",
            "line 13: its word 3 allows no request: to refuse a key, remove its line",
            "line 14: a name is made of visible ASCII characters but `#` and `:`",
            "line 15: its hash is that of nothing: was a variable empty?",
            "line 16: its word 3 is not `weight=` and 1 to 100",
            "line 17: its word 3 is not `weight=` and 1 to 100",
            "line 18: its word 4 is there twice",
        ];
        assert_eq!(said, expected);
        assert!(!said.concat().contains("secret"));
    }

    #[test]
    fn a_file_without_keys_would_lock_everybody_out() {
        assert_eq!(KeyFile::parse(b"# later\n").unwrap_err(), ["holds no key: `ingle key NAME` makes one"]);
    }
}
