//! HTTP/2 by hand (RFC 9113), for a client that reads only when it is told to.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The preface, windows so wide that they never close, and GET requests.
pub(crate) fn requests(count: usize) -> Vec<u8> {
    let wide = (1u32 << 30).to_be_bytes();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[&INITIAL_WINDOW_SIZE[..], &wide].concat()));
    bytes.extend(frame(WINDOW_UPDATE, 0, 0, &wide));
    // HPACK (RFC 7541, appendix A): GET, http and `/` of the static table; `:authority: x`.
    let head = [0x82, 0x86, 0x84, 0x01, 1, b'x'];
    let streams = (1u32..).step_by(2).take(count);
    bytes.extend(streams.flat_map(|stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &head)));
    bytes
}

/// Reads until the connection ends, and answers pings. Returns how many bytes of data came, and how many streams ended.
pub(crate) async fn read_all(client: &mut TcpStream) -> (usize, usize) {
    let (mut data, mut ended) = (0, 0);
    let mut head = [0; 9];
    while client.read_exact(&mut head).await.is_ok() {
        let [high, middle, low, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        if client.read_exact(&mut payload).await.is_err() {
            break;
        }
        match kind {
            DATA => (data, ended) = (data + payload.len(), ended + usize::from(flags & END_STREAM)),
            // An error means that the connection is ending, as it may.
            PING if flags & ACK == 0 => drop(client.write_all(&frame(PING, ACK, 0, &payload)).await),
            _ => {}
        }
    }
    (data, ended)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
