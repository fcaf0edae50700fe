//! Ten KiB of what no honest client sends.

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    block, frame,
};

/// One input, and what it is.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// Requests in it that the gateway takes at once.
    pub(crate) requests: u32,
}

/// What all others are compared with: one request with a body of ten KiB.
pub(crate) fn ordinary() -> Shape {
    let text = "a story about a hearth ".repeat(TEN_KIB / 23 - 10);
    let body = format!(r#"{{"max_tokens":1,"messages":[{{"role":"user","content":"{text}"}}]}}"#);
    Shape { name: "ordinary: a completion of 10 KiB", bytes: post("", body.as_bytes()), requests: 1 }
}

/// Ordinary requests, as many as a connection may have at once, that wait for their answers.
pub(crate) fn waiting() -> Shape {
    let body = br#"{"messages":[],"max_tokens":9999}"#;
    let path: Headers<'_> =
        &[(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/v1/chat/completions"), (b":authority", b"a")];
    let head = block(path);
    let request =
        |n: u32| [frame(HEADERS, END_HEADERS, 2 * n + 1, &head), frame(DATA, END_STREAM, 2 * n + 1, body)].concat();
    let all: Vec<u8> = (0..MAX_STREAMS).flat_map(request).collect();
    Shape {
        name: "ordinary: 100 completions over HTTP/2, waiting for their answers",
        bytes: h2(&[&all]),
        requests: MAX_STREAMS,
    }
}

pub(crate) fn hostile() -> Vec<Shape> {
    let all = [http1_heads(), http1_bodies(), http2_heads(), http2_floods()];
    let requests = |name: &str| match name {
        BOMBS => BOMB_STREAMS + 1,
        BODIES => MAX_STREAMS,
        _ => 1,
    };
    all.into_iter().flatten().map(|(name, bytes)| Shape { name, bytes, requests: requests(name) }).collect()
}

type Headers<'a> = &'a [(&'a [u8], &'a [u8])];
type Named = (&'static str, Vec<u8>);

fn http1_heads() -> Vec<Named> {
    let head = |more: &str, unit: &str| {
        fill(format!("GET /health HTTP/1.1\r\nHost: a\r\n{more}").as_bytes(), unit.as_bytes(), b"\r\n\r\n")
    };
    let held = |more: &str, unit: &str| {
        fill(format!("GET /health HTTP/1.1\r\nHost: a\r\n{more}").as_bytes(), unit.as_bytes(), b"")
    };
    vec![
        ("a header without an end", held("X: ", "y")),
        ("headers without an end", held("", "a: b\r\n")),
        ("as many headers as fit", head("", "a: b\r\n")),
        ("as many headers of different names as fit", head("", "b1: c\r\nd2: e\r\nf3: g\r\nh4: i\r\n")),
        (
            "200 headers",
            [
                b"GET /health HTTP/1.1\r\nHost: a\r\n".to_vec(),
                format!("a: {}\r\n", "b".repeat(44)).repeat(200).into_bytes(),
                b"\r\n".to_vec(),
            ]
            .concat(),
        ),
        ("one long header", head("X: ", "y")),
        ("a session of 10 KiB", head("X-Session-Id: ", "s")),
        ("as many sessions as fit", head("", "X-Session-Id: s\r\n")),
        ("as many nominated headers as fit", head("Connection: ", "a,")),
        ("as many forwarded addresses as fit", head("X-Forwarded-For: ", "1.1.1.1,")),
        ("as many codings as fit", head("Transfer-Encoding: ", "chunked,")),
        ("a target of 10 KiB", fill(b"GET /", b"%2e%2e/", b" HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("a method of 10 KiB", fill(b"", b"G", b" / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("empty lines before a request", fill(b"", b"\r\n", b"")),
        ("random bytes", fill(b"", b"\x16\x03\x01\xff\x00\x80\x0d", b"")),
        ("pipelined requests", fill(b"", b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", b"")),
    ]
}

fn http1_bodies() -> Vec<Named> {
    let chunked = |unit: &[u8], end: &[u8]| fill(CHUNKED, unit, end);
    let promised = format!("POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 64 << 20);
    vec![
        ("chunks of one byte", chunked(b"1\r\nx\r\n", b"0\r\n\r\n")),
        ("chunks of one byte, without an end", chunked(b"1\r\nx\r\n", b"")),
        (
            "a chunk extension of 10 KiB",
            chunked(b"", b"").into_iter().chain(fill(b"1;", b"e", b"\r\nx\r\n0\r\n\r\n")).collect(),
        ),
        ("a chunk extension on each byte", chunked(b"1;eeeeeeee\r\nx\r\n", b"0\r\n\r\n")),
        ("a chunk size without an end", chunked(b"0", b"")),
        ("trailers", [CHUNKED, &fill(b"0\r\n", b"a: b\r\n", b"\r\n")].concat()),
        ("10 KiB of a body of 64 MiB", fill(promised.as_bytes(), b"x", b"")),
        (
            "10 KiB of a body that waits for 100 Continue",
            fill(format!("{}Expect: 100-continue\r\n\r\n", &promised[..promised.len() - 2]).as_bytes(), b"x", b""),
        ),
        ("JSON 10,000 deep", post("", &fill(b"{\"messages\":", b"[", b""))),
        ("JSON with as many members as fit", post("", &fill(b"{", b"\"a\":1,", b"\"a\":1}"))),
        ("JSON with as many messages as fit", post("", &fill(b"{\"messages\":[", b"{},", b"{}]}"))),
        ("no JSON", post("", &fill(b"", b"\"\\", b""))),
    ]
}

fn http2_heads() -> Vec<Named> {
    // Literals that are indexed (RFC 7541, 6.2.1): an entry of 4 KB, and then one byte for each time it is meant.
    let entry = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'b'; 4000]].concat();
    let bomb = [USUAL, &entry, &vec![0xbe; TEN_KIB - 4100]].concat();
    let resized = [&[0x20, 0x3f, 0xe1, 0x1f].repeat(TEN_KIB / 4 - 20), USUAL].concat();
    let huffman = [USUAL, &[0x00, 1, b'a', 0xff, 0xe1, 0x4e], &[0; 10_080]].concat();
    // `cookie` of the static table, with an empty value.
    let crumbs = [USUAL, &[0x0f, 0x11, 0].repeat(1_700)].concat();
    let long = block(&[(b"x", &[b'y'; 10_000][..])]);
    let headers = |block: &[u8]| frame(HEADERS, END_STREAM | END_HEADERS, 1, block);
    let pieces = USUAL.chunks(1).chain(std::iter::repeat_n(&[][..], 1_100));
    let continued: Vec<u8> = pieces.flat_map(|piece| frame(CONTINUATION, 0, 1, piece)).collect();
    vec![
        ("HTTP/2: 6,000 times a header of 4 KB (HPACK)", h2(&[&headers(&bomb)])),
        (BOMBS, h2(&[&headers(&[USUAL, &entry].concat()), &streams(3, BOMB_STREAMS, &[USUAL, &[0xbe; 14]].concat())])),
        ("HTTP/2: 5,000 changes of the table's size", h2(&[&headers(&resized)])),
        ("HTTP/2: a header in Huffman code", h2(&[&headers(&huffman)])),
        ("HTTP/2: 1,700 cookies", h2(&[&headers(&crumbs)])),
        ("HTTP/2: one long header", h2(&[&headers(&[USUAL, &long].concat())])),
        ("HTTP/2: continuations without an end", h2(&[&frame(HEADERS, END_STREAM, 1, b""), &continued])),
        ("HTTP/2: a head that never ends", h2(&[&frame(HEADERS, END_STREAM, 1, &[USUAL, &long].concat())])),
    ]
}

fn http2_floods() -> Vec<Named> {
    let post = block(&[
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/health"),
        (b":authority", b"a"),
        (b"content-length", b"1000"),
    ]);
    let open = frame(HEADERS, END_HEADERS, 1, &post);
    let flood = |before: &[u8], unit: &[u8]| fill(&h2(&[before]), unit, b"");
    let pair =
        |n: u32| [frame(HEADERS, END_STREAM | END_HEADERS, n, USUAL), frame(RST_STREAM, 0, n, &[0, 0, 0, 8])].concat();
    let pairs: Vec<u8> = (0..290).flat_map(|n| pair(2 * n + 1)).collect();
    let bodies: Vec<u8> = (0..100)
        .flat_map(|n| [frame(HEADERS, END_HEADERS, 2 * n + 1, &post), frame(DATA, 0, 2 * n + 1, b"x")].concat())
        .collect();
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff].repeat(1_600));
    let padded = frame(DATA, 8, 1, &[&[250][..], b"x", &[0; 250]].concat());
    vec![
        ("HTTP/2: requests as small as they get", h2(&[&gets(680)])),
        ("HTTP/2: requests that are reset at once", h2(&[&pairs])),
        (BODIES, h2(&[&bodies])),
        ("HTTP/2: pings", flood(b"", &frame(PING, 0, 0, &[0; 8]))),
        ("HTTP/2: empty settings", flood(b"", &frame(SETTINGS, 0, 0, b""))),
        ("HTTP/2: 1,600 settings", h2(&[&settings])),
        ("HTTP/2: window updates", flood(b"", &frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        ("HTTP/2: window updates of a stream", flood(&open, &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]))),
        ("HTTP/2: priorities", flood(b"", &frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]))),
        ("HTTP/2: empty data", flood(&open, &frame(DATA, 0, 1, b""))),
        ("HTTP/2: data of one byte", flood(&open, &frame(DATA, 0, 1, b"x"))),
        ("HTTP/2: padded data", flood(&open, &padded)),
        ("HTTP/2: frames of no known kind", flood(b"", &frame(0x7f, 0xff, 1, b""))),
        (
            "HTTP/2: resets of streams that never were",
            flood(&frame(HEADERS, 5, 1001, USUAL), &frame(RST_STREAM, 0, 3, &[0; 4])),
        ),
    ]
}

/// `unit` as often as ten KiB have room for, between a beginning and an end.
fn fill(before: &[u8], unit: &[u8], after: &[u8]) -> Vec<u8> {
    let room = TEN_KIB.saturating_sub(before.len() + after.len());
    [before, &unit.repeat(room.checked_div(unit.len()).unwrap_or(0)), after].concat()
}

fn post(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A connection that begins like this.
fn h2(frames: &[&[u8]]) -> Vec<u8> {
    [PREFACE, &frames.concat()].concat()
}

/// GET requests over one connection, one byte for each header.
fn gets(count: u32) -> Vec<u8> {
    streams(1, count, USUAL)
}

fn streams(first: u32, count: u32, block: &[u8]) -> Vec<u8> {
    (0..count).flat_map(|n| frame(HEADERS, END_STREAM | END_HEADERS, first + 2 * n, block)).collect()
}

const BOMBS: &str = "HTTP/2: the same, as often as the list may be long, on stream after stream";
const BOMB_STREAMS: u32 = 95;
const BODIES: &str = "HTTP/2: 100 bodies that never come";
/// The gateway's bound for a connection.
const MAX_STREAMS: u32 = 100;
pub(crate) const TEN_KIB: usize = 10 * 1024;
const CHUNKED: &[u8] = b"POST /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
/// GET, http and `/` of HPACK's static table; `:authority: x`.
const USUAL: &[u8] = &[0x82, 0x86, 0x84, 0x01, 1, b'x'];
