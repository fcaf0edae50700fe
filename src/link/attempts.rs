//! The attempts under way on a backend, each with its connection, so that one that goes nowhere can be cut.
//!
//! Pingora has no time limit that means what ours mean: its read timeout is one for the first byte, which may take
//! minutes, and for the pause between two bytes alike, and nothing ends a request on a backend that has since been
//! found dead. So every attempt has its socket here, and whoever decides that it must end shuts the socket down: the
//! proxy sees a closed connection, asks why, and does what the retry table says.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::net::{Shutdown, shutdown};
use slab::Slab;
use tokio::sync::Notify;

use crate::core::Millis;

/// The attempts under way on one backend.
#[derive(Default)]
pub struct Attempts(Mutex<Slab<Arc<Wire>>>);

/// One attempt. It leaves the table when this drops.
pub struct Attempt {
    table: Arc<Attempts>,
    slot: usize,
    wire: Arc<Wire>,
    begun: Millis,
}

struct Wire {
    socket: Socket,
    terms: Terms,
    /// When all of it had been sent to this backend; 0 before.
    sent: AtomicU64,
    /// Until when the client must have sent more of it; means something before all of it was sent.
    upload_due: AtomicU64,
    /// When the last byte of the response came; 0 before the first.
    progress: AtomicU64,
    /// Whether the response is over, so that the connection is somebody else's by now.
    over: AtomicBool,
    cut: AtomicU8,
    /// Told of a cut of a response that has begun: who writes it may be waiting for a client that reads no more.
    client: Option<Arc<Notify>>,
}

/// Why an attempt was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    /// Its backend turned unhealthy before the first byte.
    Unhealthy = 1,
    /// No first byte within `timeouts.first_byte`.
    FirstByte,
    /// No byte of a response that had begun within `timeouts.idle`.
    Idle,
    /// Not over within `timeouts.total`.
    Total,
    /// Its client was too slow to send it.
    Upload,
}

/// What an attempt began with, and keeps whatever a new config says.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Whether the request could go to another backend.
    pub movable: bool,
    /// When the request's head came.
    pub begun: Millis,
    /// How long it may take.
    pub deadlines: Deadlines,
}

/// How long attempts may take, in milliseconds. `None` is for ever.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// To the first byte.
    pub first_byte: Option<Millis>,
    /// Between two bytes.
    pub idle: Option<Millis>,
    /// For the whole request.
    pub total: Option<Millis>,
}

impl Attempts {
    /// Notes an attempt over the connection `socket`. `upload_due`: until when more of the request must come, if not all
    /// of it is there. `client` is told when a response that has begun is cut.
    pub fn enter(
        self: &Arc<Self>,
        socket: Socket,
        terms: Terms,
        now: Millis,
        upload_due: Option<Millis>,
        client: Option<Arc<Notify>>,
    ) -> Attempt {
        let wire = Arc::new(Wire {
            socket,
            terms,
            sent: AtomicU64::new(if upload_due.is_none() { now.max(1) } else { 0 }),
            upload_due: AtomicU64::new(upload_due.unwrap_or_default()),
            progress: AtomicU64::new(0),
            over: AtomicBool::new(false),
            cut: AtomicU8::new(0),
            client,
        });
        let slot = self.0.lock().insert(Arc::clone(&wire));
        Attempt { table: Arc::clone(self), slot, wire, begun: now }
    }

    /// Cuts every attempt that waits for its first byte and could go to another backend. Streams that flow go on: they
    /// may well reach their end. Returns how many were cut.
    pub fn cut_waiting(&self) -> usize {
        self.cut(|wire| (wire.terms.movable && wire.progress.load(Ordering::Relaxed) == 0).then_some(Cut::Unhealthy))
    }

    /// Cuts every attempt that is over its time. Returns how many were cut.
    pub fn cut_late(&self, now: Millis) -> usize {
        self.cut(|wire| wire.late(now))
    }

    /// Whether a response that has begun got any byte at or after `since`.
    #[must_use]
    pub fn progress_since(&self, since: Millis) -> bool {
        self.0.lock().iter().any(|(_, wire)| wire.progress.load(Ordering::Relaxed) > since)
    }

    fn cut(&self, why: impl Fn(&Wire) -> Option<Cut>) -> usize {
        let due = |(_, wire): (usize, &Arc<Wire>)| why(wire).map(|why| (Arc::clone(wire), why));
        // The system calls come after the lock, which every request takes.
        let due: Vec<_> = self.0.lock().iter().filter_map(due).collect();
        due.into_iter().filter(|(wire, why)| wire.cut(*why)).count()
    }
}

impl Attempt {
    /// When it began.
    #[must_use]
    pub fn begun(&self) -> Millis {
        self.begun
    }

    /// Notes that more of the request came, and until when the next piece must come.
    pub fn uploading(&self, due: Millis) {
        self.wire.upload_due.store(due, Ordering::Relaxed);
    }

    /// Notes that all of the request was sent: the wait for the first byte begins.
    pub fn sent(&self, now: Millis) {
        self.wire.sent.store(now.max(1), Ordering::Relaxed);
    }

    /// Notes that a byte of the response came.
    pub fn progress(&self, now: Millis) {
        self.wire.progress.store(now.max(1), Ordering::Relaxed);
    }

    /// Notes that the response is over. Its connection is about to be somebody else's and is left alone from now on;
    /// what remains is to write the end of it to the client, within the same limits.
    pub fn over(&self, now: Millis) {
        self.wire.over.store(true, Ordering::Relaxed);
        self.progress(now);
    }

    /// Why it was cut, if it was.
    #[must_use]
    pub fn cut(&self) -> Option<Cut> {
        match self.wire.cut.load(Ordering::Relaxed) {
            1 => Some(Cut::Unhealthy),
            2 => Some(Cut::FirstByte),
            3 => Some(Cut::Idle),
            4 => Some(Cut::Total),
            5 => Some(Cut::Upload),
            _ => None,
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.table.0.lock().try_remove(self.slot);
    }
}

impl Wire {
    fn late(&self, now: Millis) -> Option<Cut> {
        let Terms { begun, deadlines, .. } = self.terms;
        let over = |since: Millis, limit: Option<Millis>| limit.is_some_and(|limit| now.saturating_sub(since) >= limit);
        match (self.sent.load(Ordering::Relaxed), self.progress.load(Ordering::Relaxed)) {
            _ if over(begun, deadlines.total) => Some(Cut::Total),
            (0, _) => (now >= self.upload_due.load(Ordering::Relaxed)).then_some(Cut::Upload),
            (sent, 0) => over(sent, deadlines.first_byte).then_some(Cut::FirstByte),
            (_, last) => over(last, deadlines.idle).then_some(Cut::Idle),
        }
    }

    /// False if it was cut before.
    fn cut(&self, why: Cut) -> bool {
        if self.cut.compare_exchange(0, why as u8, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        if !self.over.load(Ordering::Relaxed) {
            // An error means that the other side was faster: closed is closed.
            let _ = self.socket.shut_down();
        }
        if let (Some(client), Cut::Idle | Cut::Total) = (&self.client, why) {
            client.notify_one();
        }
        true
    }
}

/// A connection that Pingora owns, by its number and its ends.
#[derive(Clone, Copy, Debug)]
pub struct Socket {
    /// The descriptor's number, which may be somebody else's by the time it is used.
    pub number: RawFd,
    /// Our end.
    pub local: SocketAddr,
    /// The backend's end.
    pub peer: SocketAddr,
}

impl Socket {
    /// Shuts the connection down, if the number still stands for it.
    ///
    /// Pingora closes a connection before anybody hears of it, so the number alone proves nothing. Whatever it stands
    /// for is duplicated first: no other thread can close the duplicate, and no two connections of a machine have both
    /// ends in common. (A duplicate for each request would need no such proof, and cost each two system calls.)
    fn shut_down(self) -> io::Result<()> {
        #[expect(unsafe_code, reason = "Pingora gives connections as bare numbers")]
        // SAFETY: the number is used for duplicating alone, and that fails if it stands for nothing.
        let whatever = unsafe { BorrowedFd::borrow_raw(self.number) }.try_clone_to_owned()?;
        let connection = TcpStream::from(whatever);
        if (connection.local_addr()?, connection.peer_addr()?) == (self.local, self.peer) {
            shutdown(&connection, Shutdown::Both)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;

    const NONE: Deadlines = Deadlines { first_byte: None, idle: None, total: None };

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    fn socket(ours: &TcpStream) -> Socket {
        Socket { number: ours.as_raw_fd(), local: ours.local_addr().unwrap(), peer: ours.peer_addr().unwrap() }
    }

    fn terms(movable: bool, deadlines: Deadlines) -> Terms {
        Terms { movable, begun: 100, deadlines }
    }

    fn attempt(table: &Arc<Attempts>, deadlines: Deadlines) -> (Attempt, TcpStream, TcpStream) {
        let (ours, theirs) = pair();
        (table.enter(socket(&ours), terms(true, deadlines), 200, None, None), ours, theirs)
    }

    #[test]
    fn a_number_that_is_somebody_elses_by_now_is_left_alone() {
        let (ours, theirs) = pair();
        let (mut other, _other_end) = pair();
        let stale = Socket { number: other.as_raw_fd(), ..socket(&ours) };
        drop((ours, theirs));
        stale.shut_down().unwrap();
        other.set_nonblocking(true).unwrap();
        let kind = other.read(&mut [0; 1]).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::WouldBlock, "it is still open");
    }

    #[test]
    fn who_waits_is_cut_and_who_streams_is_not() {
        let table = Arc::new(Attempts::default());
        let (waiting, mut socket, _theirs) = attempt(&table, NONE);
        let (streaming, _socket, _theirs) = attempt(&table, NONE);
        streaming.progress(300);
        assert_eq!(table.cut_waiting(), 1);
        assert_eq!((waiting.cut(), streaming.cut()), (Some(Cut::Unhealthy), None));
        assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0, "the proxy sees a closed connection");
        assert_eq!(table.cut_waiting(), 0, "once");
    }

    #[test]
    fn who_can_go_nowhere_else_is_left_alone() {
        let table = Arc::new(Attempts::default());
        let (ours, _theirs) = pair();
        let _attempt = table.enter(socket(&ours), terms(false, NONE), 0, None, None);
        assert_eq!(table.cut_waiting(), 0);
    }

    #[test]
    fn each_deadline_runs_from_its_own_moment() {
        let table = Arc::new(Attempts::default());
        let (first, _a, _b) = attempt(&table, Deadlines { first_byte: Some(50), ..NONE });
        assert_eq!((table.cut_late(249), table.cut_late(250)), (0, 1));
        assert_eq!(first.cut(), Some(Cut::FirstByte));

        let (idle, _a, _b) = attempt(&table, Deadlines { first_byte: Some(50), idle: Some(100), ..NONE });
        idle.progress(400);
        assert_eq!((table.cut_late(499), table.cut_late(500)), (0, 1));
        assert_eq!(idle.cut(), Some(Cut::Idle));

        let (total, _a, _b) = attempt(&table, Deadlines { total: Some(1000), ..NONE });
        assert_eq!(table.cut_late(1100), 1);
        assert_eq!(total.cut(), Some(Cut::Total));
    }

    #[test]
    fn an_attempt_keeps_the_deadlines_that_it_began_with() {
        let table = Arc::new(Attempts::default());
        let (old, _a, _b) = attempt(&table, Deadlines { total: Some(1000), ..NONE });
        let (new, _c, _d) = attempt(&table, Deadlines { total: Some(10), ..NONE });
        assert_eq!(table.cut_late(500), 1);
        assert_eq!((old.cut(), new.cut()), (None, Some(Cut::Total)));
    }

    #[test]
    fn a_client_that_is_slow_to_send_is_cut_and_its_backend_has_all_its_time() {
        let table = Arc::new(Attempts::default());
        let (ours, _theirs) = pair();
        let deadlines = Deadlines { first_byte: Some(50), ..NONE };
        let attempt = table.enter(socket(&ours), terms(false, deadlines), 200, Some(300), None);
        assert_eq!(table.cut_late(299), 0, "the first byte can't come before the request is there");
        attempt.uploading(400);
        assert_eq!(table.cut_late(399), 0);
        attempt.sent(399);
        assert_eq!(table.cut_late(448), 0);
        assert_eq!((table.cut_late(449), attempt.cut()), (1, Some(Cut::FirstByte)));

        let (ours, _theirs) = pair();
        let attempt = table.enter(socket(&ours), terms(false, NONE), 200, Some(300), None);
        assert_eq!((table.cut_late(300), attempt.cut()), (1, Some(Cut::Upload)));
    }

    #[test]
    fn an_attempt_that_ended_is_forgotten() {
        let table = Arc::new(Attempts::default());
        let (over, _a, _b) = attempt(&table, NONE);
        over.progress(700);
        assert!(table.progress_since(699));
        assert!(!table.progress_since(700));
        drop(over);
        assert!(!table.progress_since(0));
        assert_eq!(table.0.lock().len(), 0);
    }
}
