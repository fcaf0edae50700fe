//! Clients that accept nothing but what the RFCs allow.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::origin::Progress;
use crate::reader::{self, End, Field, Reading};

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Http11,
    Http10,
    H2c,
}

/// What a client got.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Statuses of interim responses.
    pub(crate) interim: Vec<u16>,
    /// `None` if the connection or the stream ended without an answer.
    pub(crate) status: Option<u16>,
    pub(crate) fields: Vec<Field>,
    pub(crate) payload: Vec<u8>,
    pub(crate) trailers: Vec<Field>,
    /// Whether the end shows that it is all.
    pub(crate) is_whole: bool,
    /// Whether the connection serves another request.
    pub(crate) keeps: bool,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.payload[..self.payload.len().min(40)].escape_ascii();
        let backend = self.field("X-Ingle-Backend").unwrap_or(b"the gateway").escape_ascii();
        let end = if self.is_whole { "" } else { " broken" };
        write!(f, "{} \"{start}\"{end} of {backend}", self.status.unwrap_or(0))
    }
}

impl Outcome {
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|field| field.0.eq_ignore_ascii_case(name)).map(|field| &field.1[..])
    }

    pub(crate) fn progress(&self, has_ended: bool) -> Progress {
        Progress { has_head: self.status.is_some(), payload: self.payload.len(), has_ended }
    }
}

/// A client with one connection.
pub(crate) enum Client {
    Http1 { stream: TcpStream, seen: Vec<u8>, version: &'static str },
    H2c { requests: SendRequest<Bytes>, connection: JoinHandle<()> },
}

impl Client {
    pub(crate) async fn connect(to: SocketAddr, kind: Kind) -> Client {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let version = match kind {
            Kind::Http11 => "HTTP/1.1",
            Kind::Http10 => "HTTP/1.0",
            Kind::H2c => {
                let (requests, connection) = h2::client::handshake(stream).await.unwrap();
                // How it ends shows in the streams.
                return Client::H2c { requests, connection: tokio::spawn(async move { drop(connection.await) }) };
            }
        };
        Client::Http1 { stream, seen: Vec::new(), version }
    }

    /// Sends a request without a body and reads its answer; `note` gets how far that has come. An error is something
    /// that no server can do.
    pub(crate) async fn ask(&mut self, method: &str, target: &str, note: impl Fn(Progress)) -> Result<Outcome, String> {
        match self {
            Client::Http1 { stream, seen, version } => {
                let keep_alive = if *version == "HTTP/1.0" { "Connection: keep-alive\r\n" } else { "" };
                let head = format!("{method} {target} {version}\r\nHost: a\r\n{keep_alive}\r\n");
                stream.write_all(head.as_bytes()).await.map_err(|error| error.to_string())?;
                read_http1(stream, seen, method == "HEAD", note).await
            }
            Client::H2c { requests, .. } => {
                let request = Request::builder().method(method).uri(format!("http://a{target}")).body(()).unwrap();
                let mut outcome = Outcome::default();
                let mut requests = requests.clone().ready().await.map_err(|error| error.to_string())?;
                // How it failed does not matter: a stream that was reset is no whole answer.
                outcome.is_whole = read_http2(&mut requests, request, &mut outcome, &note).await.is_ok();
                outcome.keeps = true;
                note(outcome.progress(true));
                Ok(outcome)
            }
        }
    }

    /// The end of a connection that serves no other request: nothing follows the answer.
    pub(crate) async fn end(&mut self) -> Result<(), String> {
        let Client::Http1 { stream, seen, .. } = self else { return Ok(()) };
        while matches!(stream.read_buf(seen).await, Ok(1..)) {}
        if seen.is_empty() { Ok(()) } else { Err(format!("after the answer came {}", seen.escape_ascii())) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Client::H2c { connection, .. } = self {
            connection.abort();
        }
    }
}

/// Reads an answer and takes it off `seen`.
pub(crate) async fn read_http1(
    stream: &mut (impl AsyncRead + Unpin),
    seen: &mut Vec<u8>,
    to_head: bool,
    note: impl Fn(Progress),
) -> Result<Outcome, String> {
    let (mut interim, mut is_over) = (Vec::new(), None);
    loop {
        let reading = reader::read(seen, to_head);
        if reading.end == End::Malformed {
            return Err(format!("malformed: {}", seen[..seen.len().min(300)].escape_ascii()));
        }
        if let Some(head) = reading.head.as_ref().filter(|head| head.status < 200 && head.status != 101) {
            interim.push(head.status);
            seen.drain(..head.length);
            continue;
        }
        let end = match (reading.end, is_over) {
            (End::At(end), _) => Some((end, true)),
            // Only a reset shows that the rest is missing.
            (End::AtClose, Some(is_clean)) => Some((seen.len(), is_clean)),
            (_, Some(_)) => Some((seen.len(), false)),
            (_, None) => None,
        };
        if let Some((end, is_whole)) = end {
            let outcome = outcome(reading, interim, is_whole);
            seen.drain(..end);
            note(outcome.progress(true));
            return Ok(outcome);
        }
        note(Progress { has_head: reading.head.is_some(), payload: reading.payload.len(), has_ended: false });
        is_over = match stream.read_buf(seen).await {
            Ok(0) => Some(true),
            Ok(_) => None,
            Err(_) => Some(false),
        };
    }
}

fn outcome(reading: Reading, interim: Vec<u16>, is_whole: bool) -> Outcome {
    let keeps = is_whole && reading.head.as_ref().is_some_and(|head| head.keep_alive);
    let (status, fields) = reading.head.map(|head| (head.status, head.fields)).unzip();
    let trailers = reading.trailers.unwrap_or_default();
    Outcome { interim, status, fields: fields.unwrap_or_default(), payload: reading.payload, trailers, is_whole, keeps }
}

async fn read_http2(
    requests: &mut SendRequest<Bytes>,
    request: Request<()>,
    outcome: &mut Outcome,
    note: &impl Fn(Progress),
) -> Result<(), h2::Error> {
    let (response, _) = requests.send_request(request, true)?;
    read_http2_response(response, outcome, note).await
}

pub(crate) async fn read_http2_response(
    response: ResponseFuture,
    outcome: &mut Outcome,
    note: &impl Fn(Progress),
) -> Result<(), h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    outcome.status = Some(head.status.as_u16());
    outcome.fields = owned(&head.headers);
    note(outcome.progress(false));
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        outcome.payload.extend_from_slice(&piece);
        note(outcome.progress(false));
    }
    outcome.trailers = body.trailers().await?.as_ref().map(owned).unwrap_or_default();
    Ok(())
}

fn owned(fields: &http::HeaderMap) -> Vec<Field> {
    fields.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}
