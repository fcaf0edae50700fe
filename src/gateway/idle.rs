//! The HTTP/1.1 connections of clients that wait for a request, so that they can be closed.
//!
//! A connection has one entry for its whole life and no timer: a sweep closes those that were without a complete request
//! head for too long. So a request costs two stores, and 10,000 idle connections cost a walk over a table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;
use slab::Slab;

use crate::core::Millis;

/// The HTTP/1.1 connections of all clients.
#[derive(Default)]
pub struct ClientConnections(Arc<Table>);

#[derive(Default)]
struct Table {
    entries: Mutex<Slab<Arc<Entry>>>,
    /// Whether connections without a request are closed at once.
    closing: AtomicBool,
}

struct Entry {
    /// How long it can be without a complete head, in milliseconds.
    limit: Millis,
    /// Since when it has had no request; [`BUSY`] during a request.
    idle_since: AtomicU64,
    closed: AtomicBool,
    waker: AtomicWaker,
}

/// One connection. It leaves the table when this drops.
pub struct ClientConnection {
    table: Arc<Table>,
    slot: usize,
    entry: Arc<Entry>,
}

impl ClientConnections {
    /// Adds a connection that has no request yet. `limit` is how long it can be without a complete head.
    #[must_use]
    pub fn enter(&self, limit: Duration, now: Millis) -> ClientConnection {
        let entry = Arc::new(Entry {
            limit: Millis::try_from(limit.as_millis()).unwrap_or(Millis::MAX),
            idle_since: AtomicU64::new(now),
            closed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let slot = self.0.entries.lock().insert(Arc::clone(&entry));
        ClientConnection { table: Arc::clone(&self.0), slot, entry }
    }

    /// Closes the connections that have exceeded their limit.
    pub fn sweep(&self, now: Millis) {
        self.close(|entry, since| now.saturating_sub(since) >= entry.limit);
    }

    /// Closes the connections without a request, and from now on each one that has none.
    pub fn close_idle(&self) {
        self.0.closing.store(true, Ordering::SeqCst);
        self.close(|_, _| true);
    }

    fn close(&self, is_due: impl Fn(&Entry, Millis) -> bool) {
        let due = |(_, entry): (usize, &Arc<Entry>)| {
            let since = entry.idle_since.load(Ordering::SeqCst);
            (since != BUSY && is_due(entry, since)).then(|| Arc::clone(entry))
        };
        // Woken without the lock: a task can run at once, and its connection leaves the table.
        let due: Vec<_> = self.0.entries.lock().iter().filter_map(due).collect();
        for entry in due {
            entry.closed.store(true, Ordering::SeqCst);
            entry.waker.wake();
        }
    }
}

impl ClientConnection {
    /// Notes that its next request is awaited.
    pub fn set_idle(&self, now: Millis) {
        self.entry.idle_since.store(now, Ordering::SeqCst);
    }

    /// Notes that it has a request. False if it was closed before.
    #[must_use]
    pub fn set_busy(&self) -> bool {
        self.entry.idle_since.store(BUSY, Ordering::SeqCst);
        !self.entry.closed.load(Ordering::SeqCst)
    }

    /// Ready when an idle connection must be closed. Wakes the task that polled last.
    pub fn poll_closed(&self, context: &mut Context<'_>) -> Poll<()> {
        self.entry.waker.register(context.waker());
        let closed = self.entry.closed.load(Ordering::SeqCst) || self.table.closing.load(Ordering::SeqCst);
        if closed { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        self.table.entries.lock().try_remove(self.slot);
    }
}

const BUSY: Millis = Millis::MAX;

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn is_closed(connection: &ClientConnection) -> bool {
        connection.poll_closed(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn idle_connection_is_closed_after_its_limit() {
        let table = ClientConnections::default();
        let (short, long) = (table.enter(Duration::from_millis(50), 100), table.enter(Duration::from_secs(1), 100));
        table.sweep(149);
        assert!(!is_closed(&short));
        table.sweep(150);
        assert!(is_closed(&short) && !is_closed(&long));
        assert!(!short.set_busy(), "too late for a request");
    }

    #[test]
    fn busy_connection_is_never_closed() {
        let table = ClientConnections::default();
        let connection = table.enter(Duration::from_millis(50), 100);
        assert!(connection.set_busy());
        table.sweep(10_000);
        connection.set_idle(10_000);
        table.sweep(10_049);
        assert!(!is_closed(&connection));
        table.sweep(10_050);
        assert!(is_closed(&connection));
    }

    #[test]
    fn closing_takes_connections_that_become_idle_later() {
        let table = ClientConnections::default();
        let (idle, busy) = (table.enter(Duration::MAX, 0), table.enter(Duration::MAX, 0));
        assert!(busy.set_busy());
        table.close_idle();
        assert!(is_closed(&idle) && busy.set_busy());
        busy.set_idle(1);
        assert!(is_closed(&busy));
        drop((idle, busy));
        assert_eq!(table.0.entries.lock().len(), 0);
    }
}
