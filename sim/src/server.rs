//! A simulated backend that listens, and the handle that controls it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::{ServerKind, SimConfig};
use crate::connection;
use crate::engine::Engine;
use crate::faults::{FaultRule, Faults};
use crate::stats::{Disconnect, Ledger, RecordedRequest, Stats};

/// Connections the kernel holds until they are accepted.
const BACKLOG: u32 = 4096;
/// How long a port that is to be used again may be taken.
const REBIND_PATIENCE: Duration = Duration::from_secs(5);

/// A simulated backend. Dropping it closes the listener and every connection.
#[derive(Debug)]
pub struct SimServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Serialises `kill`, `revive`, `refuse_connections` and `accept_connections`.
    accepting: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    /// The same task, for `Drop`.
    abort: Mutex<Option<tokio::task::AbortHandle>>,
    connections: Arc<Mutex<JoinSet<()>>>,
}

/// What all connections of a backend share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Arc<SimConfig>,
    pub(crate) engine: Engine,
    pub(crate) faults: Faults,
    pub(crate) ledger: Ledger,
    loading: watch::Sender<Loading>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Loading {
    Until(Instant),
    UntilTold,
    Done,
}

impl SimServer {
    /// Starts a backend on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(config: SimConfig) -> io::Result<Self> {
        Self::bind(config, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts a backend on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(config: SimConfig, address: SocketAddr) -> io::Result<Self> {
        let socket = bound(address)?;
        Self::on(config, socket).await
    }

    /// Starts a backend on a listener that was bound by the caller.
    ///
    /// # Errors
    /// When the listener cannot be used by tokio.
    pub async fn from_std(config: SimConfig, listener: std::net::TcpListener) -> io::Result<Self> {
        // Bound again, not taken over: while it loads, a vLLM must not listen.
        let address = listener.local_addr()?;
        drop(listener);
        Self::bind(config, address).await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ADDRESS`, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The configured name.
    pub fn name(&self) -> &str {
        &self.shared.config.name
    }

    /// The configuration.
    pub fn config(&self) -> &SimConfig {
        &self.shared.config
    }

    /// The figures of this moment.
    pub fn stats(&self) -> Stats {
        let mut stats = self.shared.ledger.stats();
        stats.processing = self.shared.engine.processing();
        stats.prefilling = self.shared.engine.prefilling();
        stats.deferred = self.shared.engine.deferred();
        stats
    }

    /// The recorded requests, oldest first; empty unless [`SimConfig::record`] is set.
    pub fn recorded(&self) -> Vec<RecordedRequest> {
        self.shared.ledger.recorded()
    }

    /// Clients that left before their answer was complete, oldest first.
    pub fn disconnects(&self) -> Vec<Disconnect> {
        self.shared.ledger.disconnects()
    }

    /// Adds a fault behind those that are active already. A [`Fault`](crate::Fault) alone means its usual scope.
    pub fn inject(&self, rule: impl Into<FaultRule>) {
        self.shared.faults.inject(rule.into());
    }

    /// Ends all injected faults. Answers that have started stay as wrong as they are, frozen ones go on.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// `true`: loading until told otherwise. `false`: ready at once. A vLLM that listens already goes on listening.
    pub fn set_loading(&self, loading: bool) {
        self.shared.loading.send_replace(if loading { Loading::UntilTold } else { Loading::Done });
    }

    /// Whether it is loading.
    pub fn is_loading(&self) -> bool {
        self.shared.is_loading()
    }

    /// Waits until `condition` holds for the figures.
    ///
    /// # Errors
    /// The last figures, when it did not hold within `patience`.
    pub async fn wait_for(&self, patience: Duration, condition: impl Fn(&Stats) -> bool) -> Result<Stats, Stats> {
        let deadline = Instant::now() + patience;
        loop {
            let stats = self.stats();
            if condition(&stats) {
                return Ok(stats);
            }
            if Instant::now() > deadline {
                return Err(stats);
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// As SIGKILL: the listener and all connections close at once, the cache is gone. Returns when that is done.
    pub async fn kill(&self) {
        self.refuse_connections().await;
        let mut connections = std::mem::take(&mut *self.connections.lock());
        connections.shutdown().await;
        self.shared.engine.restart();
    }

    /// Starts again on the same port: cold, after the loading time. Does nothing if it is running.
    ///
    /// # Errors
    /// When the port was taken by somebody else and stays so for 5 s.
    pub async fn revive(&self) -> io::Result<()> {
        let mut accepting = self.accepting.lock().await;
        if accepting.is_none() {
            self.shared.begin_loading();
            self.accept_from(&mut accepting).await?;
        }
        Ok(())
    }

    /// Closes the listener; connections that are open go on. Returns when it is closed.
    pub async fn refuse_connections(&self) {
        let task = self.accepting.lock().await.take();
        self.abort.lock().take();
        if let Some(task) = task {
            task.abort();
            // The outcome is the abort.
            let _ = task.await;
        }
    }

    /// Listens again after [`refuse_connections`](Self::refuse_connections): warm, without loading.
    ///
    /// # Errors
    /// When the port was taken by somebody else and stays so for 5 s.
    pub async fn accept_connections(&self) -> io::Result<()> {
        let mut accepting = self.accepting.lock().await;
        if accepting.is_none() {
            self.accept_from(&mut accepting).await?;
        }
        Ok(())
    }

    async fn on(config: SimConfig, socket: TcpSocket) -> io::Result<Self> {
        let config = Arc::new(config);
        let shared = Arc::new(Shared {
            engine: Engine::new(config.clone()),
            faults: Faults::new(),
            ledger: Ledger::new(config.record),
            loading: watch::Sender::new(Loading::Done),
            config,
        });
        shared.begin_loading();
        let server = Self {
            address: socket.local_addr()?,
            shared,
            accepting: tokio::sync::Mutex::new(None),
            abort: Mutex::default(),
            connections: Arc::default(),
        };
        let mut accepting = server.accepting.lock().await;
        server.listen(socket, &mut accepting)?;
        drop(accepting);
        Ok(server)
    }

    async fn accept_from(&self, accepting: &mut Option<JoinHandle<()>>) -> io::Result<()> {
        let deadline = Instant::now() + REBIND_PATIENCE;
        loop {
            match bound(self.address).and_then(|socket| self.listen(socket, accepting)) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                    sleep(Duration::from_millis(5)).await;
                }
                result => return result,
            }
        }
    }

    fn listen(&self, socket: TcpSocket, accepting: &mut Option<JoinHandle<()>>) -> io::Result<()> {
        let (shared, connections) = (self.shared.clone(), self.connections.clone());
        let task = if shared.config.server == ServerKind::Vllm && shared.is_loading() {
            // As the real one: the port is taken at start, but refuses connections until the model is loaded.
            tokio::spawn(async move {
                shared.loaded().await;
                if let Ok(listener) = socket.listen(BACKLOG) {
                    accept(listener, shared, connections).await;
                }
            })
        } else {
            tokio::spawn(accept(socket.listen(BACKLOG)?, shared, connections))
        };
        *self.abort.lock() = Some(task.abort_handle());
        *accepting = Some(task);
        Ok(())
    }
}

impl Drop for SimServer {
    fn drop(&mut self) {
        if let Some(task) = self.abort.lock().take() {
            task.abort();
        }
        self.connections.lock().abort_all();
    }
}

impl Shared {
    pub(crate) fn is_loading(&self) -> bool {
        match *self.loading.borrow() {
            Loading::Until(end) => Instant::now() < end,
            Loading::UntilTold => true,
            Loading::Done => false,
        }
    }

    fn begin_loading(&self) {
        let time = self.config.loading;
        let loading = if time.is_zero() { Loading::Done } else { Loading::Until(Instant::now() + time) };
        self.loading.send_replace(loading);
    }

    async fn loaded(&self) {
        let mut changes = self.loading.subscribe();
        loop {
            let now = *changes.borrow_and_update();
            match now {
                Loading::Done => return,
                Loading::Until(end) => tokio::select! {
                    () = sleep_until(end) => return,
                    // The sender lives as long as self: waiting cannot fail.
                    _ = changes.changed() => {}
                },
                Loading::UntilTold => {
                    let _ = changes.changed().await;
                }
            }
        }
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, connections: Arc<Mutex<JoinSet<()>>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => start_connection(stream, &shared, &connections),
            // Out of file descriptors, say: try again, as servers do.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

fn start_connection(stream: TcpStream, shared: &Arc<Shared>, connections: &Mutex<JoinSet<()>>) {
    let mut connections = connections.lock();
    while connections.try_join_next().is_some() {}
    connections.spawn(connection::serve(shared.clone(), stream));
}
