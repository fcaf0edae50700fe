//! The load: small requests over keep-alive connections, and many slow streams.

use std::cell::Cell;
use std::ops::Sub;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

/// Keep-alive connections of the small requests.
pub(crate) const CONNECTIONS: usize = 64;

/// Sends `n` POSTs of 1 KB over `connections` connections, as fast as they are answered. Returns how many were.
pub(crate) async fn requests(port: u16, connections: usize, n: usize) -> usize {
    let left = Rc::new(Cell::new(n));
    let local = LocalSet::new();
    let mut tasks = Vec::new();
    for connection in 0..connections {
        let left = Rc::clone(&left);
        tasks.push(local.spawn_local(async move {
            let mut stream = connect(port).await;
            let request = post("/v1/chat/completions", connection);
            let mut buffer = Vec::with_capacity(4096);
            let mut done = 0;
            while left.get() > 0 {
                left.set(left.get() - 1);
                exchange(&mut stream, &request, &mut buffer).await;
                done += 1;
            }
            done
        }));
    }
    local
        .run_until(async {
            let mut done = 0;
            for task in tasks {
                done += task.await.expect("the load does not panic");
            }
            done
        })
        .await
}

/// Microseconds of a request: median and 99th percentile.
#[derive(Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Sub for Latency {
    type Output = Latency;

    fn sub(self, other: Latency) -> Latency {
        Latency { p50: self.p50 - other.p50, p99: self.p99 - other.p99 }
    }
}

/// The latency of `n` requests, one after another.
pub(crate) async fn latency(port: u16, n: usize) -> Latency {
    let mut stream = connect(port).await;
    let request = post("/v1/chat/completions", 7);
    let mut buffer = Vec::with_capacity(4096);
    let mut micros = Vec::with_capacity(n);
    for _ in 0..n {
        let begun = Instant::now();
        exchange(&mut stream, &request, &mut buffer).await;
        micros.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    micros.sort_by(f64::total_cmp);
    Latency { p50: micros[n / 2], p99: micros[n * 99 / 100] }
}

/// Open streams, each of which sends a chunk every 50 ms.
pub(crate) struct Streams {
    streams: Vec<TcpStream>,
    chunks: usize,
}

impl Streams {
    /// Opens `n` streams of `chunks` chunks and waits until the head of each is there.
    pub(crate) async fn open(port: u16, n: usize, chunks: usize) -> Streams {
        let mut streams = Vec::with_capacity(n);
        for i in 0..n {
            let mut stream = connect(port).await;
            stream.write_all(&post(&format!("/sse/{chunks}/50"), i)).await.expect("the proxy takes a request");
            streams.push(stream);
        }
        for stream in &streams {
            stream.readable().await.expect("the proxy answers");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        Streams { streams, chunks }
    }

    /// Reads all streams to their end. Returns how many chunks came.
    pub(crate) async fn read_all(self) -> usize {
        let mut tasks = JoinSet::new();
        for mut stream in self.streams {
            tasks.spawn(async move {
                let (mut buffer, mut events, mut tail) = (vec![0; 16 * 1024], 0, Vec::new());
                while !tail.ends_with(b"0\r\n\r\n") {
                    let n = stream.read(&mut buffer).await.expect("the stream goes on");
                    assert!(n > 0, "a stream was cut");
                    events += buffer[..n].windows(6).filter(|bytes| bytes == b"data: ").count();
                    tail = [&tail[..], &buffer[..n]].concat();
                    tail.drain(..tail.len().saturating_sub(8));
                }
                events
            });
        }
        let events = tasks.join_all().await;
        // A read may end within `data: `, which the count then misses.
        assert!(events.iter().all(|events| *events + 5 >= self.chunks), "a stream was short: {events:?}");
        events.len() * self.chunks
    }
}

async fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the proxy listens");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream
}

async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) {
    stream.write_all(request).await.expect("the proxy takes a request");
    buffer.clear();
    let whole = loop {
        assert!(stream.read_buf(buffer).await.expect("the proxy answers") > 0, "the proxy closed the connection");
        if let Some(whole) = whole(buffer) {
            break whole;
        }
    };
    while buffer.len() < whole {
        assert!(stream.read_buf(buffer).await.expect("the proxy answers") > 0, "the proxy closed the connection");
    }
    assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(buffer));
}

/// The length of a response, once its head is there.
fn whole(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let length: usize = text.split("content-length:").nth(1)?.lines().next()?.trim().parse().ok()?;
    Some(head + length)
}

/// A POST of 1 KB with a session.
fn post(path: &str, session: usize) -> Vec<u8> {
    let body = format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]}}", "x".repeat(974));
    format!(
        "POST {path} HTTP/1.1\r\nHost: llm\r\nContent-Type: application/json\r\nX-Session-Id: bench-{session}\r\n\
         User-Agent: bench\r\nAccept: */*\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
