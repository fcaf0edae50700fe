//! Hostile clients that speak HTTP/2.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::client::PATIENCE;
use crate::frames::Outcome::{Closed, Reset, Status};
use crate::frames::{self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Outcome, PING, PREFACE};
use crate::frames::{PRIORITY, REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE};
use crate::frames::{block, frame};
use crate::world::World;

type Headers<'a> = &'a [(&'a [u8], &'a [u8])];

/// A request head on stream 1 with these headers after the usual ones.
fn get(headers: Headers<'_>) -> Vec<u8> {
    raw(&[USUAL, headers].concat())
}

/// A request head on stream 1 with these headers only.
fn raw(headers: Headers<'_>) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(headers))
}

/// A POST on stream 1 with a body.
fn post(headers: Headers<'_>, body: &[u8]) -> Vec<u8> {
    let usual: Headers<'_> =
        &[(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/case"), (b":authority", b"a")];
    [frame(HEADERS, END_HEADERS, 1, &block(&[usual, headers].concat())), frame(DATA, END_STREAM, 1, body)].concat()
}

/// The usual head with another value for one pseudo-header; without it if there is none.
fn pseudo(name: &[u8], value: Option<&[u8]>) -> Vec<u8> {
    let kept = USUAL.iter().copied().filter(|(usual, _)| *usual != name);
    raw(&kept.chain(value.map(|value| (name, value))).collect::<Vec<_>>())
}

type Case = (&'static str, Vec<u8>, Outcome, &'static [&'static str]);

const GOT: &[&str] = &["GET /case"];

fn heads() -> Vec<Case> {
    vec![
        ("an ordinary request", get(&[]), Status(200), GOT),
        ("Connection", get(&[(b"connection", b"close")]), Reset, &[]),
        ("Transfer-Encoding", get(&[(b"transfer-encoding", b"chunked")]), Reset, &[]),
        ("Upgrade", get(&[(b"upgrade", b"websocket")]), Reset, &[]),
        ("Keep-Alive", get(&[(b"keep-alive", b"1")]), Reset, &[]),
        ("Proxy-Connection", get(&[(b"proxy-connection", b"close")]), Reset, &[]),
        ("TE: gzip", get(&[(b"te", b"gzip")]), Reset, &[]),
        ("TE: trailers", get(&[(b"te", b"trailers")]), Status(200), GOT),
        ("a name in capitals", get(&[(b"X-Y", b"z")]), Closed, &[]),
        ("a name with CR LF", get(&[(b"x\r\ny", b"z")]), Closed, &[]),
        ("a name with a colon", get(&[(b"x:y", b"z")]), Closed, &[]),
        ("an empty name", get(&[(b"", b"z")]), Closed, &[]),
        ("CR LF in a value", get(&[(b"x", b"y\r\nhost: b")]), Closed, &[]),
        ("LF in a value", get(&[(b"x", b"y\nz")]), Closed, &[]),
        ("NUL in a value", get(&[(b"x", b"y\0z")]), Closed, &[]),
        ("a value beyond ASCII", get(&[(b"x", b"\xff")]), Status(200), GOT),
        ("a session beyond ASCII", get(&[(b"x-session-id", b"\xff")]), Status(200), GOT),
        ("a session of 10 KB", get(&[(b"x-session-id", &[b's'; 10_240])]), Status(200), GOT),
        ("a pseudo-header after a header", raw(&[&[(&b"x"[..], &b"y"[..])], USUAL].concat()), Reset, &[]),
        ("a pseudo-header twice", get(&[(b":path", b"/smuggled")]), Reset, &[]),
        ("an unknown pseudo-header", get(&[(b":x", b"y")]), Closed, &[]),
        (":status in a request", get(&[(b":status", b"200")]), Reset, &[]),
    ]
}

fn targets() -> Vec<Case> {
    vec![
        ("no :path", pseudo(b":path", None), Reset, &[]),
        ("an empty :path", pseudo(b":path", Some(b"")), Reset, &[]),
        (":path without a slash", pseudo(b":path", Some(b"case")), Reset, &[]),
        (":path with a URL", pseudo(b":path", Some(b"http://b/case")), Reset, &[]),
        (":path * for GET", pseudo(b":path", Some(b"*")), Status(400), &[]),
        (":path with a request", pseudo(b":path", Some(b"/case HTTP/1.1\r\nHost: a\r\n\r\nGET /smuggled")), Reset, &[]),
        (":path with a space", pseudo(b":path", Some(b"/case x")), Reset, &[]),
        (":path with NUL", pseudo(b":path", Some(b"/case\0")), Reset, &[]),
        (":method with a space", pseudo(b":method", Some(b"GET /smuggled")), Closed, &[]),
        (":method empty", pseudo(b":method", Some(b"")), Closed, &[]),
        (":method CONNECT", pseudo(b":method", Some(b"CONNECT")), Reset, &[]),
        ("CONNECT as it should be", raw(&[(b":method", b"CONNECT"), (b":authority", b"a:80")]), Status(405), &[]),
        (":scheme ftp", pseudo(b":scheme", Some(b"ftp")), Status(200), GOT),
        (":scheme with a request", pseudo(b":scheme", Some(b"http://b/smuggled?")), Reset, &[]),
        ("no :scheme", pseudo(b":scheme", None), Reset, &[]),
        (":authority with userinfo", pseudo(b":authority", Some(b"u@a")), Status(400), &[]),
        (":authority with a path", pseudo(b":authority", Some(b"a/b")), Reset, &[]),
        (":authority with CR LF", pseudo(b":authority", Some(b"a\r\nx: y")), Reset, &[]),
        ("no :authority", pseudo(b":authority", None), Status(400), &[]),
        ("Host as well, the same", get(&[(b"host", b"a")]), Status(200), GOT),
        ("Host as well, different", get(&[(b"host", b"b")]), Status(400), &[]),
        ("Host twice", get(&[(b"host", b"a"), (b"host", b"a")]), Status(400), &[]),
    ]
}

fn bodies() -> Vec<Case> {
    vec![
        ("a body", post(&[(b"content-length", b"5")], b"abcde"), Status(200), &["POST /case abcde"]),
        ("a body without a length", post(&[], b"abcde"), Status(200), &["POST /case abcde"]),
        (
            "a body that is a request",
            post(&[], b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n"),
            Status(200),
            &["POST /case 0\r\n\r\nGET /smuggled HTTP/1.1"],
        ),
        ("a length over the body", post(&[(b"content-length", b"6")], b"abcde"), Reset, &[]),
        ("a length under the body", post(&[(b"content-length", b"4")], b"abcde"), Reset, &[]),
        ("a length without a body", get(&[(b"content-length", b"4")]), Reset, &[]),
        (
            "a length of 0 and a body",
            post(&[(b"content-length", b"0")], b"GET /smuggled HTTP/1.1\r\n\r\n"),
            Reset,
            &["POST /case"],
        ),
        ("two lengths", post(&[(b"content-length", b"5"), (b"content-length", b"2")], b"abcde"), Reset, &[]),
        ("a list of lengths", post(&[(b"content-length", b"5, 5")], b"abcde"), Reset, &[]),
        ("a length with a plus", post(&[(b"content-length", b"+5")], b"abcde"), Reset, &[]),
        ("a negative length", post(&[(b"content-length", b"-5")], b"abcde"), Reset, &[]),
        ("a length beyond 64 bits", post(&[(b"content-length", b"99999999999999999999")], b"abcde"), Reset, &[]),
        ("a length over max_body", post(&[(b"content-length", b"1048577")], b"abcde"), Reset, &[]),
    ]
}

fn connections() -> Vec<Case> {
    let large = block(&[USUAL, &[(b"x", &[b'y'; 100_000][..])]].concat());
    let mut pieces = large.chunks(16_000);
    let mut huge = frame(HEADERS, END_STREAM, 1, pieces.next().unwrap());
    huge.extend(pieces.by_ref().flat_map(|piece| frame(CONTINUATION, 0, 1, piece)));
    huge.extend(frame(CONTINUATION, END_HEADERS, 1, b""));
    let endless =
        [frame(HEADERS, END_STREAM, 1, &block(USUAL)), frame(CONTINUATION, 0, 1, b"").repeat(100_000)].concat();
    vec![
        ("garbage after the preface", b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Closed, &[]),
        ("a frame of 16 MB", [&b"\xff\xff\xff\x01\x05\0\0\0\x01"[..], &[0; 100_000]].concat(), Closed, &[]),
        ("a head on stream 0", frame(HEADERS, 5, 0, &block(USUAL)), Closed, &[]),
        ("a head on an even stream", frame(HEADERS, 5, 2, &block(USUAL)), Closed, &[]),
        ("a body before its head", frame(DATA, 0, 1, b"x"), Closed, &[]),
        ("settings of a wrong size", frame(4, 0, 0, b"x"), Closed, &[]),
        ("a header block that is none", frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"), Closed, &[]),
        ("a header block with a dangling index", frame(HEADERS, 5, 1, b"\xfe"), Closed, &[]),
        (
            "another frame between continuations",
            [frame(HEADERS, 1, 1, &block(USUAL)), frame(PING, 0, 0, &[0; 8])].concat(),
            Closed,
            &[],
        ),
        ("a window update of 0", frame(8, 0, 0, &[0; 4]), Closed, &[]),
        ("a header list of 100 KB", huge, Closed, &[]),
        ("100,000 continuations", endless, Closed, &[]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_frames_reach_no_backend() {
    let world = World::start("2s").await;
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (name, frames, expected, requests) in [heads(), targets(), bodies(), connections()].into_iter().flatten() {
        let outcome = frames::send(world.address, &frames).await;
        let reached = world.aftermath().await;
        println!("h2: {name:<54} {outcome:?} {reached:?}");
        // A stream may be reset before its head has gone on, or after.
        let right = |reached: &[String]| reached == requests || (expected == Reset && reached.is_empty());
        if outcome != expected || !reached.as_ref().is_ok_and(|(reached, cut)| right(reached) && !cut) {
            wrong.push(format!("{name}: expected {expected:?} {requests:?}, but it was {outcome:?} {reached:?}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count} cases went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// CVE-2023-44487: streams that are reset as fast as they are opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rapid_reset_leaves_nothing_behind() {
    let world = World::start("2s").await;
    let head = block(USUAL);
    let storm = |stream: u32| [frame(HEADERS, 5, stream, &head), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat();
    let frames: Vec<u8> = (0..1000).flat_map(|n| storm(2 * n + 1)).collect();
    let outcome = frames::send(world.address, &frames).await;
    let (reached, _) = world.aftermath().await.unwrap();
    println!("1,000 resets: {outcome:?}, {} requests reached the backend", reached.len());
    assert!(reached.iter().all(|request| request == GOT[0]));
}

/// A stream is refused, not the connection: a client may open it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_streams_than_allowed_are_refused_one_by_one() {
    let world = World::start("2s").await;
    let head = block(&[USUAL, &[(b"content-length", b"10")]].concat());
    // Heads whose bodies never come: each stays open.
    let frames: Vec<u8> = (0..101).flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &head)).collect();
    assert_eq!(frames::reset_of(world.address, &frames, 201).await, Some(REFUSED_STREAM));
    assert_eq!(world.aftermath().await.unwrap(), (vec![], false));
}

/// What the protocol allows, much too often: nothing is queued without a bound, and others are served meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_hold_nobody_else_up() {
    let world = World::start("2s").await;
    let open = frame(HEADERS, END_HEADERS, 1, &block(&[USUAL, &[(b"content-length", b"10")]].concat()));
    for (name, before, flood) in [
        ("pings", vec![], frame(PING, 0, 0, &[0; 8])),
        ("settings", vec![], frame(SETTINGS, 0, 0, &[])),
        ("empty data", open, frame(DATA, 0, 1, b"")),
        ("priorities", vec![], frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        ("window updates", vec![], frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
    ] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(&[PREFACE, &before].concat()).await.unwrap();
        // Nothing that comes back is read: who queues answers for this client would do so for ever.
        let many = flood.repeat(10_000);
        let mut sent = 0;
        while sent < 100 && matches!(timeout(Duration::from_millis(200), stream.write_all(&many)).await, Ok(Ok(()))) {
            sent += 1;
            crate::client::control(world.address, crate::world::CONTROL).await.unwrap();
        }
        println!("h2: a flood of {name:<42} {sent} x 10,000 frames taken");
        drop(stream);
        world.aftermath().await.unwrap();
    }
}

/// A connection that has no request is closed, whatever it does to look busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_closed() {
    let world = World::start("300ms").await;
    let half = frame(HEADERS, END_STREAM, 1, &block(USUAL));
    let slow = frame(HEADERS, END_HEADERS, 1, &block(&[USUAL, &[(b"content-length", b"1000")]].concat()));
    for (name, at_once, dripped) in [
        ("silent", vec![], vec![]),
        ("a head without an end", half.clone(), vec![]),
        ("a head in empty continuations", half, frame(CONTINUATION, 0, 1, b"")),
        ("pings", vec![], frame(PING, 0, 0, &[0; 8])),
        ("a body byte by byte", slow, frame(DATA, 0, 1, b"b")),
    ] {
        let (mut from, mut into) = TcpStream::connect(world.address).await.unwrap().into_split();
        into.write_all(&[PREFACE, &at_once].concat()).await.unwrap();
        let write = async {
            while !dripped.is_empty() && into.write_all(&dripped).await.is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut seen = Vec::new();
        let closed = tokio::select! {
            () = write => unreachable!("writing is pending for ever"),
            read = timeout(PATIENCE / 4, from.read_to_end(&mut seen)) => read.is_ok(),
        };
        println!("h2: {name:<54} {}", if closed { "closed" } else { "open" });
        assert!(closed, "{name}: still open");
        drop((from, into));
        assert_eq!(world.aftermath().await.unwrap(), (vec![], false), "{name}");
    }
}

const USUAL: Headers<'static> =
    &[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/case"), (b":authority", b"a")];
