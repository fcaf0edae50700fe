//! The keys that open a door, and who holds them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ahash::RandomState;

use crate::config::{Digest, Holder, KeyFile};
use crate::core::Millis;
use crate::core::rate::{Limiter, Rate};
use crate::gauge::{Gauge, Share};
use crate::metrics::{HolderMetrics, KeyResult};

/// The keys in force.
pub struct Keyring {
    /// By the key's hash, which whoever guesses can't steer; so where he ends in this table tells him nothing, and the
    /// last comparison takes the same time whatever he guessed.
    keys: HashMap<Digest, Arc<Member>, RandomState>,
}

/// Somebody who holds keys.
struct Member {
    name: Arc<str>,
    requests: Option<Rate>,
    in_flight: Option<usize>,
    weight: u32,
    used: Arc<Used>,
    /// `None`: nobody wants to know.
    metrics: Option<HolderMetrics>,
}

/// What was used of the limits; it stays when the file changes.
#[derive(Default)]
struct Used {
    requests: Limiter,
    in_flight: Gauge,
}

/// Somebody who may come in; until this drops, it counts as a request of his.
pub struct Admitted {
    /// Who it is.
    pub name: Arc<str>,
    /// How many of its requests are served in one turn, where requests wait.
    pub weight: u32,
    metrics: Option<HolderMetrics>,
    _place: Option<Share>,
}

/// Why somebody may not come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Nobody has that key.
    Unknown,
    /// Its holder had too many requests lately; after so many milliseconds one more may come.
    TooOften(Arc<str>, Millis),
    /// Its holder has too many requests at once.
    TooMany(Arc<str>),
}

impl Keyring {
    /// The keys of a file. Who was in `before`, by name, goes on with what he has used.
    pub(super) fn new(
        file: &KeyFile,
        before: Option<&Keyring>,
        mut metrics: impl FnMut(&str) -> Option<HolderMetrics>,
    ) -> Keyring {
        let before: HashMap<&str, &Arc<Member>> =
            before.into_iter().flat_map(|before| before.keys.values()).map(|member| (&*member.name, member)).collect();
        let mut keys = HashMap::default();
        for holder in &file.holders {
            let used = before.get(holder.name.as_str()).map_or_else(Arc::default, |member| Arc::clone(&member.used));
            let member = Arc::new(Member::new(holder, used, metrics(&holder.name)));
            keys.extend(holder.keys.iter().map(|key| (*key, Arc::clone(&member))));
        }
        Keyring { keys }
    }

    /// Lets a request in that shows a key, if its holder's limits allow that now. One that takes no slot is not among the
    /// requests at once that `in_flight` limits.
    ///
    /// # Errors
    ///
    /// Why it may not come in.
    pub fn admit(&self, key: &[u8], takes_slot: bool, now: Millis) -> Result<Admitted, Denied> {
        let member = self.keys.get(&Digest::of(key)).ok_or(Denied::Unknown)?;
        let result = member.admit(takes_slot, now);
        if let Some(metrics) = &member.metrics {
            metrics.count(match &result {
                Ok(_) => KeyResult::Accepted,
                Err(Denied::TooOften(..)) => KeyResult::Rate,
                Err(_) => KeyResult::InFlight,
            });
        }
        result
    }

    /// Who holds keys.
    pub(super) fn names(&self) -> HashSet<Arc<str>> {
        self.keys.values().map(|member| Arc::clone(&member.name)).collect()
    }
}

impl Member {
    fn new(holder: &Holder, used: Arc<Used>, metrics: Option<HolderMetrics>) -> Member {
        let requests = holder.requests.map(|rate| {
            let period = Millis::try_from(rate.period.as_millis()).unwrap_or(Millis::MAX);
            Rate::new(rate.count.get(), period, rate.burst())
        });
        let (name, in_flight, weight) = (holder.name.as_str().into(), holder.in_flight, holder.weight);
        Member { name, requests, in_flight, weight, used, metrics }
    }

    /// A request that has no place uses nothing of the rate.
    fn admit(&self, takes_slot: bool, now: Millis) -> Result<Admitted, Denied> {
        let name = || Arc::clone(&self.name);
        let take = || self.used.in_flight.take(1, self.in_flight.unwrap_or(usize::MAX));
        let place = takes_slot.then(|| take().ok_or_else(|| Denied::TooMany(name()))).transpose()?;
        if let Some(rate) = self.requests {
            self.used.requests.allow(rate, now).map_err(|wait| Denied::TooOften(name(), wait))?;
        }
        if let Some(metrics) = &self.metrics {
            metrics.begin();
        }
        Ok(Admitted { name: name(), weight: self.weight, metrics: self.metrics.clone(), _place: place })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(metrics) = &self.metrics {
            metrics.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(text: &str, before: Option<&Keyring>) -> Keyring {
        let file = text.split(',').map(|line| {
            let (name, rest) = line.trim().split_once(' ').unwrap();
            let (key, limits) = rest.split_once(' ').unwrap_or((rest, ""));
            format!("{name} sha256:{} {limits}\n", Digest::of(key.as_bytes()).to_hex())
        });
        let file = KeyFile::parse(file.collect::<String>().as_bytes()).unwrap();
        Keyring::new(&file, before, |_| None)
    }

    fn denied(ring: &Keyring, key: &str, now: Millis) -> Option<Denied> {
        ring.admit(key.as_bytes(), true, now).err()
    }

    #[test]
    fn a_key_opens_for_its_holder_and_nothing_else_does() {
        let ring = ring("alice a, alice a2, bob b", None);
        for (key, name) in [("a", "alice"), ("a2", "alice"), ("b", "bob")] {
            assert_eq!(&*ring.admit(key.as_bytes(), true, 0).unwrap().name, name);
        }
        for key in ["", "c", "a ", "A", "alice"] {
            assert_eq!(denied(&ring, key, 0), Some(Denied::Unknown), "{key}");
        }
    }

    #[test]
    fn limits_hold_for_all_keys_of_a_name_and_for_nobody_else() {
        let ring = ring("alice a requests=2/s in_flight=2, alice a2, bob b", None);
        let first = ring.admit(b"a", true, 0).unwrap();
        let second = ring.admit(b"a2", true, 0).unwrap();
        assert_eq!(denied(&ring, "a", 0), Some(Denied::TooMany("alice".into())));
        assert!(!matches!(ring.admit(b"a", false, 0), Err(Denied::TooMany(_))), "a query takes no place");
        drop(first);
        assert_eq!(denied(&ring, "a", 0), Some(Denied::TooOften("alice".into(), 500)));
        assert_eq!(denied(&ring, "a", 500), None, "what was refused has used nothing");
        drop(second);
        assert_eq!((0..100).find_map(|_| denied(&ring, "b", 0)), None);
    }

    #[test]
    fn another_file_changes_the_limits_and_forgets_no_use() {
        let before = ring("alice a requests=10/s in_flight=1, bob b", None);
        let running = before.admit(b"a", true, 0).unwrap();
        let after = ring("alice new requests=10/s in_flight=1, carol b", Some(&before));
        assert_eq!(denied(&after, "a", 0), Some(Denied::Unknown), "the key is gone");
        assert_eq!(denied(&after, "new", 0), Some(Denied::TooMany("alice".into())), "it still runs");
        drop(running);
        assert_eq!(denied(&after, "new", 0), None);
        assert_eq!(&*after.admit(b"b", true, 0).unwrap().name, "carol");
    }
}
