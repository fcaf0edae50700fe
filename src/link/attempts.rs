//! The attempts in flight at one backend, so that an attempt that leads nowhere can be ended.
//!
//! Pingora's time limits do not mean what ours mean: its read timeout is the same for the first byte, which can take
//! minutes, and for the pause between two bytes. And nothing in it ends a request at a backend that was found dead since.
//! So every attempt has an entry here. A sweep decides which attempts must end and wakes the task that relays each of
//! them, which drops its connection and follows the retry table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;
use slab::Slab;

use crate::core::Millis;

/// The attempts in flight at one backend.
#[derive(Default)]
pub struct Attempts {
    entries: Mutex<Slab<Arc<Entry>>>,
    /// When attempts that have ended last made progress.
    last_progress: AtomicU64,
}

/// One attempt. It leaves the table when this drops.
pub struct Attempt {
    table: Arc<Attempts>,
    slot: usize,
    entry: Arc<Entry>,
    started: Millis,
}

struct Entry {
    terms: Terms,
    /// When all of the request had been sent to this backend; 0 before.
    sent: AtomicU64,
    /// Until when the client must have sent more of the request; valid until all of it was sent or the response started.
    upload_due: AtomicU64,
    /// Whether the head of the response has come.
    has_head: AtomicBool,
    /// When the last byte of the response came; 0 before it has started, which a stream does with its first output.
    progress: AtomicU64,
    /// When the task that relays has something to do even if nothing comes; 0 for never.
    wake_at: AtomicU64,
    cut: AtomicU8,
    /// The task that relays.
    waker: AtomicWaker,
}

/// Why an attempt was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    /// Its backend turned unhealthy before the response had started.
    Unhealthy = 1,
    /// No first byte within `timeouts.first_byte`.
    FirstByte,
    /// No first output within `timeouts.first_token`.
    FirstToken,
    /// No byte of a response that had started within `timeouts.idle`.
    Idle,
    /// Not complete within `timeouts.total`.
    Total,
    /// Its client sent the request too slowly.
    Upload,
}

/// What an attempt starts with, and keeps whatever a new config says.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Whether the request could go to another backend.
    pub movable: bool,
    /// Whether its response is the work of a model, so that it shows that the backend produces output.
    pub produces: bool,
    /// When the request's head came.
    pub started: Millis,
    /// How long the attempt can take.
    pub deadlines: Deadlines,
}

/// How long attempts can take, in milliseconds. `None` is unlimited.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// To the first byte.
    pub first_byte: Option<Millis>,
    /// To the first output.
    pub first_token: Option<Millis>,
    /// Between two bytes.
    pub idle: Option<Millis>,
    /// For the whole request.
    pub total: Option<Millis>,
}

impl Attempts {
    /// Adds an attempt. `upload_due` is the time by which more of the request must come, if it is not complete yet.
    pub fn enter(self: &Arc<Self>, terms: Terms, now: Millis, upload_due: Option<Millis>) -> Attempt {
        let entry = Arc::new(Entry {
            terms,
            sent: AtomicU64::new(if upload_due.is_none() { now.max(1) } else { 0 }),
            upload_due: AtomicU64::new(upload_due.unwrap_or_default()),
            has_head: AtomicBool::new(false),
            progress: AtomicU64::new(0),
            wake_at: AtomicU64::new(0),
            cut: AtomicU8::new(0),
            waker: AtomicWaker::new(),
        });
        let slot = self.entries.lock().insert(Arc::clone(&entry));
        Attempt { table: Arc::clone(self), slot, entry, started: now }
    }

    /// Cuts every attempt whose response has not started and that could go to another backend. Streams that flow go on,
    /// since they can still reach their end. Returns how many were cut.
    pub fn cut_waiting(&self) -> usize {
        self.cut(|entry| (entry.terms.movable && entry.progress.load(Ordering::Relaxed) == 0).then_some(Cut::Unhealthy))
    }

    /// Cuts every attempt that has exceeded a time limit, and wakes those that want it. Returns how many were cut.
    pub fn cut_late(&self, now: Millis) -> usize {
        let wants = |(_, entry): (usize, &Arc<Entry>)| entry.is_woken(now).then(|| Arc::clone(entry));
        let woken: Vec<_> = self.entries.lock().iter().filter_map(wants).collect();
        woken.iter().for_each(|entry| entry.waker.wake());
        self.cut(|entry| entry.late(now))
    }

    /// Whether a response with a model's output, which has started, got any byte after `since`.
    #[must_use]
    pub fn progress_since(&self, since: Millis) -> bool {
        self.last_progress.load(Ordering::Relaxed) > since
            || self.entries.lock().iter().any(|(_, entry)| entry.output() > since)
    }

    /// Since when the request for a model has waited whose response has not started and that was sent first.
    #[must_use]
    pub fn waits_since(&self) -> Option<Millis> {
        let waits = |entry: &Entry| entry.terms.produces && entry.progress.load(Ordering::Relaxed) == 0;
        let entries = self.entries.lock();
        let sent =
            entries.iter().filter(|(_, entry)| waits(entry)).map(|(_, entry)| entry.sent.load(Ordering::Relaxed));
        sent.filter(|sent| *sent != 0).min()
    }

    fn cut(&self, why: impl Fn(&Entry) -> Option<Cut>) -> usize {
        let due = |(_, entry): (usize, &Arc<Entry>)| why(entry).map(|why| (Arc::clone(entry), why));
        // Woken without the lock: a task can run at once, and its attempt leaves the table.
        let due: Vec<_> = self.entries.lock().iter().filter_map(due).collect();
        due.into_iter().filter(|(entry, why)| entry.cut(*why)).count()
    }
}

impl Attempt {
    /// When it started.
    #[must_use]
    pub fn started(&self) -> Millis {
        self.started
    }

    /// Notes that a part of the request was sent, and until when the next one must come.
    pub fn uploading(&self, due: Millis) {
        self.entry.upload_due.store(due, Ordering::Relaxed);
    }

    /// Notes that all of the request was sent.
    pub fn sent(&self, now: Millis) {
        self.entry.sent.store(now.max(1), Ordering::Relaxed);
    }

    /// Notes that the head of a stream came, whose first output is awaited, and wakes its task at a time.
    pub fn await_output(&self, wake_at: Millis) {
        self.entry.has_head.store(true, Ordering::Relaxed);
        self.entry.wake_at.store(wake_at.max(1), Ordering::Relaxed);
    }

    /// Notes that bytes of the response came, or were written to a client that is slow to read.
    pub fn progress(&self, now: Millis) {
        self.entry.progress.store(now.max(1), Ordering::Relaxed);
    }

    /// Ready when the attempt was cut. Wakes the task that polled last.
    pub fn poll_cut(&self, context: &mut Context<'_>) -> Poll<Cut> {
        self.entry.waker.register(context.waker());
        self.reason().map_or(Poll::Pending, Poll::Ready)
    }

    fn reason(&self) -> Option<Cut> {
        match self.entry.cut.load(Ordering::Acquire) {
            1 => Some(Cut::Unhealthy),
            2 => Some(Cut::FirstByte),
            3 => Some(Cut::FirstToken),
            4 => Some(Cut::Idle),
            5 => Some(Cut::Total),
            6 => Some(Cut::Upload),
            _ => None,
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.table.last_progress.fetch_max(self.entry.output(), Ordering::Relaxed);
        self.table.entries.lock().try_remove(self.slot);
    }
}

impl Entry {
    /// When output of a model last came; 0 for never.
    fn output(&self) -> Millis {
        if self.terms.produces { self.progress.load(Ordering::Relaxed) } else { 0 }
    }

    fn late(&self, now: Millis) -> Option<Cut> {
        let Terms { started, deadlines, .. } = self.terms;
        let over = |since: Millis, limit: Option<Millis>| limit.is_some_and(|limit| now.saturating_sub(since) >= limit);
        match (self.sent.load(Ordering::Relaxed), self.progress.load(Ordering::Relaxed)) {
            _ if over(started, deadlines.total) => Some(Cut::Total),
            (0, 0) if self.has_head.load(Ordering::Relaxed) => None,
            (0, 0) => (now >= self.upload_due.load(Ordering::Relaxed)).then_some(Cut::Upload),
            (sent, 0) if !self.has_head.load(Ordering::Relaxed) && over(sent, deadlines.first_byte) => {
                Some(Cut::FirstByte)
            }
            (sent, 0) => over(sent, deadlines.first_token).then_some(Cut::FirstToken),
            (_, last) => over(last, deadlines.idle).then_some(Cut::Idle),
        }
    }

    /// Whether its task is to be woken, once.
    fn is_woken(&self, now: Millis) -> bool {
        let at = self.wake_at.load(Ordering::Relaxed);
        let is_due = at != 0 && now >= at;
        if is_due {
            self.wake_at.store(0, Ordering::Relaxed);
        }
        is_due
    }

    /// False if it was cut before.
    fn cut(&self, why: Cut) -> bool {
        let is_first = self.cut.compare_exchange(0, why as u8, Ordering::Release, Ordering::Relaxed).is_ok();
        if is_first {
            self.waker.wake();
        }
        is_first
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const NONE: Deadlines = Deadlines { first_byte: None, first_token: None, idle: None, total: None };

    fn terms(movable: bool, deadlines: Deadlines) -> Terms {
        Terms { movable, produces: true, started: 100, deadlines }
    }

    fn attempt(table: &Arc<Attempts>, deadlines: Deadlines) -> Attempt {
        table.enter(terms(true, deadlines), 200, None)
    }

    #[test]
    fn waiting_attempts_are_cut_and_streams_are_not() {
        let table = Arc::new(Attempts::default());
        let (waiting, streaming) = (attempt(&table, NONE), attempt(&table, NONE));
        streaming.progress(300);
        assert_eq!(table.cut_waiting(), 1);
        assert_eq!((waiting.reason(), streaming.reason()), (Some(Cut::Unhealthy), None));
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(waiting.poll_cut(&mut context), Poll::Ready(Cut::Unhealthy));
        assert_eq!(table.cut_waiting(), 0, "once");
    }

    #[test]
    fn attempt_without_another_backend_is_not_cut() {
        let table = Arc::new(Attempts::default());
        let _attempt = table.enter(terms(false, NONE), 0, None);
        assert_eq!(table.cut_waiting(), 0);
    }

    #[test]
    fn each_deadline_runs_from_its_own_moment() {
        let table = Arc::new(Attempts::default());
        let first = attempt(&table, Deadlines { first_byte: Some(50), ..NONE });
        assert_eq!((table.cut_late(249), table.cut_late(250)), (0, 1));
        assert_eq!(first.reason(), Some(Cut::FirstByte));

        let idle = attempt(&table, Deadlines { first_byte: Some(50), idle: Some(100), ..NONE });
        idle.progress(400);
        assert_eq!((table.cut_late(499), table.cut_late(500)), (0, 1));
        assert_eq!(idle.reason(), Some(Cut::Idle));

        let total = attempt(&table, Deadlines { total: Some(1000), ..NONE });
        assert_eq!(table.cut_late(1100), 1);
        assert_eq!(total.reason(), Some(Cut::Total));
    }

    #[test]
    fn attempt_keeps_the_deadlines_it_started_with() {
        let table = Arc::new(Attempts::default());
        let old = attempt(&table, Deadlines { total: Some(1000), ..NONE });
        let new = attempt(&table, Deadlines { total: Some(10), ..NONE });
        assert_eq!(table.cut_late(500), 1);
        assert_eq!((old.reason(), new.reason()), (None, Some(Cut::Total)));
    }

    #[test]
    fn slow_upload_is_cut_and_costs_the_backend_no_time() {
        let table = Arc::new(Attempts::default());
        let deadlines = Deadlines { first_byte: Some(50), ..NONE };
        let attempt = table.enter(terms(false, deadlines), 200, Some(300));
        assert_eq!(table.cut_late(299), 0, "the first byte can't come before the request was sent");
        attempt.uploading(400);
        assert_eq!(table.cut_late(399), 0);
        attempt.sent(399);
        assert_eq!(table.cut_late(448), 0);
        assert_eq!((table.cut_late(449), attempt.reason()), (1, Some(Cut::FirstByte)));

        let attempt = table.enter(terms(false, NONE), 200, Some(300));
        assert_eq!((table.cut_late(300), attempt.reason()), (1, Some(Cut::Upload)));
    }

    #[test]
    fn early_response_has_the_deadlines_of_a_response() {
        let table = Arc::new(Attempts::default());
        let attempt = table.enter(terms(false, Deadlines { idle: Some(100), ..NONE }), 200, Some(300));
        attempt.progress(290);
        assert_eq!(table.cut_late(389), 0, "the backend can answer without the rest of the request");
        assert_eq!((table.cut_late(390), attempt.reason()), (1, Some(Cut::Idle)));
    }

    #[test]
    fn oldest_wait_is_that_of_a_model() {
        let table = Arc::new(Attempts::default());
        let other = Terms { produces: false, ..terms(true, NONE) };
        let (_list, upload) = (table.enter(other, 100, None), table.enter(terms(true, NONE), 150, Some(900)));
        assert_eq!(table.waits_since(), None);
        let (first, _second) = (table.enter(terms(true, NONE), 200, None), table.enter(terms(true, NONE), 300, None));
        assert_eq!(table.waits_since(), Some(200));
        first.progress(500);
        assert_eq!(table.waits_since(), Some(300));
        upload.sent(250);
        assert_eq!(table.waits_since(), Some(250));
    }

    #[test]
    fn attempt_leaves_the_table_when_it_ends() {
        let table = Arc::new(Attempts::default());
        let over = attempt(&table, NONE);
        over.progress(700);
        assert!(table.progress_since(699));
        assert!(!table.progress_since(700));
        drop(over);
        assert!(table.progress_since(699), "a response that was short is a sign of life, too");
        assert_eq!(table.entries.lock().len(), 0);
    }

    #[test]
    fn answer_to_a_query_is_no_output() {
        let table = Arc::new(Attempts::default());
        let query = table.enter(Terms { produces: false, ..terms(true, NONE) }, 200, None);
        query.progress(300);
        assert!(!table.progress_since(0));
        drop(query);
        assert!(!table.progress_since(0));
    }

    #[test]
    fn head_alone_is_no_start() {
        let table = Arc::new(Attempts::default());
        let deadlines = Deadlines { first_byte: Some(50), first_token: Some(400), idle: Some(10), ..NONE };
        let stream = attempt(&table, deadlines);
        stream.await_output(500);
        assert_eq!((table.cut_late(599), table.progress_since(0)), (0, false));
        assert_eq!((table.cut_late(600), stream.reason()), (1, Some(Cut::FirstToken)));
        let stream = attempt(&table, NONE);
        stream.await_output(500);
        assert_eq!((table.cut_waiting(), stream.reason()), (1, Some(Cut::Unhealthy)));
    }
}
