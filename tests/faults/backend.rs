//! A backend that is right until it is told to be wrong, that can die and come back, and that checks what it is sent.

use std::iter::once;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::asked::{Kind, asked, is_body, large, piece, short};
use crate::script::{Fault, Probes, Step};
use crate::strict::{self, Request};

/// A backend. `/health` is answered with 200.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    /// Keeps the port while nobody listens.
    _port: TcpSocket,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    name: String,
    tls: Option<TlsAcceptor>,
    fault: watch::Sender<Option<Fault>>,
    /// How often the fault was met.
    met: AtomicUsize,
    /// Requests under way, and the most that ever were.
    busy: (AtomicUsize, AtomicUsize),
    /// `METHOD TARGET BODY` of all requests that are neither probes nor of the traffic.
    others: Mutex<Vec<String>>,
    /// What no gateway may send to a backend.
    broken: Mutex<Vec<String>>,
    /// How long it keeps a connection without a request.
    keep_alive: watch::Sender<Option<Duration>>,
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
    let mut connection = Connection { stream, bytes: Vec::new(), served: 0, shared: Arc::clone(&shared) };
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
        Connection { stream, bytes: Vec::new(), served: 0, shared: Arc::clone(&shared) }.serve().await;
    }
}

/// The last step of a connection may be a reset.
fn reset(step: &Step, stream: &TcpStream) {
    if matches!(step, Step::Reset) {
        let _ = stream.set_zero_linger();
    }
}

/// A request under way.
struct Busy(Arc<Shared>);

impl Busy {
    fn new(shared: &Arc<Shared>) -> Busy {
        let now = shared.busy.0.fetch_add(1, Ordering::Relaxed) + 1;
        shared.busy.1.fetch_max(now, Ordering::Relaxed);
        Busy(Arc::clone(shared))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Connection<S> {
    stream: S,
    bytes: Vec<u8>,
    /// Requests that it had.
    served: usize,
    shared: Arc<Shared>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Request after request. The step that ended it, if it was one.
    async fn serve(&mut self) -> Option<Step> {
        loop {
            let request = self.read().await?;
            let probe = request.target == "/health";
            let fault = self.shared.fault.borrow().clone();
            let status = fault.as_ref().and_then(|fault| match fault.probes {
                Probes::Status(status) if probe => Some(status),
                _ => None,
            });
            if let Some(status) = status {
                self.stream.write_all(&plain(status, b"not now")).await.ok()?;
                continue;
            }
            let _busy = Busy::new(&self.shared);
            let served = self.served;
            self.served += 1;
            let fault = fault.filter(|fault| fault.is_met(served, &request.target));
            if !probe {
                self.note(&request);
            }
            match fault {
                None => self.perform(&Step::Answer, Some(&request)).await.then_some(())?,
                Some(fault) => {
                    self.shared.met.fetch_add(1, Ordering::Relaxed);
                    for step in fault.answer {
                        if !self.perform(&step, Some(&request)).await {
                            return Some(step);
                        }
                    }
                }
            }
        }
    }

    fn note(&self, request: &Request) {
        match asked(&request.target) {
            Some((Kind::Stream { .. }, id)) if !is_body(id, &request.body) => {
                self.shared.broken.lock().push(format!("{} bytes that {id} has not sent", request.body.len()));
            }
            Some(_) => {}
            None => self.shared.others.lock().push(request.summary()),
        }
    }

    /// The next request; `None` if the connection ends before, or brings what no backend may be sent.
    async fn read(&mut self) -> Option<Request> {
        loop {
            match strict::request(&self.bytes) {
                Ok(Some((request, length))) => {
                    self.bytes.drain(..length);
                    return Some(request);
                }
                Ok(None) => {}
                Err(why) => {
                    self.shared.broken.lock().push(format!("{why}, in {}", self.bytes.escape_ascii()));
                    return None;
                }
            }
            let idle = self.bytes.is_empty() && self.served > 0;
            let more = tokio::select! {
                more = self.stream.read_buf(&mut self.bytes) => more,
                () = idle_too_long(self.shared.keep_alive.subscribe()), if idle => return None,
            };
            more.ok().filter(|n| *n > 0)?;
        }
    }

    /// False: the connection is over.
    async fn perform(&mut self, step: &Step, request: Option<&Request>) -> bool {
        match step {
            Step::Send(bytes) => self.stream.write_all(bytes).await.is_ok(),
            Step::Repeat(bytes, count) => {
                let mut left = 0..*count;
                while left.next().is_some() {
                    if self.stream.write_all(bytes).await.is_err() {
                        return false;
                    }
                }
                true
            }
            Step::Drip(bytes, pause) => self.drip(bytes, *pause).await,
            Step::Answer => self.answer(request, usize::MAX, b"").await,
            Step::AnswerAnd(bytes) => self.answer(request, usize::MAX, bytes).await,
            Step::Begin(pieces) => self.answer(request, *pieces, b"").await,
            Step::DripAnswer => {
                let whole = request.iter().flat_map(|request| right(&self.shared.name, request).flatten());
                self.drip(&whole.collect::<Vec<u8>>(), Duration::ZERO).await
            }
            Step::Wait(time) => {
                tokio::time::sleep(*time).await;
                true
            }
            Step::Hang => {
                while matches!(self.stream.read_buf(&mut self.bytes).await, Ok(1..)) {}
                false
            }
            Step::Close => {
                let _ = self.stream.shutdown().await;
                false
            }
            Step::Reset => false,
        }
    }

    async fn drip(&mut self, bytes: &[u8], pause: Duration) -> bool {
        for byte in bytes {
            if self.stream.write_all(&[*byte]).await.is_err() {
                return false;
            }
            tokio::time::sleep(pause).await;
        }
        true
    }

    /// The right answer, or its head and this many pieces; `and` goes with the last part.
    async fn answer(&mut self, request: Option<&Request>, pieces: usize, and: &[u8]) -> bool {
        let Some(request) = request else { return true };
        let pause = match asked(&request.target) {
            Some((Kind::Stream { pause, .. }, _)) => pause,
            _ => 0,
        };
        let mut parts = right(&self.shared.name, request).take(pieces.saturating_add(1)).peekable();
        while let Some(mut part) = parts.next() {
            if parts.peek().is_none() {
                part.extend_from_slice(and);
            }
            if self.stream.write_all(&part).await.is_err() {
                return false;
            }
            if pause > 0 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
        true
    }
}

/// Ends when a connection has been idle for longer than it is kept.
async fn idle_too_long(mut keep_alive: watch::Receiver<Option<Duration>>) {
    loop {
        let time = *keep_alive.borrow_and_update();
        match time {
            Some(time) => return tokio::time::sleep(time).await,
            None if keep_alive.changed().await.is_err() => return,
            None => {}
        }
    }
}

/// The right answer, in the parts in which it is sent: a head, and the pieces of a stream.
fn right(name: &str, request: &Request) -> Box<dyn Iterator<Item = Vec<u8>> + Send> {
    match asked(&request.target) {
        Some((Kind::Stream { pieces, .. }, id)) => {
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            let (name, id) = (name.to_owned(), id.to_owned());
            let pieces = (0..pieces).map(move |i| chunk(&piece(&name, &id, i)));
            Box::new(once(head.to_vec()).chain(pieces).chain(once(chunk(b""))))
        }
        Some((Kind::Large(size), _)) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", size << 20);
            Box::new(once(head.into_bytes()).chain(large(size)))
        }
        Some((Kind::Short, id)) => Box::new(once(plain(200, &short(name, id)))),
        None => {
            let mut answer = plain(200, request.target.as_bytes());
            if request.method == "HEAD" {
                answer.truncate(answer.len() - request.target.len());
            }
            Box::new(once(answer))
        }
    }
}

/// One chunk of a body.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A response with this body and its length.
pub(crate) fn plain(status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} So\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
