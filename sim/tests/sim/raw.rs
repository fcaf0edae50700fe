//! A client that sees every byte.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use ingle_sim::SimServer;

/// Longer than anything takes: a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An open connection.
pub(crate) struct Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// `data` values of an event stream.
    pub(crate) fn events(&self) -> Vec<&str> {
        self.body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect()
    }

    pub(crate) fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line.eq_ignore_ascii_case(header))
    }
}

impl Raw {
    pub(crate) async fn to(server: &SimServer) -> Self {
        Self { stream: TcpStream::connect(server.address()).await.unwrap(), buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: sim\r\n\r\n")).await;
        self.answer().await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.send(&post(path, body)).await;
        self.answer().await
    }

    /// Everything until the connection ends; an error if it ends by a reset.
    pub(crate) async fn rest(&mut self) -> io::Result<String> {
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut self.buffer)).await.expect("the connection ends");
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned();
        read.map(|_| text)
    }

    /// Reads until `text` has come; returns everything so far.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        loop {
            let got = String::from_utf8_lossy(&self.buffer).into_owned();
            if got.contains(text) {
                return got;
            }
            assert!(self.read().await > 0, "connection ended before {text:?}: {got:?}");
        }
    }

    /// Reads until this many token events have come in full.
    pub(crate) async fn until_tokens(&mut self, count: usize) {
        loop {
            let got = String::from_utf8_lossy(&self.buffer).into_owned();
            let events = got.split_inclusive("\n\n\r\n");
            if events.filter(|e| e.contains("\"content\":\"") && e.ends_with("\n\n\r\n")).count() >= count {
                return;
            }
            assert!(self.read().await > 0, "connection ended early: {got:?}");
        }
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn is_silent(&mut self) -> bool {
        timeout(Duration::from_millis(30), self.stream.read_buf(&mut self.buffer)).await.is_err()
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.until("\r\n\r\n").await;
        let text = String::from_utf8_lossy(&self.buffer).into_owned();
        let end = text.find("\r\n\r\n").unwrap() + 4;
        let head = text[..end].to_owned();
        self.buffer.drain(..end);
        let lower = head.to_ascii_lowercase();
        let body = if lower.contains("transfer-encoding: chunked") {
            self.chunked().await
        } else {
            let length = lower.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
            self.take(length).await
        };
        Answer { code: head.split(' ').nth(1).unwrap().parse().unwrap(), head, body }
    }

    async fn chunked(&mut self) -> String {
        let mut body = String::new();
        loop {
            let line = self.until("\r\n").await;
            let size = line.lines().next().unwrap();
            self.take(size.len() + 2).await;
            let size = usize::from_str_radix(size, 16).unwrap();
            let chunk = self.take(size + 2).await;
            if size == 0 {
                return body;
            }
            body.push_str(chunk.strip_suffix("\r\n").unwrap());
        }
    }

    async fn take(&mut self, length: usize) -> String {
        while self.buffer.len() < length {
            assert!(self.read().await > 0, "connection ended in a body");
        }
        String::from_utf8(self.buffer.drain(..length).collect()).unwrap()
    }

    async fn read(&mut self) -> usize {
        timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await.expect("bytes come").unwrap()
    }
}

pub(crate) fn post(path: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: sim\r\nX-Session-Id: s1\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A chat request with one user message.
pub(crate) fn chat(text: &str, max_tokens: usize, stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, "stream": stream})
}

pub(crate) const CHAT: &str = "/v1/chat/completions";
