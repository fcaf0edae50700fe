//! One request of a client that forgives nothing, over HTTP/1.1 or HTTP/2, and what came of it.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::asked::{Asked, Kind, has_output, origin};
use crate::client::{Req, find, header_of};
use crate::harness::PATIENCE;

/// Why a request was not answered as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There was no connection to the gateway.
    Refused,
    /// The connection, or the stream, ended before an answer.
    Unanswered,
    /// The answer had another status than 200, and began so.
    Status(u16, String),
    /// The answer started well and broke off after the first output: what came is right.
    Cut,
    /// A stream broke off after its head, before its first output.
    CutBeforeOutput,
    /// A stream broke off after an error event, before its first output.
    ErrorEvent(String),
    /// Bytes came that its backend has not sent.
    Wrong(String),
    /// Nothing happened for as long as anybody waits.
    Hangs,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) backend: Option<String>,
    pub(crate) affinity: Option<String>,
    pub(crate) failure: Option<Failure>,
}

impl Done {
    fn failed(failure: Failure) -> Done {
        Done { backend: None, affinity: None, failure: Some(failure) }
    }

    /// An answer's head, and as much of its body as came. The head of a stream can name another backend than the one whose
    /// events continue it.
    fn judge(asked: &Asked, status: u16, head: &dyn Fn(&str) -> Option<String>, body: &[u8], whole: bool) -> Done {
        let (named, affinity) = (head("X-Ingle-Backend"), head("X-Ingle-Affinity"));
        let streams = matches!(asked.kind, Kind::Stream { .. });
        let body = if streams { without_comments(body) } else { body };
        let backend = origin(body).filter(|_| streams).map(str::to_owned).or(named);
        let expected = backend.as_deref().map(|name| asked.expected(name)).unwrap_or_default();
        let failure = match (status, whole) {
            (200, true) if body == expected => None,
            (200, false) if expected.starts_with(body) => match streams && !has_output(body) {
                true => Some(Failure::CutBeforeOutput),
                false => Some(Failure::Cut),
            },
            (200, false) if streams && body.starts_with(b"data: {\"error\":") && body.ends_with(b"}\n\n") => {
                Some(Failure::ErrorEvent(String::from_utf8_lossy(body).into_owned()))
            }
            (200, _) => Some(Failure::Wrong(wrong(body, &expected))),
            _ => Some(Failure::Status(status, String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned())),
        };
        Done { backend, affinity, failure }
    }
}

/// The rest of a stream after the whole comments at its start.
fn without_comments(mut stream: &[u8]) -> &[u8] {
    while stream.starts_with(b":") {
        let Some(end) = find(stream, b"\n\n") else { break };
        stream = &stream[end + 2..];
    }
    stream
}

/// From the first byte that is wrong.
fn wrong(body: &[u8], expected: &[u8]) -> String {
    let at = body.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(expected.len().min(body.len()));
    let near = |bytes: &[u8]| bytes[at.min(bytes.len())..].iter().take(60).copied().collect::<Vec<u8>>();
    let (got, due) = (near(body).escape_ascii().to_string(), near(expected).escape_ascii().to_string());
    format!("byte {at} of {} (due: {}): {got:?} instead of {due:?}", body.len(), expected.len())
}

/// A client's connection, which it keeps for as long as the gateway keeps it.
pub(crate) enum Caller {
    Http1 { keeps: bool, connection: Option<Http1> },
    Http2(Option<Http2>),
}

impl Caller {
    /// Asks once. A failure is not tried again.
    pub(crate) async fn ask(&mut self, address: SocketAddr, asked: &Asked) -> Done {
        let exchange = async {
            match self {
                Caller::Http1 { keeps, connection } => ask_http1(address, asked, *keeps, connection).await,
                Caller::Http2(connection) => ask_http2(address, asked, connection).await,
            }
        };
        let done = timeout(PATIENCE, exchange).await;
        if done.is_err() {
            self.hang_up();
        }
        done.unwrap_or_else(|_| Done::failed(Failure::Hangs))
    }

    fn hang_up(&mut self) {
        match self {
            Caller::Http1 { connection, .. } => *connection = None,
            Caller::Http2(connection) => *connection = None,
        }
    }
}

async fn ask_http1(address: SocketAddr, asked: &Asked, keeps: bool, connection: &mut Option<Http1>) -> Done {
    let mut http1 = match connection.take() {
        Some(http1) => http1,
        None => match TcpStream::connect(address).await {
            Ok(stream) => Http1 { stream, bytes: BytesMut::new() },
            Err(_) => return Done::failed(Failure::Refused),
        },
    };
    let Some(head) = http1.begin(&asked.request()).await else { return Done::failed(Failure::Unanswered) };
    let (body, whole) = http1.body(&head).await;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let done = Done::judge(asked, status, &|name| header_of(&head, name).map(str::to_owned), &body, whole);
    if keeps && whole && header_of(&head, "Connection") != Some("close") {
        *connection = Some(http1);
    }
    done
}

/// A connection for HTTP/1.1.
pub(crate) struct Http1 {
    stream: TcpStream,
    bytes: BytesMut,
}

impl Http1 {
    /// Sends a request and reads the head of its final answer.
    async fn begin(&mut self, req: &Req) -> Option<String> {
        // Perhaps it answers before it has everything.
        let _ = self.stream.write_all(&req.bytes()).await;
        loop {
            while let Some(end) = find(&self.bytes, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.bytes.split_to(end + 4)).into_owned();
                if !head.starts_with("HTTP/1.1 1") || head.starts_with("HTTP/1.1 101 ") {
                    return Some(head);
                }
            }
            self.more().await?;
        }
    }

    /// The body, as far as it came, and whether it came to its end.
    async fn body(&mut self, head: &str) -> (Vec<u8>, bool) {
        if header_of(head, "Transfer-Encoding").is_some() {
            return self.chunks().await;
        }
        let length = header_of(head, "Content-Length").and_then(|length| length.parse::<usize>().ok());
        while length.is_none_or(|length| self.bytes.len() < length) && self.more().await.is_some() {}
        let end = length.unwrap_or(usize::MAX).min(self.bytes.len());
        (self.bytes.split_to(end).to_vec(), length.is_none_or(|length| length == end))
    }

    async fn chunks(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let line = find(&self.bytes, b"\r\n");
            let size =
                line.and_then(|end| usize::from_str_radix(std::str::from_utf8(&self.bytes[..end]).ok()?, 16).ok());
            if let (Some(end), Some(size)) = (line, size)
                && self.bytes.len() >= end + 2 + size + 2
            {
                let chunk = self.bytes.split_to(end + 2 + size + 2);
                body.extend(&chunk[end + 2..end + 2 + size]);
                if size == 0 {
                    return (body, true);
                }
            } else if self.more().await.is_none() {
                return (body, false);
            }
        }
    }

    async fn more(&mut self) -> Option<()> {
        matches!(self.stream.read_buf(&mut self.bytes).await, Ok(1..)).then_some(())
    }
}

/// A connection for HTTP/2.
pub(crate) struct Http2 {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn ask_http2(address: SocketAddr, asked: &Asked, connection: &mut Option<Http2>) -> Done {
    // A connection that takes no more requests has not lost one.
    let ready = match connection.take() {
        Some(http2) => http2.requests.clone().ready().await.ok().map(|requests| (http2, requests)),
        None => None,
    };
    let (http2, requests) = match ready {
        Some(ready) => ready,
        None => match connect_http2(address).await {
            Ok(ready) => ready,
            Err(failure) => return Done::failed(failure),
        },
    };
    let Ok((head, body, whole)) = exchange_http2(requests, &asked.request()).await else {
        return Done::failed(Failure::Unanswered);
    };
    *connection = Some(http2);
    let header = |name: &str| header_in(&head.headers, name);
    Done::judge(asked, head.status.as_u16(), &header, &body, whole)
}

fn header_in(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

async fn connect_http2(address: SocketAddr) -> Result<(Http2, SendRequest<Bytes>), Failure> {
    let stream = TcpStream::connect(address).await.map_err(|_| Failure::Refused)?;
    let (requests, connection) = h2::client::handshake(stream).await.map_err(|_| Failure::Unanswered)?;
    // How it ends shows in its streams.
    let connection = tokio::spawn(async move { drop(connection.await) });
    let ready = requests.clone().ready().await.map_err(|_| Failure::Unanswered)?;
    Ok((Http2 { requests, connection }, ready))
}

async fn exchange_http2(
    mut requests: SendRequest<Bytes>,
    req: &Req,
) -> Result<(http::response::Parts, Vec<u8>, bool), h2::Error> {
    let mut head = http::Request::builder().method(req.method.as_str()).uri(format!("http://llm.test{}", req.path));
    for (name, value) in req.headers.iter().filter(|(name, _)| name != "Host") {
        head = head.header(name, value);
    }
    let (response, mut body) = requests.send_request(head.body(()).expect("a head"), req.body.is_empty())?;
    let mut rest = Bytes::from(req.body.clone());
    while !rest.is_empty() {
        body.reserve_capacity(rest.len());
        let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await;
        let Some(Ok(room)) = room else { break };
        let part = rest.split_to(room.min(rest.len()));
        body.send_data(part, rest.is_empty())?;
    }
    let (parts, mut stream) = response.await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.data().await {
        let Ok(piece) = piece else { return Ok((parts, bytes, false)) };
        let _ = stream.flow_control().release_capacity(piece.len());
        bytes.extend(piece);
    }
    Ok((parts, bytes, true))
}
