//! The backend role: answers of any size, event streams with timestamps.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Serves until the process ends.
///
/// | path | answer |
/// |---|---|
/// | `/sse/EVERY/PHASE` | an endless event stream, an event each EVERY ms, PHASE ms after those of phase 0 |
/// | `/size/N` | N bytes |
/// | `/connections` | the connections that had a request, other than this one and those of health checks |
/// | any other | a small JSON |
pub(crate) async fn serve(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
    let shared = Arc::new(Shared { start: Instant::now(), connections: AtomicUsize::new(0) });
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(converse(stream, Arc::clone(&shared)));
    }
}

/// What all connections share.
struct Shared {
    start: Instant,
    connections: AtomicUsize,
}

async fn converse(mut stream: TcpStream, shared: Arc<Shared>) -> Option<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    let mut counted = false;
    loop {
        let head = loop {
            if let Some(end) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        discard(&mut stream, &mut buffer, head + content_length(&text)).await?;
        let path = text.split(' ').nth(1)?;
        if !matches!(path, "/health" | "/connections") && !std::mem::replace(&mut counted, true) {
            shared.connections.fetch_add(1, Ordering::Relaxed);
        }
        match path.split('/').collect::<Vec<_>>()[..] {
            ["", "sse", every, phase] => {
                events(&mut stream, shared.start, every.parse().ok()?, phase.parse().ok()?).await?;
            }
            ["", "size", size] => sized(&mut stream, size.parse().ok()?).await?,
            ["", "connections"] => {
                let count = shared.connections.load(Ordering::Relaxed).to_string();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", count.len());
                stream.write_all(format!("{head}{count}").as_bytes()).await.ok()?;
            }
            _ => stream.write_all(ANSWER).await.ok()?,
        }
    }
}

fn content_length(head: &str) -> usize {
    let value = head.split("\r\ncontent-length:").nth(1).and_then(|rest| rest.lines().next());
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Drops the first `length` bytes, those in the buffer and those still to come.
async fn discard(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: usize) -> Option<()> {
    let mut left = length;
    while left > buffer.len() {
        left -= buffer.len();
        buffer.clear();
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    buffer.drain(..left);
    Some(())
}

async fn sized(stream: &mut TcpStream, size: usize) -> Option<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut left = size;
    while left > 0 {
        let piece = left.min(PIECE.len());
        stream.write_all(&PIECE[..piece]).await.ok()?;
        left -= piece;
    }
    Some(())
}

/// All streams of one interval and phase tick together, whenever they were opened: so the events of many streams are
/// spread evenly over the interval for every proxy, however fast it opens them.
async fn events(stream: &mut TcpStream, start: Instant, every: u64, phase: u64) -> Option<()> {
    stream.write_all(EVENTS_HEAD).await.ok()?;
    let every = Duration::from_millis(every);
    let passed = u32::try_from(start.elapsed().as_nanos() / every.as_nanos().max(1)).ok()?;
    let mut tick = interval_at(start + every * (passed + 1) + Duration::from_millis(phase), every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        let event = [EVENT_START, format!("{:019}", monotonic_nanos()).as_bytes(), EVENT_END].concat();
        stream.write_all(&event).await.ok()?;
    }
}

/// The clock that all processes of a machine share.
pub(crate) fn monotonic_nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::try_from(now).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0))
}

const BUFFER: usize = 64 * 1024;
static PIECE: [u8; BUFFER] = [b'x'; BUFFER];
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 233\r\n\r\n\
{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"ok\"}}],\
\"usage\":{\"prompt_tokens\":3020,\"completion_tokens\":1,\"prompt_tokens_details\":{\"cached_tokens\":2956}}}     ";
/// Bytes of its body.
pub(crate) const SMALL_ANSWER: usize = 233;
const EVENTS_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
/// A token as llama-server sends it, 175 bytes, with the time (19 digits) as its id.
const EVENT_START: &[u8] =
    b"af\r\ndata: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\" warm\"}}],\
\"created\":1764000000,\"id\":\"at-";
const EVENT_END: &[u8] = b"---------\",\"object\":\"chat.completion.chunk\"}\n\n\r\n";
/// What precedes the 19 digits of the time in an event.
pub(crate) const TIME_MARK: &[u8] = b"\"id\":\"at-";
/// Nanoseconds with leading zeros.
pub(crate) const TIME_DIGITS: usize = 19;
