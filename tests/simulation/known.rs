//! The table of known sessions, a second time: a list in order of use.

use ingle::core::Millis;

pub(crate) struct Known {
    /// Least recently active first.
    sessions: Vec<Session>,
    max: usize,
}

struct Session {
    key: u64,
    /// The last place first, at most two.
    places: Vec<(String, Millis)>,
    away: bool,
}

impl Known {
    pub(crate) fn new(max: usize) -> Known {
        Known { sessions: Vec::new(), max }
    }

    pub(crate) fn resize(&mut self, max: usize) {
        self.max = max;
        self.bound();
    }

    pub(crate) fn landed(&mut self, key: u64, name: &str, away: bool, now: Millis) {
        let at = self.sessions.iter().position(|session| session.key == key);
        let mut session = at.map_or(Session { key, places: Vec::new(), away }, |at| self.sessions.remove(at));
        match session.places.first_mut() {
            Some(last) if last.0 == name => last.1 = now,
            _ => session.places.insert(0, (name.to_owned(), now)),
        }
        session.places.truncate(2);
        session.away = away;
        self.sessions.push(session);
        self.bound();
    }

    pub(crate) fn expire(&mut self, ttl: Millis, now: Millis) {
        self.sessions.retain(|session| now - session.places[0].1 < ttl);
    }

    pub(crate) fn last(&self, key: u64) -> Option<(&str, Millis)> {
        let (name, seen) = self.get(key)?.places.first()?;
        Some((name, *seen))
    }

    /// When it was last at a place, if that is one of its last two.
    pub(crate) fn at(&self, key: u64, name: &str) -> Option<Millis> {
        self.get(key)?.places.iter().find(|(place, _)| place == name).map(|(_, seen)| *seen)
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn away(&self) -> usize {
        self.sessions.iter().filter(|session| session.away).count()
    }

    fn get(&self, key: u64) -> Option<&Session> {
        self.sessions.iter().find(|session| session.key == key)
    }

    fn bound(&mut self) {
        let surplus = self.sessions.len().saturating_sub(self.max);
        self.sessions.drain(..surplus);
    }
}
