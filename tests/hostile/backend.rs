//! A backend that remembers everything it was sent.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
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
}

impl Backend {
    pub(crate) async fn start() -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = Backend { address: listener.local_addr().unwrap(), log: Arc::default() };
        let serving = backend.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        backend
    }

    /// What came since the last time.
    pub(crate) fn take(&self) -> Log {
        std::mem::take(&mut self.log.lock())
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        loop {
            match strict::request(&bytes) {
                Ok(Some((request, length))) => {
                    bytes.drain(..length);
                    let answer = answer(&request);
                    self.log.lock().requests.push(request);
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {
                    if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                        if !bytes.is_empty() {
                            self.log.lock().unfinished.push(bytes.escape_ascii().to_string());
                        }
                        return;
                    }
                }
                Err(why) => {
                    self.log.lock().broken.push(format!("{why}\n    in {}", bytes.escape_ascii()));
                    return;
                }
            }
        }
    }
}

fn answer(request: &Request) -> Vec<u8> {
    let body = if request.method == "HEAD" { "" } else { &request.target };
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", request.target.len())
        .into_bytes()
}
