//! A client that writes HTTP/1.1 by hand, and sees exactly what comes back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::PATIENCE;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Req {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) chunk: Option<usize>,
}

impl Req {
    pub(crate) fn get(path: &str) -> Req {
        Req::new("GET", path, b"")
    }

    pub(crate) fn post(path: &str, body: &[u8]) -> Req {
        Req::new("POST", path, body)
    }

    /// A chat completion with one user message.
    pub(crate) fn chat(text: &str, max_tokens: usize, stream: bool) -> Req {
        let messages = json!([{"role": "user", "content": text}]);
        let options = json!({"include_usage": true});
        let body = match stream {
            true => json!({"messages": messages, "max_tokens": max_tokens, "stream": true, "stream_options": options}),
            false => json!({"messages": messages, "max_tokens": max_tokens}),
        };
        Req::post(CHAT, body.to_string().as_bytes()).header("Content-Type", "application/json")
    }

    pub(crate) fn new(method: &str, path: &str, body: &[u8]) -> Req {
        let headers = vec![("Host".to_owned(), "llm.test".to_owned())];
        Req { method: method.into(), path: path.into(), headers, body: body.into(), chunk: None }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Req {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn session(self, id: &str) -> Req {
        self.header("X-Session-Id", id)
    }

    /// The body in chunks of this size, its length undeclared.
    pub(crate) fn chunked(mut self, size: usize) -> Req {
        self.chunk = Some(size);
        self
    }

    /// The head with its empty line.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        match self.chunk {
            Some(_) => text += "Transfer-Encoding: chunked\r\n",
            None if self.method == "POST" => text += &format!("Content-Length: {}\r\n", self.body.len()),
            None => {}
        }
        (text + "\r\n").into_bytes()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        let Some(size) = self.chunk else {
            bytes.extend(&self.body);
            return bytes;
        };
        for piece in self.body.chunks(size) {
            bytes.extend(format!("{:x}\r\n", piece.len()).as_bytes());
            bytes.extend(piece);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    }
}

pub(crate) const CHAT: &str = "/v1/chat/completions";

/// A response.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the body came to the end that its framing promised.
    pub(crate) whole: bool,
}

impl Answer {
    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header_of(&self.head, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn backend(&self) -> &str {
        self.header("X-Ingle-Backend").unwrap_or("none")
    }

    pub(crate) fn affinity(&self) -> &str {
        self.header("X-Ingle-Affinity").unwrap_or("none")
    }

    /// `BACKEND AFFINITY STATUS`.
    pub(crate) fn outcome(&self) -> String {
        format!("{} {} {}", self.backend(), self.affinity(), self.status)
    }

    /// The `code` of an error of the gateway's own.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// The first value of a header in the text of a head.
pub(crate) fn header_of<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// A connection.
pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    pub(crate) buffer: BytesMut,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client::over(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn over(stream: S) -> Client<S> {
        Client { stream, buffer: BytesMut::new() }
    }

    pub(crate) async fn send(&mut self, req: &Req) -> Answer {
        // The gateway may answer and close before all of it is sent.
        let _ = self.stream.write_all(&req.bytes()).await;
        self.answer_to(&req.method).await
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next answer, but no interim ones (1xx).
    pub(crate) async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    pub(crate) async fn answer_to(&mut self, method: &str) -> Answer {
        loop {
            let head = self.head().await;
            let status = status_of(&head);
            if status >= 200 || status == 101 {
                let (body, whole) = match status {
                    101 | 204 | 304 => (Vec::new(), true),
                    _ if method == "HEAD" => (Vec::new(), true),
                    _ => self.body(&head).await,
                };
                return Answer { status, head, body, whole };
            }
        }
    }

    /// The next head, with its empty line.
    pub(crate) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                return String::from_utf8_lossy(&self.buffer.split_to(end + 4)).into_owned();
            }
            assert!(self.read().await > 0, "the connection ended in a head: {:?}", self.buffer);
        }
    }

    async fn body(&mut self, head: &str) -> (Vec<u8>, bool) {
        if header_of(head, "Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk().await {
                if chunk.is_empty() {
                    return (body, true);
                }
                body.extend(chunk);
            }
            return (body, false);
        }
        let length = header_of(head, "Content-Length").map(|value| value.parse::<usize>().unwrap());
        while length.is_none_or(|length| self.buffer.len() < length) && self.read().await > 0 {}
        let end = length.unwrap_or(usize::MAX).min(self.buffer.len());
        (self.buffer.split_to(end).to_vec(), length.is_none_or(|length| length == end))
    }

    /// The next chunk, empty the last one; `None` if the connection ends in it.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[..end]).unwrap(), 16).unwrap();
                if self.buffer.len() >= end + 2 + size + 2 {
                    let chunk = self.buffer[end + 2..end + 2 + size].to_vec();
                    let _ = self.buffer.split_to(end + 2 + size + 2);
                    return Some(chunk);
                }
            }
            if self.read().await == 0 {
                return None;
            }
        }
    }

    /// Reads until `text` has come.
    pub(crate) async fn until(&mut self, text: &str) {
        while find(&self.buffer, text.as_bytes()).is_none() {
            assert!(self.read().await > 0, "the connection ended before {text:?}: {:?}", self.buffer);
        }
    }

    /// Everything until the connection ends, by a close or a reset.
    /// All that comes after a request until the connection is closed, in whatever way.
    pub(crate) async fn rest_of(&mut self, req: &Req) -> String {
        // It may be closed already.
        let _ = self.stream.write_all(&req.bytes()).await;
        let mut all = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut all)).await.expect("it is closed");
        read.map_or_else(|_| String::new(), |_| String::from_utf8_lossy(&all).into_owned())
    }

    pub(crate) async fn rest(&mut self) -> String {
        while self.read().await > 0 {}
        String::from_utf8_lossy(&self.buffer.split()).into_owned()
    }

    /// How long it takes until the gateway closes the connection without a byte.
    pub(crate) async fn closed_after(&mut self) -> Duration {
        let begun = Instant::now();
        assert_eq!(self.rest().await, "");
        begun.elapsed()
    }

    /// Bytes read; 0 at the end, also if it is a reset.
    async fn read(&mut self) -> usize {
        timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await.expect("bytes or an end").unwrap_or(0)
    }
}

fn status_of(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {head:?}"))
}

pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
