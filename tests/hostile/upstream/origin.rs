//! A backend that takes the steps of a case, and serves control requests like any other.
//!
//! It reads a whole request before it does anything, unless the target is `/early`: then only the head.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::script::{PIECE, Step, counted};
use crate::cases::PATIENCE;
use crate::strict;

/// How far the client of a case has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) has_head: bool,
    pub(crate) payload: usize,
    pub(crate) has_ended: bool,
}

/// The backend.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    steps: Mutex<Vec<Step>>,
    progress: watch::Sender<Progress>,
    log: Mutex<Log>,
    /// Bytes that were sent by steps that send much.
    written: AtomicUsize,
    /// Connections on which steps of a case are not done yet.
    busy: watch::Sender<usize>,
}

/// What came since the last case.
#[derive(Clone, Default)]
pub(crate) struct Log {
    /// The connections of requests for the case.
    pub(crate) cases: Vec<usize>,
    /// The connections of control requests.
    pub(crate) controls: Vec<usize>,
    /// What must not be: a wait without an end, a request that is none.
    pub(crate) wrong: Vec<String>,
}

impl Origin {
    pub(crate) async fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Origin::at(listener.local_addr().unwrap());
        let serving = origin.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                stream.set_nodelay(true).unwrap();
                tokio::spawn(serving.clone().serve(stream, number));
            }
        });
        origin
    }

    /// A backend at this address, which another task serves.
    pub(crate) fn at(address: SocketAddr) -> Origin {
        Origin { address, shared: Arc::default() }
    }

    /// From now on requests for `/case` get this.
    pub(crate) fn set(&self, steps: &[Step]) {
        self.shared.steps.lock().clear();
        self.shared.steps.lock().extend_from_slice(steps);
        self.shared.progress.send_replace(Progress::default());
        *self.shared.log.lock() = Log::default();
        self.shared.written.store(0, Ordering::Relaxed);
    }

    /// Steps that wait for the client go on once it has come this far.
    pub(crate) fn note(&self, progress: Progress) {
        self.shared.progress.send_replace(progress);
    }

    /// Whether there are steps that are not done yet.
    pub(crate) fn has_steps(&self) -> bool {
        *self.shared.busy.borrow() > 0
    }

    /// Bytes of the case that were sent by steps that send much.
    pub(crate) fn written(&self) -> usize {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Waits until all steps are done.
    pub(crate) async fn until_done(&self) {
        // The sender is not dropped before this.
        let _ = self.shared.busy.subscribe().wait_for(|busy| *busy == 0).await;
    }

    pub(crate) fn log(&self) -> Log {
        self.shared.log.lock().clone()
    }

    async fn serve(self, mut stream: TcpStream, number: usize) {
        let mut bytes = Vec::new();
        loop {
            let target = match target(&bytes) {
                Ok(Some((target, length))) => {
                    bytes.drain(..length);
                    target
                }
                Ok(None) if matches!(stream.read_buf(&mut bytes).await, Ok(1..)) => continue,
                Ok(None) => return,
                Err(why) => return self.shared.log.lock().wrong.push(why),
            };
            let is_open = if target == CASE || target == EARLY {
                self.shared.log.lock().cases.push(number);
                self.shared.busy.send_modify(|busy| *busy += 1);
                let is_open = self.perform(&mut stream, bytes.len()).await;
                self.shared.busy.send_modify(|busy| *busy -= 1);
                is_open && target == CASE
            } else {
                self.shared.log.lock().controls.push(number);
                stream.write_all(&control_answer(&target)).await.is_ok()
            };
            if !is_open {
                return;
            }
        }
    }

    /// `taken` bytes of the body came with the head. False: the connection is over.
    async fn perform(&self, stream: &mut TcpStream, mut taken: usize) -> bool {
        let steps = self.shared.steps.lock().clone();
        for step in steps {
            let name = format!("{step:.20?}");
            match timeout(PATIENCE, self.step(stream, step, &mut taken)).await {
                Ok(true) => {}
                Ok(false) => return false,
                Err(_) => {
                    self.shared.log.lock().wrong.push(format!("no end: {name}"));
                    return false;
                }
            }
        }
        true
    }

    async fn step(&self, stream: &mut TcpStream, step: Step, taken: &mut usize) -> bool {
        match step {
            Step::Send(bytes) => stream.write_all(&bytes).await.is_ok(),
            Step::Drip(bytes) => {
                for byte in bytes {
                    if stream.write_all(&[byte]).await.is_err() {
                        return false;
                    }
                    sleep(PAUSE).await;
                }
                true
            }
            Step::Flood(bytes) => {
                while self.write(stream, &bytes).await {}
                false
            }
            Step::Count(length, is_chunked) => {
                for at in (0..length).step_by(PIECE) {
                    let piece = counted(at, PIECE.min(length - at));
                    let line = if is_chunked { format!("{:x}\r\n", piece.len()) } else { String::new() };
                    let end: &[u8] = if is_chunked { b"\r\n" } else { b"" };
                    if !self.write(stream, &[line.as_bytes(), &piece, end].concat()).await {
                        return false;
                    }
                }
                !is_chunked || stream.write_all(b"0\r\n\r\n").await.is_ok()
            }
            Step::Take(length) => {
                let mut room = vec![0; 4096];
                while *taken < length {
                    match stream.read(&mut room).await {
                        Ok(read @ 1..) => *taken += read,
                        _ => return false,
                    }
                }
                true
            }
            Step::AwaitBlocked => {
                until_still(|| unread(stream)).await;
                true
            }
            Step::Await(payload) => self.wait(|progress| progress.has_head && progress.payload >= payload).await,
            Step::AwaitEnd => self.wait(|progress| progress.has_ended).await,
            Step::Close => false,
            Step::Reset => {
                stream.set_zero_linger().unwrap();
                false
            }
            Step::Hang => {
                while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {}
                false
            }
        }
    }

    async fn write(&self, stream: &mut TcpStream, bytes: &[u8]) -> bool {
        let is_open = stream.write_all(bytes).await.is_ok();
        self.shared.written.fetch_add(bytes.len(), Ordering::Relaxed);
        is_open
    }

    async fn wait(&self, has_come: impl FnMut(&Progress) -> bool) -> bool {
        self.shared.progress.subscribe().wait_for(has_come).await.is_ok()
    }
}

/// The target of a whole request, or of a head that is for [`EARLY`], and how long that is.
fn target(bytes: &[u8]) -> Result<Option<(String, usize)>, String> {
    if bytes.starts_with(format!("POST {EARLY} ").as_bytes()) {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        return Ok(end.map(|end| (EARLY.to_owned(), end + 4)));
    }
    Ok(strict::request(bytes)?.map(|(request, length)| (request.target, length)))
}

/// Bytes that came and were not read.
fn unread(stream: &TcpStream) -> usize {
    let bytes = rustix::io::ioctl_fionread(stream).unwrap();
    usize::try_from(bytes).unwrap()
}

/// Waits until a figure that is not 0 stays the same for a while.
pub(crate) async fn until_still(figure: impl Fn() -> usize) {
    let (mut last, mut times) = (0, 0);
    while times < 20 {
        sleep(Duration::from_millis(10)).await;
        let now = figure();
        times = if now == last && now > 0 { times + 1 } else { 0 };
        last = now;
    }
}

/// The target of requests that a case answers.
pub(crate) const CASE: &str = "/case";
/// The same, of which only the head is read before the first step.
pub(crate) const EARLY: &str = "/early";

/// What a control request gets: its own target.
pub(crate) fn control_answer(target: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len()).into_bytes()
}

const PAUSE: Duration = Duration::from_millis(1);
