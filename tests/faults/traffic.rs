//! What runs through the gateway while something fails: streams with sessions, and short requests without.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::asked::{Asked, Kind};
use crate::exchange::{Caller, Done};

/// One request of one client, from its first byte to its last.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) asked: Asked,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) done: Done,
}

/// Clients that ask one thing after another.
pub(crate) struct Traffic {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    address: Mutex<SocketAddr>,
    over: AtomicBool,
    /// Finished requests, for each client.
    turns: Vec<AtomicUsize>,
    seen: Mutex<Vec<Seen>>,
}

impl Traffic {
    /// Sessions over HTTP/1.1 and HTTP/2, and clients without one.
    pub(crate) fn start(address: SocketAddr) -> Traffic {
        let count = SESSIONS + KEYLESS;
        let shared = Arc::new(Shared {
            address: Mutex::new(address),
            over: AtomicBool::new(false),
            turns: (0..count).map(|_| AtomicUsize::new(0)).collect(),
            seen: Mutex::default(),
        });
        let clients = (0..count).map(|number| tokio::spawn(client(number, Arc::clone(&shared)))).collect();
        Traffic { shared, clients }
    }

    /// Waits until each client has finished so many more requests.
    pub(crate) async fn turns(&self, more: usize) {
        let now = || self.shared.turns.iter().map(|turns| turns.load(Ordering::Relaxed));
        let goals: Vec<usize> = now().map(|turns| turns + more).collect();
        let begun = Instant::now();
        while now().zip(&goals).any(|(turns, goal)| turns < *goal) {
            let (limit, turns) = (Duration::from_secs(40 + 2 * more as u64), now().collect::<Vec<_>>());
            assert!(begun.elapsed() < limit, "the clients do not get on: {turns:?} of {goals:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All that ended so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().clone()
    }

    /// Lets each client finish what it does.
    pub(crate) async fn stop(&mut self) -> Vec<Seen> {
        self.shared.over.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.await.expect("a client that does not panic");
        }
        let mut seen = self.seen();
        seen.sort_by_key(|seen| seen.begun);
        seen
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.clients.iter().for_each(JoinHandle::abort);
    }
}

async fn client(number: usize, shared: Arc<Shared>) {
    let http2 = number % 4 == 3;
    let mut caller = match http2 {
        true => Caller::Http2(None),
        false => Caller::Http1 { keeps: number.is_multiple_of(2), connection: None },
    };
    for turn in 0.. {
        if shared.over.load(Ordering::Relaxed) {
            return;
        }
        let asked = asked(number, turn);
        let (address, begun) = (*shared.address.lock(), Instant::now());
        let done = caller.ask(address, &asked).await;
        let failed = done.failure.is_some();
        shared.seen.lock().push(Seen { asked, begun, ended: Instant::now(), done });
        shared.turns[number].fetch_add(1, Ordering::Relaxed);
        // Who is refused comes again, but not at once.
        tokio::time::sleep(Duration::from_millis(if failed { 50 } else { 5 })).await;
    }
}

fn asked(number: usize, turn: usize) -> Asked {
    let id = format!("{number}-{turn}");
    if number >= SESSIONS {
        return Asked { id, kind: Kind::Short, session: None, padding: 0, chunked: false };
    }
    // Bodies below and beyond what Pingora would send again by itself.
    let (padding, chunked) = match (number + turn) % 5 {
        0 => (0, false),
        1 => (100_000, false),
        2 => (100_000, true),
        _ => (2_000, false),
    };
    // An HTTP/2 body says nothing of its length here: such a one of 100 kB is never sent again.
    let padding = if number % 4 == 3 { padding.min(20_000) } else { padding };
    let kind = Kind::Stream { pieces: 10, pause: 5 };
    // New sessions go home, also where others have left it.
    let session = match number < STEADY {
        true => format!("session-{number}"),
        false => format!("session-{number}-{}", turn / 4),
    };
    Asked { id, kind, session: Some(session), padding, chunked: chunked && number % 4 != 3 }
}

/// Clients with a session of their own; every fourth speaks HTTP/2.
const SESSIONS: usize = 10;
/// Those of them that keep it; the others begin a new one every four turns.
const STEADY: usize = 6;
/// Clients without one.
const KEYLESS: usize = 4;
