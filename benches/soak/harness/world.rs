//! What all parts of a soak share.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use fastrand::Rng;
use parking_lot::Mutex;

use super::asks::{Ask, Book};
use super::backends::Backend;
use super::http1::{Answer, Broken};
use super::keys::Keys;
use super::tally::{Kind, Tally};

/// The backends, what is asked of them, and what came of it.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) backends: Vec<Backend>,
    pub(crate) keys: Keys,
    pub(crate) book: Book,
    pub(crate) tally: Mutex<Tally>,
    /// The backend that served each session last, of those that come again.
    places: Mutex<HashMap<String, String>>,
    over: AtomicBool,
    once: AtomicU64,
    seed: u64,
}

impl World {
    pub(crate) fn new(address: SocketAddr, backends: Vec<Backend>, keys: Keys, seed: u64) -> World {
        let book = Book::new(&mut Rng::with_seed(seed));
        let (over, once) = (AtomicBool::new(false), AtomicU64::new(0));
        World { address, backends, keys, book, tally: Mutex::default(), places: Mutex::default(), over, once, seed }
    }

    pub(crate) fn backend(&self, name: &str) -> Result<&Backend, String> {
        self.backends.iter().find(|backend| backend.name == name).ok_or_else(|| format!("there is no {name}"))
    }

    /// Random numbers of one client.
    pub(crate) fn rng(&self, client: usize) -> Rng {
        Rng::with_seed(self.seed.wrapping_mul(1_000_003).wrapping_add(client as u64))
    }

    /// Nobody begins anything any more.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// A client's address, one of many: each is a client of its own to the gateway's bounds.
    pub(crate) fn from(&self, rng: &mut Rng) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 1, rng.u8(1..=ADDRESSES))
    }

    /// What became of a request with a key that nobody has.
    pub(crate) fn note_stranger(&self, came: Result<Answer, Broken>) {
        let mut tally = self.tally.lock();
        match came {
            Ok(answer) if answer.status == 401 => tally.whole(Kind::Stranger, answer.body.len()),
            Ok(answer) => tally.fail(format!("a stranger was told {}", answer.status)),
            Err(broken) => tally.fail(format!("a stranger: {broken:?}")),
        }
    }

    /// One of a set that comes again and again, or one that is never seen again.
    pub(crate) fn session(&self, rng: &mut Rng) -> String {
        if rng.u8(..4) == 0 {
            return format!("once-{}", self.once.fetch_add(1, Ordering::Relaxed));
        }
        format!("{AGAIN}{}", rng.usize(..SESSIONS))
    }

    /// Some sessions that this backend served last.
    pub(crate) fn sessions_at(&self, backend: &str, most: usize) -> Vec<String> {
        let places = self.places.lock();
        let there = places.iter().filter(|(_, place)| *place == backend);
        there.map(|(session, _)| session.clone()).take(most).collect()
    }

    /// Takes the outcome of a request that was sent at `begun`.
    pub(crate) fn note(
        &self,
        kind: Kind,
        session: Option<&str>,
        ask: &Ask,
        begun: Instant,
        came: Result<Answer, Broken>,
    ) {
        if let (Some(session), Ok(Answer { status: 200, backend: Some(backend), .. })) = (session, &came)
            && session.starts_with(AGAIN)
        {
            self.places.lock().insert(session.to_owned(), backend.clone());
        }
        let mut tally = self.tally.lock();
        match came {
            Ok(answer) if answer.status == 200 => match ask.verify(&answer.body) {
                Ok(()) => tally.whole(kind, answer.body.len()),
                Err(what) => tally.fail(format!("{kind:?} on {:?}: {what}", answer.backend)),
            },
            Ok(answer) => {
                let body = String::from_utf8_lossy(&answer.body).into_owned();
                let (status, backend, sent) = (answer.status, answer.backend, ask.body.len());
                tally.fail(format!("{kind:?} of {sent} bytes: {status} from {backend:?}: {body}"));
            }
            Err(broken) => match self.explains(&broken, begun) {
                Some(why) => *tally.explained.entry(why).or_default() += 1,
                None => {
                    tally.fail(format!("{kind:?}: {broken:?} {:.3} s after it was sent", begun.elapsed().as_secs_f64()))
                }
            },
        }
    }

    /// The one thing that explains an answer without an end: its output had reached the client, and its backend was killed.
    pub(crate) fn explains(&self, broken: &Broken, begun: Instant) -> Option<String> {
        let backend = self.backend(broken.started_on.as_deref()?).ok()?;
        backend.killed_since(begun).then(|| "its backend was killed after output had reached the client".to_owned())
    }
}

/// So many addresses of clients.
const ADDRESSES: u8 = 200;
/// The names of those sessions start like this.
const AGAIN: &str = "session-";
/// So many sessions come again.
const SESSIONS: usize = 3_000;
