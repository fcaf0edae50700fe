//! A backend that remembers everything it was sent.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::strict::{self, Request};

/// The backend. It answers every request with 200, the request's target as the body, and keeps the connection.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

/// What came.
#[derive(Default)]
pub(crate) struct Log {
    /// Well-formed requests.
    pub(crate) requests: Vec<Request>,
    /// Why a connection's bytes are no sequence of well-formed requests.
    pub(crate) broken: Vec<String>,
    /// Requests that had begun when their connection ended.
    pub(crate) unfinished: Vec<String>,
    /// Connections that may bring more.
    open: Vec<Arc<TcpStream>>,
}

impl Backend {
    pub(crate) async fn start() -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = Backend { address: listener.local_addr().unwrap(), log: Arc::default() };
        let serving = backend.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let stream = Arc::new(stream);
                serving.log.lock().open.push(Arc::clone(&stream));
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        backend
    }

    /// What came since the last time, when all that was sent until now has been read: an attempt that its client cut
    /// short has left bytes on a connection of its own, and nobody else waits for those.
    pub(crate) async fn take(&self) -> Log {
        // Connections are accepted one after another: when this one is over, those before it have been.
        let mut last = TcpStream::connect(self.address).await.unwrap();
        last.shutdown().await.unwrap();
        let _ = last.read(&mut [0]).await;
        loop {
            {
                let mut log = self.log.lock();
                if !log.open.iter().any(|stream| has_news(stream)) {
                    let open = std::mem::take(&mut log.open);
                    return std::mem::replace(&mut *log, Log { open, ..Log::default() });
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn serve(self, stream: Arc<TcpStream>) {
        let mut bytes = Vec::new();
        while stream.readable().await.is_ok() {
            let Some(answers) = self.read(&stream, &mut bytes) else { break };
            if write(&stream, &answers).await.is_err() {
                break;
            }
        }
        self.log.lock().open.retain(|open| !Arc::ptr_eq(open, &stream));
    }

    /// Reads what is there and notes it; who looks at the log sees either neither or both. The answers; `None`: it is over.
    fn read(&self, stream: &Arc<TcpStream>, bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
        let mut log = self.log.lock();
        let over = match stream.try_read_buf(bytes) {
            Ok(n) => n == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        let mut answers = Vec::new();
        loop {
            match strict::request(bytes) {
                Ok(Some((request, length))) => {
                    bytes.drain(..length);
                    answers.extend(answer(&request));
                    log.requests.push(request);
                }
                Ok(None) if !over => return Some(answers),
                Ok(None) => {
                    if !bytes.is_empty() {
                        log.unfinished.push(bytes.escape_ascii().to_string());
                    }
                    break;
                }
                Err(why) => {
                    log.broken.push(format!("{why}\n    in {}", bytes.escape_ascii()));
                    break;
                }
            }
        }
        log.open.retain(|open| !Arc::ptr_eq(open, stream));
        None
    }
}

/// Whether there is something to read, be it the end.
fn has_news(stream: &TcpStream) -> bool {
    recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) != Err(Errno::WOULDBLOCK)
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn answer(request: &Request) -> Vec<u8> {
    let body = if request.method == "HEAD" { "" } else { &request.target };
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", request.target.len())
        .into_bytes()
}
