//! What a new config changes: told to whoever asked for it, and held against `reload.max_moved`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;

use crate::config::{Config, Errors, Listener};
use crate::core::{Pool, SessionKey};
use crate::snapshot::Snapshot;

/// What one config changes about another.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Listeners.
    pub listeners: Listeners,
    /// Backends, by name.
    pub backends: Backends,
    /// All other keys whose values changed, as paths. Values are not told: some are secrets.
    pub keys: Vec<String>,
    /// The sessions that get another home.
    pub sessions: Sessions,
}

/// What becomes of listeners, the admin listener not counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Listeners {
    /// Addresses that were not listened on before.
    pub added: Vec<SocketAddr>,
    /// Addresses that are not listened on any more.
    pub removed: Vec<SocketAddr>,
    /// Addresses whose clients are met in another way from now on.
    pub changed: Vec<SocketAddr>,
}

/// What becomes of backends.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Backends {
    /// Names that are new.
    pub added: Vec<String>,
    /// Names that are gone.
    pub removed: Vec<String>,
    /// Names that stay, with keys that changed.
    pub changed: Vec<ChangedBackend>,
}

/// A backend that stays and has changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangedBackend {
    /// Its name.
    pub name: String,
    /// The keys whose values changed.
    pub keys: Vec<String>,
    /// Its weight before.
    pub weight_before: u32,
    /// Its weight now.
    pub weight: u32,
}

/// How many sessions of a sample get another home.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sessions {
    /// Those of the sample that do.
    pub moved: u32,
    /// The sample.
    pub of: u32,
    /// The share of the sample, 0 to 1.
    pub share: f64,
}

/// How a reload ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The new config is in force.
    Done(Box<Report>),
    /// The file is no valid config.
    Invalid(Errors),
    /// It would move more sessions than `reload.max_moved` allows.
    Refused {
        /// What it would have changed.
        report: Box<Report>,
        /// The limit, 0 to 1.
        max_moved: f64,
    },
    /// It can't come into force here and now.
    Failed(String),
}

/// In words: the change, or why it did not come.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done(report) => report.fmt(f),
            Outcome::Invalid(errors) => errors.fmt(f),
            Outcome::Refused { report, max_moved } => {
                let sessions = &report.sessions;
                write!(f, "reload.max_moved is {:.1} %, and {sessions}; ", 100.0 * max_moved)?;
                write!(
                    f,
                    "to move them all the same, once: POST /reload?max_moved={:.0}%25",
                    (100.0 * sessions.share).ceil()
                )
            }
            Outcome::Failed(why) => f.write_str(why),
        }
    }
}

impl Report {
    /// Compares two configs and what was built from them. The sample is made up, and takes some milliseconds.
    #[must_use]
    pub fn new(old: &Snapshot, new: &Snapshot) -> Report {
        let members = old.pool.members().len() + new.pool.members().len();
        let sample = u32::try_from(WORK / members.max(1)).unwrap_or(SAMPLE).min(SAMPLE);
        Report {
            listeners: Listeners::new(&old.config, &new.config),
            backends: Backends::new(&old.config, &new.config),
            keys: old.config.written.changed(&new.config.written),
            sessions: Movement::of(old, new, made_up(sample)).sessions(),
        }
    }

    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Report { sessions: self.sessions.clone(), ..Report::default() } && self.sessions.moved == 0
    }
}

impl Listeners {
    fn new(old: &Config, new: &Config) -> Listeners {
        let of = |config: &Config| config.listeners.iter().map(|listener| listener.address).collect::<Vec<_>>();
        let other = |listener: &&Listener| {
            old.listeners.iter().any(|before| before.address == listener.address && before != *listener)
        };
        let changed = new.listeners.iter().filter(other).map(|listener| listener.address).collect();
        let (old, new) = (of(old), of(new));
        Listeners { added: missing(&new, &old), removed: missing(&old, &new), changed }
    }
}

impl Backends {
    fn new(old: &Config, new: &Config) -> Backends {
        let names = |config: &Config| config.pool().backends.iter().map(|b| b.name.clone()).collect::<Vec<_>>();
        let (old_names, new_names) = (names(old), names(new));
        let changed = old_names.iter().enumerate().filter_map(|(at, name)| {
            let new_at = new_names.iter().position(|other| other == name)?;
            let keys = old.written.changed_of_backend(at, &new.written, new_at);
            let weight = |config: &Config, at: usize| config.pool().backends[at].weight;
            let (weight_before, weight) = (weight(old, at), weight(new, new_at));
            (!keys.is_empty()).then(|| ChangedBackend { name: name.clone(), keys, weight_before, weight })
        });
        Backends {
            changed: changed.collect(),
            added: missing(&new_names, &old_names),
            removed: missing(&old_names, &new_names),
        }
    }
}

/// What is in `some` and not in `others`, each as often as it is there more often.
fn missing<T: Clone + PartialEq>(some: &[T], others: &[T]) -> Vec<T> {
    let mut others = others.to_vec();
    let mut missing = some.to_vec();
    missing.retain(|one| match others.iter().position(|other| other == one) {
        Some(at) => {
            others.swap_remove(at);
            false
        }
        None => true,
    });
    missing
}

/// Which sessions of a sample get another home, and where they go.
#[derive(Debug, Default)]
pub struct Movement {
    /// How many sessions were looked at.
    pub total: u32,
    /// How many moved, by their homes before and after.
    pub moves: BTreeMap<(String, String), u32>,
}

impl Movement {
    /// The homes of sessions before and after. Ids that are no valid ones don't count.
    #[must_use]
    pub fn of<'a>(old: &Snapshot, new: &Snapshot, ids: impl IntoIterator<Item: AsRef<str> + 'a>) -> Movement {
        let mut counts = BTreeMap::<(usize, usize), u32>::new();
        let mut total = 0;
        for id in ids {
            let (Some(before), Some(after)) = (home(old, id.as_ref()), home(new, id.as_ref())) else { continue };
            total += 1;
            *counts.entry((before, after)).or_default() += 1;
        }
        let name = |pool: &Pool, member: usize| pool.members()[member].backend.name().to_owned();
        let named =
            counts.into_iter().map(|((before, after), n)| ((name(&old.pool, before), name(&new.pool, after)), n));
        Movement { total, moves: named.filter(|((before, after), _)| before != after).collect() }
    }

    /// Just how many.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        let moved: u32 = self.moves.values().sum();
        let share = if self.total == 0 { 0.0 } else { f64::from(moved) / f64::from(self.total) };
        Sessions { moved, of: self.total, share }
    }
}

/// As on a line: `1234 of 100000 sessions move (1.2 %)`.
impl fmt::Display for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} sessions move ({:.1} %)", self.moved, self.of, 100.0 * self.share)
    }
}

/// The whole change on a line: `backends added: c; settings changed: limits.max_body; 0 of 100000 sessions move (0.0 %)`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = |list: &[SocketAddr]| list.iter().map(SocketAddr::to_string).collect::<Vec<_>>();
        let changed = |backend: &ChangedBackend| match backend.weight == backend.weight_before {
            true => format!("{} ({})", backend.name, backend.keys.join(", ")),
            false => format!(
                "{} ({}: {} to {})",
                backend.name,
                backend.keys.join(", "),
                backend.weight_before,
                backend.weight
            ),
        };
        let parts = [
            ("listeners added", addresses(&self.listeners.added)),
            ("listeners removed", addresses(&self.listeners.removed)),
            ("listeners changed", addresses(&self.listeners.changed)),
            ("backends added", self.backends.added.clone()),
            ("backends removed", self.backends.removed.clone()),
            ("backends changed", self.backends.changed.iter().map(changed).collect()),
            ("settings changed", self.keys.clone()),
        ];
        if self.is_empty() {
            f.write_str("nothing changed; ")?;
        }
        for (what, items) in parts.iter().filter(|(_, items)| !items.is_empty()) {
            write!(f, "{what}: {}; ", items.join(", "))?;
        }
        write!(f, "{}", self.sessions)
    }
}

/// The home of a session; `None` if its id is no valid one.
fn home(snapshot: &Snapshot, id: &str) -> Option<usize> {
    let max_length = snapshot.config.affinity.max_length;
    let key = SessionKey::parse(id.as_bytes(), max_length, snapshot.pool.settings().seed).ok()??;
    snapshot.pool.home(key)
}

/// Session ids that nobody has.
pub fn made_up(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|i| format!("session-{i}"))
}

/// Enough for a share that is right to a tenth of a per cent or two.
pub const SAMPLE: u32 = 100_000;
/// Scores that are computed for a report at most, together: about half a second.
const WORK: usize = 50_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn snapshot(backends: &str, more: &str) -> Snapshot {
        let text =
            format!("listeners: [{{ address: 127.0.0.1:0 }}]\npools: [{{ name: p, backends: [{backends}] }}]\n{more}");
        Snapshot::new(Config::parse(&text, "test").unwrap(), &Metrics::new().unwrap())
    }

    const A: &str = "{ name: a, url: http://a:1 }";
    const B: &str = "{ name: b, url: http://b:1 }";

    #[test]
    fn the_order_of_backends_is_no_change() {
        let (ab, ba) = (snapshot(&format!("{A}, {B}"), ""), snapshot(&format!("{B}, {A}"), ""));
        let report = Report::new(&ab, &ba);
        assert!(report.is_empty());
        assert_eq!(report.to_string(), "nothing changed; 0 of 100000 sessions move (0.0 %)");
    }

    #[test]
    fn what_is_added_removed_and_reweighted_is_told_with_what_moves() {
        let old = snapshot(&format!("{A}, {B}"), "");
        let new = snapshot(
            "{ name: a, url: http://a:1, weight: 3 }, { name: c, url: http://c:1 }",
            "limits: { max_body: 1B }",
        );
        let report = Report::new(&old, &new);
        assert_eq!(
            (&report.backends.added[..], &report.backends.removed[..]),
            (&["c".to_owned()][..], &["b".to_owned()][..])
        );
        assert_eq!(report.backends.changed[0].keys, ["weight"]);
        assert_eq!(report.keys, ["limits.max_body"]);
        let text = report.to_string();
        let begin = "backends added: c; backends removed: b; backends changed: a (weight: 1 to 3); settings changed: limits.max_body; ";
        assert!(text.starts_with(begin), "{text}");
        assert!((0.4..0.7).contains(&report.sessions.share), "half leave b, and some leave a for c: {text}");
    }

    #[test]
    fn whom_a_listener_lets_in_is_a_change_of_it() {
        let with = |more: &str| {
            let listener = format!("listeners: [{{ address: 127.0.0.1:80{more} }}]");
            Config::parse(&format!("{listener}\npools: [{{ name: p, backends: [{A}] }}]\n"), "test").unwrap()
        };
        let (all, some) = (with(""), with(", allow: [10.0.0.0/8]"));
        assert_eq!(Listeners::new(&all, &some).changed, ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(Listeners::new(&some, &some), Listeners::default());
    }

    #[test]
    fn listeners_on_a_free_port_are_told_by_their_number() {
        let two = "listeners: [{ address: 127.0.0.1:0 }, { address: 127.0.0.1:0 }]\n";
        let pool = "pools: [{ name: p, backends: [{ url: http://a:1 }] }]\n";
        let parse = |text: &str| Config::parse(text, "test").unwrap();
        let (two, one) =
            (parse(&format!("{two}{pool}")), parse(&format!("listeners: [{{ address: 127.0.0.1:0 }}]\n{pool}")));
        let free = "127.0.0.1:0".parse().unwrap();
        assert_eq!(Listeners::new(&two, &one), Listeners { added: vec![], removed: vec![free], changed: vec![] });
        assert_eq!(Listeners::new(&one, &two), Listeners { added: vec![free], removed: vec![], changed: vec![] });
    }

    #[test]
    fn another_seed_moves_nearly_everybody() {
        let seeded = "affinity: { hash_seed: other }";
        let (old, new) = (snapshot(&format!("{A}, {B}"), ""), snapshot(&format!("{A}, {B}"), seeded));
        let report = Report::new(&old, &new);
        assert_eq!(report.keys, ["affinity.hash_seed"]);
        assert!((0.45..0.55).contains(&report.sessions.share), "half of two: {report}");
    }
}
