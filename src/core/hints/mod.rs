//! Signs that affinity does less than it could, from what finished requests showed in the last five minutes.
//!
//! Everything is bounded: counters in ten pieces of half a minute, and in each the few sessions with the most requests.

mod counts;
mod finding;
mod hint;

use std::sync::Arc;

pub use finding::Finding;
pub use hint::{Hint, Move, Servers};

use super::usage::Usage;
use super::window::Window;
use super::{Backend, Millis, SessionKey};
use counts::Counts;

/// Counts what requests showed, and says when that is a hint.
#[derive(Debug)]
pub struct Hints {
    window: Window<Counts>,
    lasting: [Lasting; Hint::ALL.len()],
}

/// What a finished request showed.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its session.
    pub key: Option<SessionKey>,
    /// Whether it came with a session that is not valid.
    pub invalid: bool,
    /// Whether it was a chat or another completion, which has a prompt.
    pub chat: bool,
    /// Which turn of its session it was, the first is 1; nothing without a session.
    pub turn: u32,
    /// Why it was not on the backend of the turn before; `None` if it was, or if there was none.
    pub moved: Option<Move>,
    /// The backend that answered.
    pub backend: &'a Arc<Backend>,
    /// Whether the whole answer came, and was a success: only then it must have had usage figures.
    pub whole: bool,
    /// What the backend said of the prompt.
    pub usage: Option<Usage>,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A hint begins, or goes on an hour after it was last said: say it.
    Say(Finding),
    /// A hint that was said is over.
    Over(Hint),
}

#[derive(Clone, Debug, Default)]
struct Lasting {
    found: Option<Finding>,
    since: Millis,
    /// When it was last said, while it lasts or before.
    said: Option<Millis>,
    /// Whether it was said since it began.
    told: bool,
}

impl Hints {
    /// Takes in what a finished request showed.
    pub fn request(&mut self, seen: &Seen<'_>, now: Millis) {
        self.window.at(now).note(seen);
    }

    /// Judges what was seen, for a pool with so many backends. What comes back should be logged: a hint when it begins,
    /// but none more often than once an hour, and its end.
    pub fn judge(&mut self, backends: usize, now: Millis) -> Vec<News> {
        let (mut sum, mut settled) = (Counts::default(), 0);
        for (age, counts) in self.window.buckets(now) {
            sum.add(counts);
            settled += if age >= SETTLED { counts.firsts } else { 0 };
        }
        let mut findings = finding::judge(&sum, settled, self.hottest(now), backends);
        let mut news = Vec::new();
        for hint in Hint::ALL {
            let found = findings.iter().position(|finding| finding.hint == hint).map(|at| findings.swap_remove(at));
            news.extend(self.lasting[hint as usize].update(hint, found, now));
        }
        news
    }

    /// The hints that held when [`Hints::judge`] was last called, and since when each does.
    pub fn findings(&self) -> impl Iterator<Item = (&Finding, Millis)> {
        self.lasting.iter().filter_map(|lasting| Some((lasting.found.as_ref()?, lasting.since)))
    }

    /// Whether a hint held when [`Hints::judge`] was last called.
    #[must_use]
    pub fn holds(&self, hint: Hint) -> bool {
        self.lasting[hint as usize].found.is_some()
    }

    /// The session with the most requests, and how many it had at least. One with a large share of all has such a share
    /// in some piece of the time.
    fn hottest(&self, now: Millis) -> Option<(SessionKey, u64)> {
        let total = |key| self.window.buckets(now).map(|(_, counts)| counts.ids.at_least(key)).sum();
        let candidates = self.window.buckets(now).flat_map(|(_, counts)| counts.ids.above(counts.requests.div_ceil(4)));
        candidates.map(|key| (key, total(key))).max_by_key(|(key, count)| (*count, *key))
    }
}

impl Default for Hints {
    fn default() -> Hints {
        Hints { window: Window::new(PIECES, PIECE), lasting: Default::default() }
    }
}

impl Lasting {
    fn update(&mut self, hint: Hint, found: Option<Finding>, now: Millis) -> Option<News> {
        let before = std::mem::replace(&mut self.found, found).is_some();
        let Some(found) = &self.found else {
            let over = before && self.told;
            self.told = false;
            return over.then_some(News::Over(hint));
        };
        if !before {
            self.since = now;
        }
        if self.said.is_some_and(|said| now.saturating_sub(said) < SAY_AGAIN) {
            return None;
        }
        (self.said, self.told) = (Some(now), true);
        Some(News::Say(found.clone()))
    }
}

/// Five minutes: long enough for the turns of a person who reads, short enough to see whether a change has helped.
const PIECES: usize = 10;
const PIECE: Millis = 30_000;
/// In pieces of this age, and older ones, everything was more than a minute ago: a second turn could have come.
const SETTLED: u64 = 3;
/// Who does not look at the log for an hour need not find more in it.
const SAY_AGAIN: Millis = 3_600_000;

#[cfg(test)]
mod tests;
