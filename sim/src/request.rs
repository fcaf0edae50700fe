//! Reading an HTTP/1 request from a socket. Strict: what is ambiguous is malformed.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::stats::RecordedRequest;

/// Largest request head; real servers take less, the limit only bounds memory.
const MAX_HEAD: usize = 1 << 20;
const MAX_HEADERS: usize = 256;
/// How long a request that has begun may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);

/// A request with its body.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) http10: bool,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Bytes,
}

/// Why there is no request.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// Not HTTP/1, or ambiguous.
    Malformed,
    /// The body is larger than allowed.
    TooLarge,
    /// The client left, or was too slow.
    Gone,
}

impl From<io::Error> for ReadError {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl Request {
    /// The path without its query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| &value[..])
    }

    /// The session id, if the header is there and is text.
    pub(crate) fn session(&self) -> Option<&str> {
        self.header("x-session-id").and_then(|value| str::from_utf8(value).ok())
    }

    /// Whether the client lets the connection be used again.
    pub(crate) fn keeps_alive(&self) -> bool {
        let connection = self.header("connection").unwrap_or_default().to_ascii_lowercase();
        let says = |word: &[u8]| connection.windows(word.len()).any(|window| window == word);
        if self.http10 { says(b"keep-alive") } else { !says(b"close") }
    }

    pub(crate) fn record(&self) -> RecordedRequest {
        RecordedRequest {
            method: self.method.clone(),
            target: self.target.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
        }
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| &value[..])
    }

    fn framing(&self) -> Result<Framing, ReadError> {
        let lengths: Vec<_> = self.values("content-length").collect();
        let codings: Vec<_> = self.values("transfer-encoding").collect();
        match (&lengths[..], &codings[..]) {
            ([], []) => Ok(Framing::Length(0)),
            ([length], []) => parse_length(length).map(Framing::Length),
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && !self.http10 => Ok(Framing::Chunked),
            _ => Err(ReadError::Malformed),
        }
    }
}

/// Waits until the next request's first byte is in `buffer`. `false`: the client left or stayed idle.
pub(crate) async fn wait_for_request(stream: &mut TcpStream, buffer: &mut BytesMut, idle: Duration) -> bool {
    if !buffer.is_empty() {
        return true;
    }
    matches!(timeout(idle, stream.read_buf(buffer)).await, Ok(Ok(read)) if read > 0)
}

/// Reads one request; what follows it stays in `buffer`.
pub(crate) async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    max_body: usize,
) -> Result<Request, ReadError> {
    match timeout(REQUEST_TIMEOUT, read_whole(stream, buffer, max_body)).await {
        Ok(result) => result,
        Err(_) => Err(ReadError::Gone),
    }
}

async fn read_whole(stream: &mut TcpStream, buffer: &mut BytesMut, max_body: usize) -> Result<Request, ReadError> {
    let mut request = loop {
        if let Some(request) = parse_head(buffer)? {
            break request;
        }
        if buffer.len() > MAX_HEAD {
            return Err(ReadError::Malformed);
        }
        read_more(stream, buffer).await?;
    };
    let framing = request.framing()?;
    if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    request.body = match framing {
        Framing::Length(length) => read_length(stream, buffer, length, max_body).await?,
        Framing::Chunked => read_chunked(stream, buffer, max_body).await?,
    };
    Ok(request)
}

enum Framing {
    Length(usize),
    Chunked,
}

fn parse_head(buffer: &mut BytesMut) -> Result<Option<Request>, ReadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(buffer).map_err(|_| ReadError::Malformed)? else {
        return Ok(None);
    };
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        target: head.path.unwrap_or_default().to_owned(),
        http10: head.version == Some(0),
        headers: head.headers.iter().map(|h| (h.name.to_owned(), h.value.to_vec())).collect(),
        body: Bytes::new(),
    };
    let _ = buffer.split_to(length);
    Ok(Some(request))
}

fn parse_length(value: &[u8]) -> Result<usize, ReadError> {
    let digits = str::from_utf8(value).ok().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or(ReadError::Malformed)
}

async fn read_length(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    length: usize,
    max_body: usize,
) -> Result<Bytes, ReadError> {
    if length > max_body {
        return Err(ReadError::TooLarge);
    }
    buffer.reserve(length.saturating_sub(buffer.len()));
    while buffer.len() < length {
        read_more(stream, buffer).await?;
    }
    Ok(buffer.split_to(length).freeze())
}

async fn read_chunked(stream: &mut TcpStream, buffer: &mut BytesMut, max_body: usize) -> Result<Bytes, ReadError> {
    let mut body = BytesMut::new();
    loop {
        let (head, size) = loop {
            match httparse::parse_chunk_size(buffer).map_err(|_| ReadError::Malformed)? {
                httparse::Status::Complete((head, size)) => break (head, size),
                httparse::Status::Partial => read_more(stream, buffer).await?,
            }
        };
        let size = usize::try_from(size).map_err(|_| ReadError::TooLarge)?;
        let _ = buffer.split_to(head);
        if size == 0 {
            skip_trailers(stream, buffer).await?;
            return Ok(body.freeze());
        }
        if body.len().saturating_add(size) > max_body {
            return Err(ReadError::TooLarge);
        }
        while buffer.len() < size + 2 {
            read_more(stream, buffer).await?;
        }
        body.extend_from_slice(&buffer.split_to(size));
        if &buffer.split_to(2)[..] != b"\r\n" {
            return Err(ReadError::Malformed);
        }
    }
}

async fn skip_trailers(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<(), ReadError> {
    loop {
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\r\n") {
            let _ = buffer.split_to(end + 2);
            if end == 0 {
                return Ok(());
            }
        }
        if buffer.len() > MAX_HEAD {
            return Err(ReadError::Malformed);
        }
        read_more(stream, buffer).await?;
    }
}

async fn read_more(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<(), ReadError> {
    if stream.read_buf(buffer).await? == 0 { Err(ReadError::Gone) } else { Ok(()) }
}
