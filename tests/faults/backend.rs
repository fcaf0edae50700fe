//! A backend that is right until it is told to be wrong, that can die and come back, and that checks what it is sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::connection::Connection;
use crate::script::{Fault, Step};

/// A backend. `/health` is answered with 200.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    /// Keeps the port while nobody listens.
    _port: TcpSocket,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// What a backend and its connections share.
pub(crate) struct Shared {
    pub(crate) name: String,
    tls: Option<TlsAcceptor>,
    pub(crate) fault: watch::Sender<Option<Fault>>,
    /// How often the fault was met.
    pub(crate) met: AtomicUsize,
    /// Requests under way, and the most that ever were.
    pub(crate) busy: (AtomicUsize, AtomicUsize),
    /// `METHOD TARGET BODY` of all requests that are neither probes nor of the traffic.
    pub(crate) others: Mutex<Vec<String>>,
    /// Requests that came with an id that starts with `long-`.
    pub(crate) long: AtomicUsize,
    /// What no gateway may send to a backend.
    pub(crate) broken: Mutex<Vec<String>>,
    /// How long it keeps a connection without a request.
    pub(crate) keep_alive: watch::Sender<Option<Duration>>,
    /// Whether it takes new connections.
    open: watch::Sender<bool>,
}

impl Backend {
    pub(crate) fn start(name: &str) -> Backend {
        Backend::at(name, SocketAddr::from(([127, 0, 0, 1], 0)), None)
    }

    /// At this address, behind TLS if there are settings for it.
    pub(crate) fn at(name: &str, address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Backend {
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind(address).unwrap();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            tls: tls.map(TlsAcceptor::from),
            fault: watch::channel(None).0,
            met: AtomicUsize::new(0),
            busy: Default::default(),
            others: Mutex::default(),
            long: AtomicUsize::new(0),
            broken: Mutex::default(),
            keep_alive: watch::channel(None).0,
            open: watch::channel(true).0,
        });
        let backend = Backend { address: port.local_addr().unwrap(), shared, _port: port, accepting: Mutex::new(None) };
        backend.revive();
        backend
    }

    pub(crate) fn name(&self) -> &str {
        &self.shared.name
    }

    /// From now on it does this wrong.
    pub(crate) fn fails(&self, fault: Fault) {
        self.shared.fault.send_replace(Some(fault));
    }

    /// From now on it does nothing wrong.
    pub(crate) fn is_well(&self) {
        self.shared.fault.send_replace(None);
    }

    /// It closes connections that had no request for so long, without a word.
    pub(crate) fn closes_idle_after(&self, time: Duration) {
        self.shared.keep_alive.send_replace(Some(time));
    }

    /// New connections are refused; those that are there end with what they do.
    pub(crate) fn refuses(&self) {
        self.shared.open.send_replace(false);
        self.closes_idle_after(Duration::ZERO);
    }

    /// New connections are taken again.
    pub(crate) fn accepts(&self) {
        self.shared.open.send_if_modified(|open| !std::mem::replace(open, true));
        self.shared.keep_alive.send_replace(None);
    }

    /// Its process dies: nobody listens, and all connections are reset or closed.
    pub(crate) fn die(&self) {
        if let Some(task) = self.accepting.lock().take() {
            task.abort();
        }
    }

    /// Its process is there again.
    pub(crate) fn revive(&self) {
        let mut accepting = self.accepting.lock();
        if accepting.is_none() {
            *accepting = Some(tokio::spawn(accept(listen(self.address), self.address, Arc::clone(&self.shared))));
        }
    }

    /// How often its fault was met: by connections, requests or probes.
    pub(crate) fn met(&self) -> usize {
        self.shared.met.load(Ordering::Relaxed)
    }

    /// The most requests that it had at once.
    pub(crate) fn most(&self) -> usize {
        self.shared.busy.1.load(Ordering::Relaxed)
    }

    /// Requests that came with an id that starts with `long-`.
    pub(crate) fn long(&self) -> usize {
        self.shared.long.load(Ordering::Relaxed)
    }

    /// `METHOD TARGET BODY` of all requests that are neither probes nor of the traffic.
    pub(crate) fn others(&self) -> Vec<String> {
        self.shared.others.lock().clone()
    }

    /// What it was sent that no backend may be sent.
    pub(crate) fn broken(&self) -> Vec<String> {
        self.shared.broken.lock().clone()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.die();
    }
}

/// Its connections are this task's, and end with it.
async fn accept(listener: TcpListener, address: SocketAddr, shared: Arc<Shared>) {
    let (mut listener, mut open) = (Some(listener), shared.open.subscribe());
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            stream = next => match stream {
                Ok((stream, _)) => drop(connections.spawn(greet(stream, Arc::clone(&shared)))),
                // Out of descriptors, perhaps: the machine is shared.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            },
            Ok(()) = open.changed() => listener = open.borrow_and_update().then(|| listen(address)),
            Some(_) = connections.join_next() => {}
        }
    }
}

/// With room for all who come at once.
fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(1024).unwrap()
}

async fn greet(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let greeting = shared.fault.borrow().as_ref().map(|fault| fault.greeting.clone()).unwrap_or_default();
    let mut connection = Connection::new(stream, &shared);
    if !greeting.is_empty() {
        shared.met.fetch_add(1, Ordering::Relaxed);
    }
    for step in greeting {
        if !connection.perform(&step, None).await {
            return reset(&step, &connection.stream);
        }
    }
    let Some(tls) = &shared.tls else {
        if let Some(step) = connection.serve().await {
            reset(&step, &connection.stream);
        }
        return;
    };
    if let Ok(stream) = tls.accept(connection.stream).await {
        Connection::new(stream, &shared).serve().await;
    }
}

/// The last step of a connection may be a reset.
fn reset(step: &Step, stream: &TcpStream) {
    if matches!(step, Step::Reset) {
        let _ = stream.set_zero_linger();
    }
}
