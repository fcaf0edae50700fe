//! The client's side of HTTP/1.1, over TCP or TLS.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::backend::SMALL_ANSWER;
use super::certificate::Certificate;

/// What a connection runs over.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

/// A request, and the length of the body that answers it: a proxy that answers itself must not look fast.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    pub(crate) answer: usize,
}

/// A keep-alive connection.
pub(crate) struct Connection {
    pub(crate) wire: Box<dyn Wire>,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects, with TLS if there is a certificate to trust.
    pub(crate) async fn open(port: u16, trusted: Option<&Certificate>) -> Result<Connection, String> {
        let stream = tcp(port).await?;
        let wire: Box<dyn Wire> = match trusted {
            None => Box::new(stream),
            Some(certificate) => {
                Box::new(certificate.connect(stream).await.map_err(|error| format!("TLS handshake: {error}"))?)
            }
        };
        Ok(Connection { wire, buffer: Vec::new() })
    }

    /// Sends a GET and returns the body of a short response.
    pub(crate) async fn get(&mut self, path: &str) -> Result<String, String> {
        let (head, _) = self.answer(format!("GET {path} HTTP/1.1\r\nHost: llm\r\n\r\n").as_bytes()).await?;
        Ok(String::from_utf8_lossy(self.buffer.get(head..).unwrap_or_default()).into_owned())
    }

    /// Sends a request and reads the whole response, which must be the expected one.
    pub(crate) async fn exchange(&mut self, request: &Request) -> Result<(), String> {
        let (_, length) = self.answer(&request.bytes).await?;
        if length != request.answer {
            return Err(format!("unexpected response of {length} bytes"));
        }
        Ok(())
    }

    /// Returns the lengths of the head and the body of a 200.
    async fn answer(&mut self, request: &[u8]) -> Result<(usize, usize), String> {
        self.send(request).await?;
        self.buffer.clear();
        self.buffer.reserve(READ);
        let (head, length) = loop {
            self.read().await?;
            if let Some(found) = framing(&self.buffer) {
                break found;
            }
        };
        if !self.buffer.starts_with(b"HTTP/1.1 200") {
            let text = String::from_utf8_lossy(&self.buffer[..head]);
            return Err(format!("unexpected response: {}", text.lines().next().unwrap_or_default()));
        }
        let length = length.ok_or("a response without Content-Length")?;
        let mut left = (head + length).saturating_sub(self.buffer.len());
        while left > 0 {
            self.buffer.clear();
            left = left.checked_sub(self.read().await?).ok_or("more bytes than Content-Length")?;
        }
        Ok((head, length))
    }

    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<(), String> {
        let sent = async {
            self.wire.write_all(request).await?;
            self.wire.flush().await
        };
        sent.await.map_err(|error| format!("sending a request: {error}"))
    }

    async fn read(&mut self) -> Result<usize, String> {
        match self.wire.read_buf(&mut self.buffer).await {
            Ok(0) => Err("the proxy closed a connection".to_owned()),
            Ok(n) => Ok(n),
            Err(error) => Err(format!("reading a response: {error}")),
        }
    }
}

/// Connections and the request of each.
pub(crate) type Share = Vec<(Connection, Request)>;

/// Many keep-alive connections, each with a request of its own session.
pub(crate) struct Pool {
    members: Share,
}

impl Pool {
    /// Opens connections, one after another, and sends a request over each.
    pub(crate) async fn open(
        port: u16,
        trusted: Option<&Certificate>,
        connections: usize,
        request: impl Fn(usize) -> Request,
    ) -> Result<Pool, String> {
        let mut members = Vec::with_capacity(connections);
        for index in 0..connections {
            let mut connection = Connection::open(port, trusted).await?;
            let request = request(index);
            connection.exchange(&request).await?;
            members.push((connection, request));
        }
        Ok(Pool { members })
    }

    /// The connections, for a workload with a pace of its own.
    pub(crate) fn into_members(self) -> Share {
        self.members
    }

    /// Sends `requests` requests, `active` at a time, each over the next connection of its share. Returns how long
    /// that took.
    pub(crate) async fn run(&mut self, requests: usize, active: usize) -> Result<Duration, String> {
        let left = Rc::new(Cell::new(requests));
        let mut shares: Vec<Share> = (0..active).map(|_| Vec::new()).collect();
        for (index, member) in self.members.drain(..).enumerate() {
            shares[index % active].push(member);
        }
        let start = Instant::now();
        let local = tokio::task::LocalSet::new();
        let mut tasks = JoinSet::new();
        for share in shares {
            tasks.spawn_local_on(take_turns(share, Rc::clone(&left)), &local);
        }
        local
            .run_until(async {
                while let Some(done) = tasks.join_next().await {
                    self.members.extend(done.map_err(|error| error.to_string())??);
                }
                Ok(start.elapsed())
            })
            .await
    }
}

/// One request after another, over one connection after another, while requests are left.
async fn take_turns(mut share: Share, left: Rc<Cell<usize>>) -> Result<Share, String> {
    let mut turn = 0;
    while left.get() > 0 && !share.is_empty() {
        left.set(left.get() - 1);
        let next = turn % share.len();
        let (connection, request) = &mut share[next];
        connection.exchange(request).await?;
        turn += 1;
    }
    Ok(share)
}

/// Connects without delays for small writes.
pub(crate) async fn tcp(port: u16) -> Result<TcpStream, String> {
    let connected = async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true).map(|()| stream)
    };
    connected.await.map_err(|error: std::io::Error| format!("connecting: {error}"))
}

/// A POST with a body of `size` bytes, in a session.
pub(crate) fn post(path: &str, session: usize, size: usize) -> Request {
    let body = body(size);
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: llm\r\nContent-Type: application/json\r\nX-Session-Id: bench-{session}\r\n\
         User-Agent: bench\r\nAccept: */*\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = path.strip_prefix("/size/").and_then(|size| size.parse().ok()).unwrap_or(SMALL_ANSWER);
    Request { bytes: [head.as_bytes(), body.as_bytes()].concat(), answer }
}

/// A completion request of `size` bytes.
pub(crate) fn body(size: usize) -> String {
    let (start, end) = ("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"", "\"}]}");
    format!("{start}{}{end}", "x".repeat(size.saturating_sub(start.len() + end.len())))
}

/// The lengths of a response's head and, where it is declared, of its body, once the head is complete.
fn framing(buffer: &[u8]) -> Option<(usize, Option<usize>)> {
    let head = memchr::memmem::find(buffer, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let length = text.split("\r\ncontent-length:").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
    Some((head, length))
}

/// The workload's small request.
pub(crate) const PATH: &str = "/v1/chat/completions";
/// Bytes of its body.
pub(crate) const KB: usize = 1_000;
const READ: usize = 64 * 1024;
