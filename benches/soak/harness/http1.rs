//! A client of HTTP/1.1 that says what it got, and on whose account it did not get the rest.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A connection that is kept from one request to the next.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    buffer: BytesMut,
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Who gave it; `None` is the gateway itself.
    pub(crate) backend: Option<String>,
    /// No further request on this connection.
    pub(crate) close: bool,
    pub(crate) body: Bytes,
}

/// There is no whole answer.
#[derive(Debug)]
pub(crate) struct Broken {
    /// The backend whose output had reached the client: an event of a stream with a token in it, or the head of an answer
    /// that is no stream.
    pub(crate) started_on: Option<String>,
    pub(crate) what: String,
}

/// An answer's head.
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) backend: Option<String>,
    streams: bool,
    close: bool,
    length: Length,
}

#[derive(Clone, Copy)]
enum Length {
    Of(usize),
    Chunked,
}

impl Connection {
    /// `from` is an address of this machine: each has ports of its own.
    pub(crate) async fn open(to: SocketAddr, from: Ipv4Addr) -> Result<Connection, Broken> {
        let connect = async {
            let socket = TcpSocket::new_v4()?;
            if from != Ipv4Addr::LOCALHOST {
                socket.bind(SocketAddr::from((from, 0)))?;
            }
            let stream = socket.connect(to).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        };
        let stream = connect.await.map_err(|error| Broken::early(format!("connect: {error}")))?;
        Ok(Connection { stream, buffer: BytesMut::new() })
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<Answer, Broken> {
        let exchange = async {
            self.send(request).await?;
            let head = self.head().await?;
            let body = self.body(&head).await?;
            Ok(Answer { status: head.status, backend: head.backend, close: head.close, body })
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Broken::early(format!("no end after {PATIENCE:?}"))),
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.stream.write_all(bytes).await.map_err(|error| Broken::early(format!("while sending: {error}")))
    }

    /// Waits for an answer's head.
    pub(crate) async fn head(&mut self) -> Result<Head, Broken> {
        let early = |what: String| Broken::early(format!("before the answer: {what}"));
        loop {
            if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
                let head = self.buffer.split_to(end + 4);
                return Head::parse(&String::from_utf8_lossy(&head))
                    .ok_or_else(|| early(format!("this is no head: {}", head.escape_ascii())));
            }
            self.more().await.map_err(early)?;
        }
    }

    /// Reads the body that belongs to a head.
    pub(crate) async fn body(&mut self, head: &Head) -> Result<Bytes, Broken> {
        let mut body = BytesMut::new();
        let read = match head.length {
            Length::Of(length) => self.declared(length).await.map(|declared| body.extend_from_slice(&declared)),
            Length::Chunked => self.chunks(&mut body).await,
        };
        match read {
            Ok(()) => Ok(body.freeze()),
            Err(what) => Err(head.broken(&body, what)),
        }
    }

    /// Reads the next of a chunked body; `None` is its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        let line = loop {
            if let Some(end) = memmem::find(&self.buffer, b"\r\n") {
                break self.buffer.split_to(end + 2);
            }
            self.more().await?;
        };
        let size = str::from_utf8(&line).ok().and_then(|line| usize::from_str_radix(line.trim_end(), 16).ok());
        let size = size.ok_or_else(|| format!("this is no chunk: {}", line.escape_ascii()))?;
        let mut chunk = self.declared(size + 2).await?;
        if chunk.split_off(size) != b"\r\n"[..] {
            return Err("a chunk without an end".to_owned());
        }
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    async fn declared(&mut self, length: usize) -> Result<Bytes, String> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(self.buffer.copy_to_bytes(length))
    }

    async fn chunks(&mut self, body: &mut BytesMut) -> Result<(), String> {
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        Ok(())
    }

    async fn more(&mut self) -> Result<(), String> {
        self.buffer.reserve(8 * 1024);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err("the connection was closed".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Head {
    fn parse(text: &str) -> Option<Head> {
        let mut lines = text.lines();
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let mut head = Head { status, backend: None, streams: false, close: false, length: Length::Of(0) };
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = Length::Of(value.parse().ok()?),
                "transfer-encoding" => head.length = Length::Chunked,
                "connection" => head.close = value.eq_ignore_ascii_case("close"),
                "content-type" => head.streams = value.starts_with(STREAM_TYPE),
                "x-ingle-backend" => head.backend = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(head)
    }

    /// An answer with this head that broke after this much of its body.
    pub(crate) fn broken(&self, body: &[u8], what: String) -> Broken {
        Broken::after_head(self.backend.clone(), self.streams, body, what)
    }
}

impl Broken {
    /// Nothing of an answer was there.
    pub(crate) fn early(what: String) -> Broken {
        Broken { started_on: None, what }
    }

    /// There was a head, and this much of a body.
    pub(crate) fn after_head(backend: Option<String>, streams: bool, body: &[u8], what: String) -> Broken {
        // The head can name another backend than the one whose events continue the stream.
        let started_on = if streams { serving(body) } else { backend };
        Broken { started_on, what: format!("after {} bytes of the answer: {what}", body.len()) }
    }
}

/// The backend of a stream, from the id in its events, if a token is in this much of it: the first chunk of a chat has a
/// role only.
fn serving(body: &[u8]) -> Option<String> {
    let has_token = |at: usize| body.get(at + CONTENT.len()).is_some_and(|next| *next != b'"');
    memmem::find_iter(body, CONTENT).find(|at| has_token(*at))?;
    let id = &body[memmem::find(body, ID)? + ID.len()..];
    let name = id.split(|byte| *byte == b'-').next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// A POST of a completion; in chunks if its length shall not be declared.
pub(crate) fn post(session: Option<&str>, key: Option<&str>, body: &[u8], chunked: bool) -> Vec<u8> {
    let mut request =
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\n".to_vec();
    if let Some(session) = session {
        request.extend(format!("X-Session-Id: {session}\r\n").bytes());
    }
    if let Some(key) = key {
        request.extend(format!("Authorization: Bearer {key}\r\n").bytes());
    }
    if chunked {
        request.extend(b"Transfer-Encoding: chunked\r\n\r\n");
        for piece in body.chunks(4096) {
            request.extend(format!("{:x}\r\n", piece.len()).bytes());
            request.extend([piece, b"\r\n"].concat());
        }
        request.extend(b"0\r\n\r\n");
    } else {
        request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
        request.extend(body);
    }
    request
}

pub(crate) const STREAM_TYPE: &str = "text/event-stream";
const ID: &[u8] = b"\"id\":\"chatcmpl-";
const CONTENT: &[u8] = b"\"content\":\"";
/// Longer than any answer takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
#[allow(dead_code, unused_imports, reason = "for `tests/soak.rs`: a bench has no tests")]
mod tests {
    use super::*;

    #[test]
    fn stream_starts_with_its_first_token() {
        let role = r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
        let token = r#"data: {"id":"chatcmpl-b-7","choices":[{"delta":{"content":"abcd"}}]}"#;
        for (body, streams, expected) in [
            ("", true, None),
            (": ping\n\n", true, None),
            (role, true, None),
            (&token[..token.len() - 9], true, None),
            (token, true, Some("b")),
            ("", false, Some("a")),
        ] {
            let broken = Broken::after_head(Some("a".to_owned()), streams, body.as_bytes(), String::new());
            assert_eq!(broken.started_on.as_deref(), expected, "{body}");
        }
    }
}
