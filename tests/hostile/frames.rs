//! HTTP/2 as bytes: frames that a library would refuse to send, and what comes back.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cases::PATIENCE;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// An error code (RFC 9113, section 7).
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
/// Of a head.
pub(crate) const PRIORITIZED: u8 = 0x20;

/// What became of stream 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A response with this status, to its end.
    Status(u16),
    /// The stream was reset.
    Reset,
    /// The connection was ended.
    Closed,
}

/// One frame (RFC 9113, section 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literals that are neither indexed nor compressed (RFC 7541, section 6.2.2).
pub(crate) fn block(headers: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            integer(text.len(), &mut block);
            block.extend_from_slice(text);
        }
    }
    block
}

/// Sends frames on a new connection, and waits for the end of stream 1.
pub(crate) async fn send(to: SocketAddr, frames: &[u8]) -> Outcome {
    let (mut from, mut into) = TcpStream::connect(to).await.unwrap().into_split();
    let talk = async {
        let write = async {
            // The gateway may close before it has everything.
            let _ = into.write_all(&[PREFACE, frames].concat()).await;
            std::future::pending::<()>().await;
        };
        let read = async {
            let (mut seen, mut status) = (Vec::new(), None);
            while matches!(from.read_buf(&mut seen).await, Ok(1..)) {
                while let Some((kind, flags, stream, payload)) = take(&mut seen) {
                    match (kind, stream) {
                        (HEADERS, 1) => status = status.or(Some(status_of(&payload))),
                        (RST_STREAM, 1) => return status.map_or(Outcome::Reset, Outcome::Status),
                        (GOAWAY, _) if payload[4..8] != [0; 4] => return Outcome::Closed,
                        _ => {}
                    }
                    if let (1, Some(status), true) = (stream, status, flags & END_STREAM != 0 && kind <= HEADERS) {
                        return Outcome::Status(status);
                    }
                }
            }
            status.map_or(Outcome::Closed, Outcome::Status)
        };
        tokio::select! {
            () = write => unreachable!("writing is pending for ever"),
            outcome = read => outcome,
        }
    };
    timeout(PATIENCE, talk).await.expect("the gateway hangs")
}

/// Sends frames on a new connection, and waits until a stream is reset: with this code. `None`: the connection ended.
pub(crate) async fn reset_of(to: SocketAddr, frames: &[u8], stream: u32) -> Option<u32> {
    let mut connection = TcpStream::connect(to).await.unwrap();
    connection.write_all(&[PREFACE, frames].concat()).await.unwrap();
    let mut seen = Vec::new();
    while matches!(timeout(PATIENCE, connection.read_buf(&mut seen)).await.expect("the gateway hangs"), Ok(1..)) {
        while let Some((kind, _, of, payload)) = take(&mut seen) {
            if (kind, of) == (RST_STREAM, stream) {
                return Some(u32::from_be_bytes(payload[..4].try_into().unwrap()));
            }
        }
    }
    None
}

/// The first frame of what came.
pub(crate) fn take(seen: &mut Vec<u8>) -> Option<(u8, u8, u32, Vec<u8>)> {
    let head: [u8; 9] = seen.get(..9)?.try_into().ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let payload = seen.get(9..9 + length)?.to_vec();
    seen.drain(..9 + length);
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

/// `:status` is the first header of a response: one of the static table, or digits, in Huffman code as a rule.
fn status_of(block: &[u8]) -> u16 {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [index @ 0x88..=0x8e, ..] => STATIC[usize::from(index - 0x88)],
        [0x48 | 0x08, length, digits @ ..] if length & 0x80 == 0 => {
            String::from_utf8_lossy(&digits[..usize::from(*length)]).parse().unwrap()
        }
        [0x48 | 0x08, length, digits @ ..] => huffman_digits(&digits[..usize::from(length & 0x7f)]),
        other => panic!("no :status in {}", other.escape_ascii()),
    }
}

/// Three digits: 0, 1 and 2 have five bits, the others six (RFC 7541, appendix B).
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits = bytes.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (32 - 8 * bytes.len());
    let (mut status, mut at) = (0, 0);
    for _ in 0..3 {
        let five = (bits << at) >> 27;
        let digit = if five < 3 { five } else { ((bits << at) >> 26) - 0x19 + 3 };
        at += if five < 3 { 5 } else { 6 };
        status = status * 10 + u16::try_from(digit).unwrap();
    }
    status
}

/// An integer with a prefix of seven bits (RFC 7541, section 5.1).
fn integer(mut n: usize, into: &mut Vec<u8>) {
    if n < 127 {
        into.push(u8::try_from(n).unwrap());
        return;
    }
    into.push(127);
    n -= 127;
    while n >= 128 {
        into.push(u8::try_from(n % 128).unwrap() | 128);
        n /= 128;
    }
    into.push(u8::try_from(n).unwrap());
}
