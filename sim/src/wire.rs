//! Writing an answer to a socket, correct or wrong on purpose.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::WriteHalf;
use tokio::time::sleep;

use crate::config::ServerKind;
use crate::faults::{BeforeToken, Fault, Faults};
use crate::stats::Progress;

/// Answers are collected up to this size before they are written.
const WRITE_SIZE: usize = 16 * 1024;

/// What becomes of the connection after an answer that did not go its normal way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is closed (FIN).
    Close,
    /// It is reset (RST).
    Reset,
    /// The client is not there any more.
    Gone,
}

/// What is left to do after a fault that leaves the connection intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The right answer follows.
    GoOn,
    /// The fault was the answer.
    Answered,
}

/// The writing side of one connection during one answer.
#[derive(Debug)]
pub(crate) struct Wire<'a> {
    out: WriteHalf<'a>,
    faults: &'a Faults,
    progress: &'a Progress,
    buffer: Vec<u8>,
    head: Head<'a>,
    pause: Option<Duration>,
    break_off: Option<BreakOff>,
    before_token: Option<BeforeToken>,
    events: usize,
    streamed: bool,
}

/// What every head of an answer has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) server: ServerKind,
    pub(crate) name: &'a str,
    /// Whether the answer says that the connection closes.
    pub(crate) close: bool,
    pub(crate) http10: bool,
    /// Whether the request is HEAD: no body.
    pub(crate) bodiless: bool,
    /// What a kept connection promises: idle seconds and number of requests.
    pub(crate) promise: (u64, usize),
    /// Whether a stream ends the connection although its head promised otherwise.
    pub(crate) close_after_stream: bool,
}

#[derive(Clone, Copy, Debug)]
struct BreakOff {
    after: usize,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Close,
    Reset,
    Stall,
    BadChunk,
}

impl<'a> Wire<'a> {
    pub(crate) fn new(out: WriteHalf<'a>, faults: &'a Faults, progress: &'a Progress, head: Head<'a>) -> Self {
        Self {
            out,
            faults,
            progress,
            buffer: Vec::new(),
            head,
            pause: None,
            break_off: None,
            before_token: None,
            events: 0,
            streamed: false,
        }
    }

    /// Whether the connection closes after this answer.
    pub(crate) fn closes(&self) -> bool {
        self.head.close || (self.streamed && self.head.close_after_stream)
    }

    /// Whether the head of a stream was sent, or waits for the next flush.
    pub(crate) fn has_head(&self) -> bool {
        self.streamed
    }

    /// How this answer fails before its first token, if it does.
    pub(crate) fn before_token(&self) -> Option<BeforeToken> {
        self.before_token
    }

    /// Makes the answer as wrong as `fault` says.
    pub(crate) async fn apply(&mut self, fault: Fault) -> Result<Applied, End> {
        match fault {
            // These two are met before a request is read, freezing in `flush`.
            Fault::AcceptThenClose | Fault::CloseReused | Fault::Freeze => {}
            Fault::ResetAfterRequest => return Err(End::Reset),
            Fault::CloseAfterRequest => return Err(End::Close),
            Fault::CloseAfterHeaders => {
                self.stream_head("text/event-stream");
                self.flush().await?;
                return Err(End::Close);
            }
            Fault::BeforeToken(failure) => self.before_token = Some(failure),
            Fault::PrematureEof { after_events } => self.break_after(after_events, How::Close),
            Fault::ResetMidStream { after_events } => self.break_after(after_events, How::Reset),
            Fault::Stall { after_events } => self.break_after(after_events, How::Stall),
            Fault::BadChunk { after_events } => self.break_after(after_events, How::BadChunk),
            Fault::Drip { pause } => self.pause = Some(pause),
            Fault::Junk => {
                self.buffer.extend_from_slice(b"\x16\x03\x01 this is not HTTP\r\n\r\n");
                self.flush().await?;
                return Err(End::Close);
            }
            Fault::InformationalStorm { count } => {
                for _ in 0..count {
                    self.buffer.extend_from_slice(b"HTTP/1.1 102 Processing\r\n\r\n");
                }
                self.flush().await?;
            }
            Fault::Delay(time) => sleep(time).await,
            Fault::Status { code, headers, body } => {
                self.whole(code, &headers, body.as_bytes()).await?;
                return Ok(Applied::Answered);
            }
        }
        Ok(Applied::GoOn)
    }

    /// A complete answer. `Content-Type` is JSON unless `headers` has one.
    pub(crate) async fn whole(&mut self, code: u16, headers: &[(String, String)], body: &[u8]) -> Result<(), End> {
        self.progress.output();
        // llama-server's HTTP library closes after an error answer.
        self.head.close |= code >= 400 && self.head.server == ServerKind::LlamaServer;
        let mut head = self.start(code);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            put(&mut head, "Content-Type", self.json_type());
        }
        let bad_chunk = self.break_off.is_some_and(|b| matches!(b.how, How::BadChunk)) && !self.head.http10;
        if bad_chunk {
            put(&mut head, "Transfer-Encoding", "chunked");
        } else {
            put(&mut head, "Content-Length", &body.len().to_string());
        }
        for (name, value) in headers {
            put(&mut head, name, value);
        }
        self.finish_head(head);
        if self.head.bodiless {
            return self.flush().await;
        }
        if let Some(BreakOff { how, .. }) = self.break_off {
            let half = &body[..body.len() / 2];
            if bad_chunk {
                self.buffer.extend_from_slice(format!("{:x}\r\n", half.len()).as_bytes());
            }
            self.buffer.extend_from_slice(half);
            self.buffer.extend_from_slice(if bad_chunk { b"\r\n" } else { b"" });
            return self.break_now(how).await;
        }
        self.buffer.extend_from_slice(body);
        self.flush().await
    }

    /// The head of an event stream; it goes out with the next flush.
    pub(crate) fn stream_head(&mut self, content_type: &str) {
        self.streamed = true;
        let mut head = self.start(200);
        if self.head.server == ServerKind::LlamaServer {
            put(&mut head, "X-Accel-Buffering", "no");
        }
        put(&mut head, "Content-Type", content_type);
        if self.head.http10 {
            self.head.close = true;
        } else {
            put(&mut head, "Transfer-Encoding", "chunked");
        }
        self.finish_head(head);
    }

    /// One SSE event that carries a token, as one HTTP chunk; not flushed.
    pub(crate) async fn token_event(&mut self, parts: &[&str]) -> Result<(), End> {
        if let Some(BreakOff { after, how }) = self.break_off
            && self.events == after
        {
            return self.break_now(how).await;
        }
        self.events += 1;
        self.progress.output();
        self.chunk(parts);
        if self.buffer.len() >= WRITE_SIZE { self.flush().await } else { Ok(()) }
    }

    /// Any other piece of an event stream, as one HTTP chunk; not flushed. Nothing of it if it is empty.
    pub(crate) fn chunk(&mut self, parts: &[&str]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length == 0 {
            return;
        }
        if !self.head.http10 {
            self.buffer.extend_from_slice(format!("{length:x}\r\n").as_bytes());
        }
        parts.iter().for_each(|part| self.buffer.extend_from_slice(part.as_bytes()));
        if !self.head.http10 {
            self.buffer.extend_from_slice(b"\r\n");
        }
    }

    /// The end of an event stream.
    pub(crate) async fn finish_stream(&mut self) -> Result<(), End> {
        if let Some(BreakOff { how, .. }) = self.break_off {
            return self.break_now(how).await;
        }
        if !self.head.http10 {
            self.buffer.extend_from_slice(b"0\r\n\r\n");
        }
        self.flush().await
    }

    /// Writes what was collected.
    pub(crate) async fn flush(&mut self) -> Result<(), End> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.faults.thawed().await;
        self.progress.start();
        // Taken, not cleared: an open stream that waits for its next token holds no buffer.
        let bytes = std::mem::take(&mut self.buffer);
        match self.pause {
            None => self.out.write_all(&bytes).await.map_err(|_| End::Gone),
            Some(pause) => {
                for byte in bytes {
                    self.out.write_all(&[byte]).await.map_err(|_| End::Gone)?;
                    if !pause.is_zero() {
                        sleep(pause).await;
                    }
                }
                Ok(())
            }
        }
    }

    fn break_after(&mut self, after: usize, how: How) {
        self.break_off = Some(BreakOff { after, how });
    }

    async fn break_now(&mut self, how: How) -> Result<(), End> {
        if matches!(how, How::BadChunk) {
            self.buffer.extend_from_slice(b"zz\r\nno chunk size\r\n");
        }
        self.flush().await?;
        match how {
            How::Close | How::BadChunk => Err(End::Close),
            How::Reset => Err(End::Reset),
            How::Stall => std::future::pending().await,
        }
    }

    fn start(&self, code: u16) -> String {
        let reason =
            http::StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason()).unwrap_or("Unknown");
        let mut head = format!("HTTP/1.1 {code} {reason}\r\n");
        match self.head.server {
            ServerKind::LlamaServer => {
                head.push_str("Server: llama.cpp\r\nAccess-Control-Allow-Origin: \r\n");
            }
            ServerKind::Vllm => head.push_str("server: uvicorn\r\n"),
        }
        put(&mut head, "X-Sim-Backend", self.head.name);
        head
    }

    fn finish_head(&mut self, mut head: String) {
        match (self.head.close, self.head.server) {
            (true, _) => head.push_str("Connection: close\r\n"),
            (false, ServerKind::LlamaServer) => {
                let (idle, max) = self.head.promise;
                put(&mut head, "Keep-Alive", &format!("timeout={idle}, max={max}"));
            }
            (false, ServerKind::Vllm) => {}
        }
        head.push_str("\r\n");
        self.buffer.extend_from_slice(head.as_bytes());
    }

    fn json_type(&self) -> &'static str {
        match self.head.server {
            ServerKind::LlamaServer => "application/json; charset=utf-8",
            ServerKind::Vllm => "application/json",
        }
    }
}

fn put(head: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = write!(head, "{name}: {value}\r\n");
}
