//! What a backend has to read: the requests that were sent there and have no first token yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::super::Millis;
use super::super::usage::Usage;
use super::rates::{FirstToken, Rates};
use super::speed::Speed;

/// The requests of this gateway that await their first token at one backend, and what is known of the backend.
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
    /// Requests that wait no longer and have not ended.
    answering: AtomicUsize,
    others_running: AtomicU32,
    others_waiting: AtomicU32,
    speed: Speed,
    /// The backend has reported cached tokens, so a report of none is to be believed.
    reports_cached: AtomicBool,
    /// When the backend's cache was last lost; what was seen there before is worth nothing.
    cold_since: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    bytes: u64,
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
    /// The backend's weight.
    pub weight: u32,
}

impl Waiting {
    /// Counts a request as waiting until its first token, its end, or the drop of the ticket.
    #[must_use]
    pub fn enter(self: &Arc<Self>, expected: Expected, now: Millis) -> Ticket {
        let mut queue = self.queue.lock();
        let id = queue.next;
        queue.next += 1;
        queue.bytes = queue.bytes.saturating_add(expected.estimate);
        queue.requests.insert(id, Request { dispatched: now, estimate: expected.estimate });
        self.publish(&queue);
        drop(queue);
        Ticket { waiting: Arc::clone(self), id, expected, streams: AtomicBool::new(false) }
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

    /// How many answers are under way.
    #[must_use]
    pub fn answering(&self) -> usize {
        self.answering.load(Ordering::Relaxed)
    }

    /// Bytes that are still to be read now, if the backend reads `bytes_per_ms`; 0 or more. How much has been read of
    /// the oldest is not known, so it counts for what the time since it was alone would allow, but at most for all of it.
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

    /// What is learned of the backend's speed.
    #[must_use]
    pub fn speed(&self) -> &Speed {
        &self.speed
    }

    /// Notes what the backend says of its own load, of which `in_flight` requests are this gateway's: the rest are those
    /// of others. 0, 0 if it says nothing.
    pub fn note_load(&self, running: u32, waiting: u32, in_flight: usize) {
        let ours = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let others = running.saturating_add(waiting).saturating_sub(ours(in_flight));
        // While some wait there, the backend reads the prompt of one more, which it counts as running.
        let unread = if waiting == 0 { 0 } else { waiting.saturating_add(1) };
        let waiting = unread.saturating_sub(ours(self.count())).min(others);
        self.others_waiting.store(waiting, Ordering::Relaxed);
        self.others_running.store(others - waiting, Ordering::Relaxed);
    }

    /// Requests of others that the backend answers, and those of others that wait there, when it was last asked.
    #[must_use]
    pub fn others(&self) -> (u32, u32) {
        (self.others_running.load(Ordering::Relaxed), self.others_waiting.load(Ordering::Relaxed))
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

    /// Takes a request out of the queue, if it is still there. It is answered from now on, if it is not over.
    fn leave(&self, id: u64, over: bool) -> Option<Request> {
        let mut queue = self.queue.lock();
        let request = queue.requests.remove(&id)?;
        queue.bytes = queue.bytes.saturating_sub(request.estimate);
        self.publish(&queue);
        if !over {
            self.answering.fetch_add(1, Ordering::Relaxed);
        }
        Some(request)
    }

    /// The time of the first token before this one.
    fn first_token(&self, now: Millis) -> Millis {
        let mut queue = self.queue.lock();
        let before = queue.last_first_token;
        queue.last_first_token = before.max(now);
        self.publish(&queue);
        before
    }

    /// Copies what selections read out of the queue, which is locked.
    fn publish(&self, queue: &Queue) {
        let oldest = queue.requests.first_key_value().map(|(_, request)| *request);
        self.bytes.store(queue.bytes, Ordering::Relaxed);
        self.count.store(queue.requests.len(), Ordering::Relaxed);
        self.oldest_bytes.store(oldest.map_or(0, |oldest| oldest.estimate), Ordering::Relaxed);
        let since = oldest.map_or(0, |oldest| oldest.dispatched.max(queue.last_first_token));
        self.oldest_since.store(since, Ordering::Relaxed);
    }
}

/// A request at a backend. However it ends, cancelled too, its wait ends with it, and only once.
#[derive(Debug)]
pub struct Ticket {
    waiting: Arc<Waiting>,
    id: u64,
    expected: Expected,
    streams: AtomicBool,
}

impl Ticket {
    /// The first token of a stream came. The pool learns from the time it took. Only the first call counts.
    pub fn first_token(&self, rates: &Rates, now: Millis) {
        let waiting = &*self.waiting;
        let answering = waiting.answering();
        let Some(request) = waiting.leave(self.id, false) else { return };
        self.streams.store(true, Ordering::Relaxed);
        let before = waiting.first_token(now);
        let took = now.saturating_sub(request.dispatched.max(before));
        let promised = rates.bytes_per_ms() * f64::from(self.expected.weight);
        if self.expected.seen == 0 && promised > 0.0 {
            waiting.speed.observe(self.expected.bytes as f64 / promised, took as f64);
        }
        rates.learn_first_token(FirstToken {
            expected: self.expected,
            took,
            reported: waiting.reports_cached.load(Ordering::Relaxed),
            behind: waiting.count(),
            answering,
            // Before the first one there was none: nothing was answered since.
            since: if before == 0 { 0 } else { now.saturating_sub(before) },
        });
    }

    /// It waits no more, and nothing is learned: an error, or an answer in one piece, which says little of its prompt.
    pub fn answered(&self) {
        self.waiting.leave(self.id, false);
    }

    /// The backend's own figures, at the end of the response: how much was really cached. A backend that has never
    /// reported a cached token does not report them at all.
    pub fn usage(&self, rates: &Rates, usage: Usage) {
        if !self.streams.load(Ordering::Relaxed) {
            rates.learn_whole();
        }
        let (usage, reports) = (usage.tokens(), &self.waiting.reports_cached);
        if usage.cached > 0 {
            reports.store(true, Ordering::Relaxed);
        }
        if reports.load(Ordering::Relaxed) {
            rates.learn_cached(self.expected, usage);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.waiting.leave(self.id, true).is_none() {
            self.waiting.answering.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expected(bytes: u64) -> Expected {
        Expected { bytes, seen: 0, age: 0, estimate: bytes, weight: 1 }
    }

    proptest! {
        /// In any order, by any way of ending, each of them once or twice.
        #[test]
        fn nothing_is_left_when_all_are_gone(
            sizes in prop::collection::vec(0u64..1 << 50, 1..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 80),
            ends in prop::collection::vec(0usize..3, 80),
        ) {
            let (waiting, rates) = (Arc::new(Waiting::default()), Rates::default());
            let mut tickets: Vec<Ticket> = (1..).zip(&sizes).map(|(now, size)| waiting.enter(expected(*size), now)).collect();
            prop_assert_eq!((waiting.count(), waiting.bytes()), (sizes.len(), sizes.iter().sum::<u64>()));
            for (now, (which, end)) in (100..).zip(order.iter().zip(ends)) {
                if tickets.is_empty() { break; }
                let at = which.index(tickets.len());
                match end {
                    0 => tickets[at].first_token(&rates, now),
                    1 => tickets[at].answered(),
                    _ => drop(tickets.swap_remove(at)),
                }
                prop_assert_eq!(waiting.count() + waiting.answering(), tickets.len());
                prop_assert!(waiting.pending(1.0, now) >= 0.0);
            }
            drop(tickets);
            prop_assert_eq!((waiting.count(), waiting.bytes(), waiting.answering()), (0, 0, 0));
            prop_assert!(waiting.pending(1.0, 1_000).abs() < 1e-9);
        }
    }

    #[test]
    fn time_reads_the_oldest_prompt_and_no_other() {
        let waiting = Arc::new(Waiting::default());
        let _oldest = waiting.enter(expected(1_000), 10);
        let _next = waiting.enter(expected(5_000), 20);
        assert!((waiting.pending(1.0, 10) - 6_000.0).abs() < 1e-9);
        assert!((waiting.pending(1.0, 510) - 5_500.0).abs() < 1e-9);
        assert!(
            (waiting.pending(1.0, 90_000) - 5_000.0).abs() < 1e-9,
            "its first token has not come, so it is all there is"
        );
    }

    #[test]
    fn a_first_token_begins_the_next_ones_time() {
        let (waiting, rates) = (Arc::new(Waiting::default()), Rates::default());
        let oldest = waiting.enter(expected(1_000), 10);
        let next = waiting.enter(expected(5_000), 20);
        oldest.first_token(&rates, 1_010);
        assert!((waiting.pending(1.0, 1_010) - 5_000.0).abs() < 1e-9);
        next.first_token(&rates, 6_010);
        assert!(
            (rates.bytes_per_ms() - 1.0).abs() < 1e-9,
            "6,000 bytes in 6,000 ms, though the second waited for the first"
        );
    }

    #[test]
    fn a_backend_that_never_reports_is_not_believed_to_cache_nothing() {
        let (waiting, rates) = (Arc::new(Waiting::default()), Rates::default());
        let known = Expected { bytes: 1_000, seen: 1_000, age: 10, estimate: 0, weight: 1 };
        waiting.enter(known, 1).usage(&rates, Usage { prompt: 250, cached: Some(0) });
        assert!((rates.held(10) - 1.0).abs() < 1e-9);
        waiting.enter(known, 1).usage(&rates, Usage { prompt: 250, cached: Some(250) });
        waiting.enter(known, 1).usage(&rates, Usage { prompt: 250, cached: Some(0) });
        assert!(rates.held(10) < 0.6, "it reports, so none is none");
    }

    #[test]
    fn answers_in_one_piece_are_noticed() {
        let (waiting, rates) = (Arc::new(Waiting::default()), Rates::default());
        let usage = Usage { prompt: 250, cached: Some(0) };
        let streamed = waiting.enter(expected(1_000), 1);
        streamed.first_token(&rates, 5);
        streamed.usage(&rates, usage);
        assert!(rates.whole().abs() < 1e-9);
        let whole = waiting.enter(expected(1_000), 1);
        whole.answered();
        whole.usage(&rates, usage);
        assert!((rates.whole() - 0.5).abs() < 0.02);
    }

    #[test]
    fn load_that_is_not_ours_is_others() {
        let waiting = Arc::new(Waiting::default());
        let _ours = waiting.enter(expected(1_000), 10);
        waiting.note_load(16, 4, 5);
        assert_eq!(waiting.others(), (11, 4), "fifteen of others; five prompts are unread, one of them ours");
        waiting.note_load(1, 0, 5);
        assert_eq!(waiting.others(), (0, 0));
    }

    #[test]
    fn what_was_seen_before_a_crash_is_gone() {
        let waiting = Waiting::default();
        assert!(waiting.warm(0));
        waiting.went_cold(500);
        assert!(!waiting.warm(500));
        assert!(waiting.warm(501));
    }
}
