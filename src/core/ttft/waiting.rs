//! What a backend has to read: the requests that were sent there and have no first token yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::super::Millis;
use super::super::usage::Usage;
use super::rates::{FirstToken, Rates};

/// The requests of this gateway that await their first token at one backend.
///
/// It lives as long as the backend. Writers take a lock; a selection reads a few atomics, which may be of slightly
/// different moments: an estimate of an estimate.
#[derive(Debug, Default)]
pub struct Waiting {
    queue: Mutex<Queue>,
    bytes: AtomicU64,
    count: AtomicUsize,
    /// The oldest one's estimate, and since when nothing else can have delayed it.
    oldest_bytes: AtomicU64,
    oldest_since: AtomicU64,
    /// The backend has reported cached tokens, so a report of none is to be believed.
    reports_cached: AtomicBool,
    /// When the backend's cache was last lost; what was seen there before is worth nothing.
    cold_since: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    last_first_token: Millis,
    /// In the order of dispatch.
    requests: BTreeMap<u64, Request>,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    dispatched: Millis,
    estimate: u64,
}

/// What a selection expects of a request at the backend that it chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The length of the body.
    pub bytes: u64,
    /// How much of it the backend has seen, at most `bytes`.
    pub seen: u64,
    /// Milliseconds since it saw that.
    pub age: Millis,
    /// What it will probably have to read: `bytes` without the share of `seen` that is still cached.
    pub estimate: u64,
}

impl Waiting {
    /// Counts a request as waiting until its first token, its end, or the drop of the ticket.
    #[must_use]
    pub fn enter(self: &Arc<Self>, expected: Expected, now: Millis) -> Ticket {
        let mut queue = self.queue.lock();
        let id = queue.next;
        queue.next += 1;
        queue.requests.insert(id, Request { dispatched: now, estimate: expected.estimate });
        self.publish(&queue, expected.estimate, 0);
        drop(queue);
        Ticket { waiting: Arc::clone(self), id, expected }
    }

    /// How many requests wait.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The sum of their estimates.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that are still to be read now, if a backend reads `bytes_per_ms`. What has been read of the oldest is not
    /// known, so it counts as at most all of it; 0 or more.
    #[must_use]
    pub fn pending(&self, bytes_per_ms: f64, now: Millis) -> f64 {
        let bytes = self.bytes();
        if bytes == 0 {
            return 0.0;
        }
        let elapsed = now.saturating_sub(self.oldest_since.load(Ordering::Relaxed));
        let oldest = self.oldest_bytes.load(Ordering::Relaxed) as f64;
        (bytes as f64 - oldest.min(elapsed as f64 * bytes_per_ms)).max(0.0)
    }

    /// Notes that the backend's cache is lost, because it has been down.
    pub fn went_cold(&self, now: Millis) {
        self.cold_since.store(now, Ordering::Relaxed);
    }

    /// Whether something seen at this time may still be cached.
    #[must_use]
    pub fn warm(&self, seen_at: Millis) -> bool {
        let cold_since = self.cold_since.load(Ordering::Relaxed);
        cold_since == 0 || seen_at > cold_since
    }

    fn leave(&self, id: u64, first_token: Option<Millis>) -> Option<(Request, Millis)> {
        let mut queue = self.queue.lock();
        let request = queue.requests.remove(&id)?;
        let before = queue.last_first_token;
        if let Some(now) = first_token {
            queue.last_first_token = before.max(now);
        }
        self.publish(&queue, 0, request.estimate);
        Some((request, before))
    }

    /// Copies what selections read out of the queue, which is locked.
    fn publish(&self, queue: &Queue, added: u64, removed: u64) {
        let bytes = self.bytes().wrapping_add(added).wrapping_sub(removed);
        let oldest = queue.requests.first_key_value().map(|(_, request)| *request);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.count.store(queue.requests.len(), Ordering::Relaxed);
        self.oldest_bytes.store(oldest.map_or(0, |oldest| oldest.estimate), Ordering::Relaxed);
        let since = oldest.map_or(0, |oldest| oldest.dispatched.max(queue.last_first_token));
        self.oldest_since.store(since, Ordering::Relaxed);
    }
}

/// A request that waits. However it ends, cancelled too, the wait ends with it, and only once.
#[derive(Debug)]
pub struct Ticket {
    waiting: Arc<Waiting>,
    id: u64,
    expected: Expected,
}

impl Ticket {
    /// The first token of a stream came. The pool learns from the time it took.
    pub fn first_token(&self, rates: &Rates, now: Millis) {
        if let Some((request, before)) = self.waiting.leave(self.id, Some(now)) {
            let took = now.saturating_sub(request.dispatched.max(before));
            let reported = self.waiting.reports_cached.load(Ordering::Relaxed);
            rates.learn_first_token(FirstToken { expected: self.expected, took, reported });
        }
    }

    /// It waits no more, and nothing is learned: an error, or an answer in one piece, which says little of its prompt.
    pub fn answered(&self) {
        self.waiting.leave(self.id, None);
    }

    /// The backend's own figures, at the end of the response: how much was really cached.
    pub fn usage(&self, rates: &Rates, usage: Usage) {
        if usage.cached > 0 {
            self.waiting.reports_cached.store(true, Ordering::Relaxed);
        }
        if self.waiting.reports_cached.load(Ordering::Relaxed) {
            rates.learn_cached(self.expected, usage);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.answered();
    }
}
