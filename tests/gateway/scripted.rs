//! A backend that does to each connection exactly what it is told, right or wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::client::{find, header_of};

/// One thing that a backend does.
#[derive(Clone)]
pub(crate) enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Waits until the test opens the gate once more.
    Wait(Gate),
    /// Works for this long.
    Work(Duration),
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
    /// Does nothing any more, until the client leaves.
    Hang,
    /// Sends back whatever comes, as after an upgrade.
    Echo,
    /// Reads this many bytes that belong to no request, as after an upgrade.
    Read(usize),
    /// Sends chunks without an end, until the client leaves.
    Flood,
}

/// Holds a backend until a test lets it go on.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate(Arc::new(Semaphore::new(0)))
    }

    /// Lets one step pass.
    pub(crate) fn open(&self) {
        self.0.add_permits(1);
    }
}

/// A request as it came over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    /// Without its transfer coding.
    pub(crate) body: Vec<u8>,
    /// How many requests the connection had before.
    pub(crate) reused: usize,
    /// How many requests the backend had before.
    pub(crate) number: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header_of(&self.head, name)
    }

    /// How often a header is there.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.head.lines().filter(|line| line.split(':').next().unwrap().eq_ignore_ascii_case(name)).count()
    }
}

/// A backend. `/health` is answered with 200; everything else as the script says.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

type Script = Box<dyn Fn(&Seen) -> Vec<Step> + Send + Sync>;

struct Shared {
    script: Script,
    seen: Mutex<Vec<Seen>>,
    health: AtomicUsize,
    probes: AtomicUsize,
    left: Mutex<Vec<Instant>>,
}

impl Scripted {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Scripted {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        // Room for all who come at once: what the kernel drops comes again seconds later.
        let listener = socket.listen(4096).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            seen: Mutex::default(),
            health: AtomicUsize::new(200),
            probes: AtomicUsize::new(0),
            left: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Scripted { address, shared, task }
    }

    /// Answers everything with 200 and this body.
    pub(crate) async fn ok(body: &'static str) -> Scripted {
        Scripted::start(move |_| vec![Step::Send(answer(200, "", body.as_bytes()))]).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came so far, without probes.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.shared.seen.lock().len()
    }

    /// Probes so far.
    pub(crate) fn probes(&self) -> usize {
        self.shared.probes.load(Ordering::Relaxed)
    }

    /// When clients left that had not got all of their answer.
    pub(crate) fn left(&self) -> Vec<Instant> {
        self.shared.left.lock().clone()
    }

    /// From now on probes get this status.
    pub(crate) fn set_health(&self, status: usize) {
        self.shared.health.store(status, Ordering::Relaxed);
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A response with a declared length; `headers` are whole lines.
pub(crate) fn answer(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The head of a stream of anything.
pub(crate) fn stream_head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()
}

/// The head of a stream of events.
pub(crate) fn event_head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()
}

/// One chunk.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = BytesMut::new();
    for reused in 0.. {
        let Some((head, body)) = read(&mut stream, &mut buffer).await else { return };
        if head.starts_with("GET /health ") {
            let status = u16::try_from(shared.health.load(Ordering::Relaxed)).unwrap();
            let _ = stream.write_all(&answer(status, "", b"")).await;
            shared.probes.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let seen = {
            let mut all = shared.seen.lock();
            let seen = Seen { head, body, reused, number: all.len() };
            all.push(seen.clone());
            seen
        };
        for step in (shared.script)(&seen) {
            if !perform(step, &mut stream, &mut buffer, &shared).await {
                return;
            }
        }
    }
}

/// False: the connection is over.
async fn perform(step: Step, stream: &mut TcpStream, buffer: &mut BytesMut, shared: &Shared) -> bool {
    match step {
        Step::Send(bytes) => stream.write_all(&bytes).await.is_ok(),
        Step::Wait(gate) => tokio::select! {
            permit = gate.0.acquire() => {
                permit.unwrap().forget();
                true
            }
            _ = stream.read_buf(buffer) => {
                shared.left.lock().push(Instant::now());
                false
            }
        },
        Step::Work(time) => tokio::select! {
            () = tokio::time::sleep(time) => true,
            _ = stream.read_buf(buffer) => {
                shared.left.lock().push(Instant::now());
                false
            }
        },
        Step::Close => false,
        Step::Reset => {
            let _ = stream.set_zero_linger();
            false
        }
        Step::Hang => {
            let _ = stream.read_buf(buffer).await;
            shared.left.lock().push(Instant::now());
            false
        }
        Step::Echo => loop {
            if stream.write_all(&buffer.split()).await.is_err() || !matches!(stream.read_buf(buffer).await, Ok(1..)) {
                return false;
            }
        },
        Step::Read(count) => {
            while buffer.len() < count && matches!(stream.read_buf(buffer).await, Ok(1..)) {}
            let whole = buffer.len() >= count;
            buffer.clear();
            whole
        }
        Step::Flood => {
            let piece = chunk(&[b'x'; 10_000]);
            while stream.write_all(&piece).await.is_ok() {}
            shared.left.lock().push(Instant::now());
            false
        }
    }
}

/// A head and its body; `None` if the connection ends before both are there.
async fn read(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<(String, Vec<u8>)> {
    let end = loop {
        match find(buffer, b"\r\n\r\n") {
            Some(end) => break end + 4,
            None => more(stream, buffer).await?,
        }
    };
    let head = String::from_utf8_lossy(&buffer.split_to(end)).into_owned();
    if header_of(&head, "Expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
    }
    if header_of(&head, "Transfer-Encoding").is_some() {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match find(buffer, b"\r\n") {
                    Some(end) => break end,
                    None => more(stream, buffer).await?,
                }
            };
            let size = usize::from_str_radix(std::str::from_utf8(&buffer[..end]).ok()?, 16).ok()?;
            while buffer.len() < end + 2 + size + 2 {
                more(stream, buffer).await?;
            }
            let _ = buffer.split_to(end + 2);
            body.extend_from_slice(&buffer.split_to(size));
            let _ = buffer.split_to(2);
            if size == 0 {
                return Some((head, body));
            }
        }
    }
    let length = header_of(&head, "Content-Length").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < length {
        more(stream, buffer).await?;
    }
    Some((head, buffer.split_to(length).to_vec()))
}

async fn more(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<()> {
    matches!(stream.read_buf(buffer).await, Ok(1..)).then_some(())
}
