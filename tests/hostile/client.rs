//! A client that sends whatever bytes it likes.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) use crate::cases::{End, PATIENCE};

/// A final answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// All answers to these bytes: up to `most` are waited for, then the client half-closes and reads to the end.
/// An error says what the gateway did that no server may do: hang, or answer with something that is no HTTP.
pub(crate) async fn exchange(to: SocketAddr, bytes: &[u8], end: End, most: usize) -> Result<Vec<Answer>, String> {
    let stream = TcpStream::connect(to).await.map_err(|error| format!("connect: {error}"))?;
    let talk = async {
        let (mut from, mut into) = stream.into_split();
        let write = async {
            // The gateway may close before it has everything.
            let _ = into.write_all(bytes).await;
            if end == End::HalfCloses {
                let _ = into.shutdown().await;
            }
            into
        };
        let (mut seen, head_only) = (Vec::new(), bytes.starts_with(b"HEAD "));
        let read = async {
            while answers(&seen, head_only)?.len() < most {
                if !matches!(from.read_buf(&mut seen).await, Ok(1..)) {
                    break;
                }
            }
            Ok::<_, String>((from, seen))
        };
        let (mut into, read) = tokio::join!(write, read);
        let (mut from, mut seen) = read?;
        let _ = into.shutdown().await;
        let _ = from.read_to_end(&mut seen).await;
        answers(&seen, head_only)
    };
    timeout(PATIENCE, talk).await.map_err(|_| "the gateway hangs".to_owned())?
}

/// An ordinary request on its own connection must be served, to the right client.
pub(crate) async fn control(to: SocketAddr, target: &str) -> Result<(), String> {
    let bytes = format!("GET {target} HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\r\n");
    match exchange(to, bytes.as_bytes(), End::Waits, 1).await?.as_slice() {
        [Answer { status: 200, body, .. }] if body == target => Ok(()),
        other => Err(format!("an ordinary request is not served: {other:?}")),
    }
}

/// The whole final answers at the beginning of `bytes`. What follows them must be the beginning of another one.
pub(crate) fn answers(bytes: &[u8], head_only: bool) -> Result<Vec<Answer>, String> {
    let (mut answers, mut rest) = (Vec::new(), bytes);
    while let Some((answer, length)) = answer(rest, head_only)? {
        rest = &rest[length..];
        if answer.status >= 200 {
            answers.push(answer);
        }
    }
    Ok(answers)
}

fn answer(bytes: &[u8], head_only: bool) -> Result<Option<(Answer, usize)>, String> {
    let broken = |what: &str| format!("{what}: {}", bytes[..bytes.len().min(300)].escape_ascii());
    let begin = &bytes[..bytes.len().min(VERSION.len())];
    if !VERSION.starts_with(begin) {
        return Err(broken("no HTTP"));
    }
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.get(9..12).and_then(|digits| digits.parse().ok()).ok_or_else(|| broken("status"))?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let length = match length {
        Some(_) if head_only || status < 200 => 0,
        Some(length) => length,
        None if status < 200 || status == 204 => 0,
        None => return Err(broken("no length")),
    };
    let Some(body) = bytes.get(end..end + length) else { return Ok(None) };
    Ok(Some((Answer { status, head, body: String::from_utf8_lossy(body).into_owned() }, end + length)))
}

const VERSION: &[u8] = b"HTTP/1.1 ";
