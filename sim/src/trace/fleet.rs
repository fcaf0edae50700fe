//! Machines behind real sockets, in compressed time.

mod connection;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Notify, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::machine::{Job, Machine, Model, Step};
use super::workload::Workload;

/// What a fleet is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FleetConfig {
    /// What each backend is like.
    pub model: Model,
    /// How many there are.
    pub backends: usize,
    /// How many seconds of the trace pass in a second.
    pub compression: f64,
    /// When the head of an answer is sent.
    pub head: Head,
    /// Interval of comments between the head of an answer and its first token; `None` is off. Real time.
    pub ping_interval: Option<Duration>,
}

/// When a backend sends the head of a streamed answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// As soon as the request is there, as current servers do.
    AtOnce,
    /// With the first token, as older servers did.
    WithFirstToken,
}

/// Simulated backends that listen on ports of 127.0.0.1. A request names its turn in the header
/// [`TURN_HEADER`](Self::TURN_HEADER); its body is read and not looked at. Dropping the fleet closes everything.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    driver: AbortHandle,
    doors: Mutex<Vec<Door>>,
}

/// What became of a turn, as the backend knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) machine: usize,
    pub(super) cached: u32,
}

/// What all connections of a fleet share.
#[derive(Debug)]
struct Shared {
    workload: Arc<Workload>,
    config: FleetConfig,
    yard: Mutex<Yard>,
    changed: Notify,
}

/// The machines and who waits for them.
#[derive(Debug)]
struct Yard {
    start: Instant,
    machines: Vec<Machine>,
    alive: Vec<bool>,
    waiting: HashMap<u64, oneshot::Sender<FirstToken>>,
    served: HashMap<usize, Served>,
    next_job: u64,
}

/// Tells a connection that its answer begins.
#[derive(Debug)]
struct FirstToken {
    cached: u32,
    /// When the last token is due.
    end: Instant,
}

/// Lets clients in; closing it closes their connections.
#[derive(Debug)]
struct Door {
    accepting: AbortHandle,
    connections: Arc<Mutex<JoinSet<()>>>,
}

impl Fleet {
    /// Names the turn that a request is, by its number in the workload.
    pub const TURN_HEADER: &'static str = "x-replay-turn";

    /// Starts the backends on free ports.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn start(workload: Arc<Workload>, config: FleetConfig) -> io::Result<Self> {
        let yard = Yard {
            start: Instant::now(),
            machines: (0..config.backends).map(|_| Machine::new(config.model)).collect(),
            alive: vec![true; config.backends],
            waiting: HashMap::new(),
            served: HashMap::new(),
            next_job: 0,
        };
        let shared = Arc::new(Shared { workload, config, yard: Mutex::new(yard), changed: Notify::new() });
        let doors = (0..config.backends).map(|machine| {
            let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            Ok((listener.local_addr()?, Door::open(listener, &shared, machine)))
        });
        let (addresses, doors) = doors.collect::<io::Result<(Vec<_>, Vec<_>)>>()?;
        let driver = tokio::spawn(Arc::clone(&shared).drive()).abort_handle();
        Ok(Self { shared, addresses, driver, doors: Mutex::new(doors) })
    }

    /// Where the backends listen.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Lets the clock of the trace begin at 0 now. Only for a fleet that is idle.
    pub fn begin(&self) {
        self.shared.yard.lock().start = Instant::now();
    }

    /// Seconds of the trace since it began.
    #[must_use]
    pub fn now(&self) -> f64 {
        self.shared.now(self.shared.yard.lock().start)
    }

    /// When it is `at` on the clock of the trace.
    #[must_use]
    pub fn instant(&self, at: f64) -> Instant {
        self.shared.instant(self.shared.yard.lock().start, at)
    }

    /// How many seconds of the trace pass in a second.
    #[must_use]
    pub fn compression(&self) -> f64 {
        self.shared.config.compression
    }

    /// Ends a backend as if its process had been killed: nobody listens, every connection is closed, its cache is lost.
    pub fn kill(&self, machine: usize) {
        self.shared.with_yard(|yard, now| {
            yard.alive[machine] = false;
            yard.machines[machine].die(now);
        });
        self.doors.lock()[machine].close();
    }

    /// Starts it again, cold, at the same address.
    ///
    /// # Errors
    /// When its port is taken.
    pub fn revive(&self, machine: usize) -> io::Result<()> {
        let listener = listen(self.addresses[machine])?;
        self.shared.with_yard(|yard, _| yard.alive[machine] = true);
        self.doors.lock()[machine] = Door::open(listener, &self.shared, machine);
        Ok(())
    }

    /// Asks somebody who sees the machines as they are now.
    pub(super) fn look<T>(&self, look: impl FnOnce(&[Machine], &[bool], f64) -> T) -> T {
        self.shared.with_yard(|yard, now| look(&yard.machines, &yard.alive, now))
    }

    /// Which backend gave a turn its first token, if one did.
    pub(super) fn served(&self, index: usize) -> Option<Served> {
        self.shared.yard.lock().served.get(&index).copied()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.driver.abort();
        self.doors.lock().iter().for_each(Door::close);
    }
}

impl Shared {
    fn now(&self, start: Instant) -> f64 {
        start.elapsed().as_secs_f64() * self.config.compression
    }

    fn instant(&self, start: Instant, at: f64) -> Instant {
        start + Duration::from_secs_f64(at.max(0.0) / self.config.compression)
    }

    /// Brings the machines up to now, then does something with them; the driver then looks for what is next.
    fn with_yard<T>(&self, act: impl FnOnce(&mut Yard, f64) -> T) -> T {
        let mut yard = self.yard.lock();
        let now = self.now(yard.start);
        self.advance(&mut yard, now);
        let result = act(&mut yard, now);
        drop(yard);
        self.changed.notify_one();
        result
    }

    fn advance(&self, yard: &mut Yard, now: f64) {
        for machine in 0..yard.machines.len() {
            for step in yard.machines[machine].advance(now) {
                if let Step::FirstToken { id, cached, end, .. } = step
                    && let Some(waiting) = yard.waiting.remove(&id)
                {
                    // Who has left meanwhile is taken off the machine by its guard.
                    let _ = waiting.send(FirstToken { cached, end: self.instant(yard.start, end) });
                }
            }
        }
    }

    /// Wakes the machines when something is due.
    async fn drive(self: Arc<Self>) {
        loop {
            let next = {
                let mut yard = self.yard.lock();
                let now = self.now(yard.start);
                self.advance(&mut yard, now);
                let next = yard.machines.iter().filter_map(Machine::next).min_by(f64::total_cmp);
                next.map(|at| self.instant(yard.start, at))
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// Puts a turn into a machine's queue.
    fn arrive(self: &Arc<Self>, machine: usize, index: usize) -> (Queued, oneshot::Receiver<FirstToken>) {
        let (sender, receiver) = oneshot::channel();
        let id = self.with_yard(|yard, now| {
            yard.next_job += 1;
            let job = Job { id: yard.next_job, ..self.workload.turns[index].job(index) };
            yard.waiting.insert(job.id, sender);
            yard.machines[machine].arrive(job, now);
            yard.next_job
        });
        (Queued { shared: Arc::clone(self), machine, id }, receiver)
    }
}

/// A job on a machine; dropping it takes what is left of it off the machine.
#[derive(Debug)]
struct Queued {
    shared: Arc<Shared>,
    machine: usize,
    id: u64,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.shared.with_yard(|yard, now| {
            yard.waiting.remove(&self.id);
            yard.machines[self.machine].leave(self.id, now);
        });
    }
}

impl Door {
    fn open(listener: TcpListener, shared: &Arc<Shared>, machine: usize) -> Self {
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let (shared, inside) = (Arc::clone(shared), Arc::clone(&connections));
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let mut connections = inside.lock();
                while connections.try_join_next().is_some() {}
                connections.spawn(connection::serve(Arc::clone(&shared), machine, stream));
            }
        });
        Self { accepting: accepting.abort_handle(), connections }
    }

    fn close(&self) {
        self.accepting.abort();
        self.connections.lock().abort_all();
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Connections the kernel holds until they are accepted.
const BACKLOG: u32 = 4096;
