//! What comes after the end of an answer, and answers that end with their connection.

use crate::upstream::script::{Case, Step, answer, chunked, head};

/// A second answer.
const STRAY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nSTRAY";

/// More bytes in the same read, or on a connection that is kept.
pub(crate) fn more() -> Vec<Case> {
    let length = answer("Content-Length: 5", "hello");
    let chunks = chunked("5\r\nhello\r\n0\r\n\r\n");
    let mut cases = Vec::new();
    for (name, rest) in [
        ("an answer", STRAY),
        ("half an answer", "HTTP/1.1 200 OK\r\nContent-Le"),
        ("an interim response", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("junk", "junk"),
        ("an empty line", "\r\n"),
        ("NUL", "\0"),
        ("a last chunk", "0\r\n\r\n"),
        ("64 KB", &"x".repeat(64_000)),
    ] {
        for (kind, bytes) in [("length", &length), ("chunks", &chunks)] {
            cases.push(
                Case::whole(format!("{kind}, then {name}"), [bytes, rest.as_bytes()].concat(), "hello").dropped(),
            );
        }
        let late = [Step::AwaitEnd, Step::Send(rest.as_bytes().to_vec()), Step::Hang];
        cases.push(Case::whole(format!("between answers: {name}"), &length, "hello").then(late).dropped());
    }
    cases.extend([
        Case::whole("HEAD, then an answer", [&head("Content-Length: 5")[..], STRAY.as_bytes()].concat(), "")
            .method("HEAD")
            .dropped(),
        Case::whole("204, then an answer", format!("HTTP/1.1 204 x\r\n\r\n{STRAY}"), "").status(204).dropped(),
        Case::whole("304, then an answer", format!("HTTP/1.1 304 x\r\n\r\n{STRAY}"), "").status(304).dropped(),
        Case::whole("a close after the answer", &length, "hello").then([Step::Close]).dropped(),
        Case::whole("a reset after the answer", &length, "hello").then([Step::AwaitEnd, Step::Reset]).dropped(),
        // All of it fills the buffer that the gateway reads into, so the stray bytes come with another read.
        Case::whole("an answer as large as a read, then another", full_read(STRAY), "x".repeat(FULL)).dropped(),
    ]);
    cases
}

/// An answer of 64 KiB with its head, and what follows.
fn full_read(rest: &str) -> Vec<u8> {
    answer(format!("Content-Length: {FULL}"), "x".repeat(FULL) + rest)
}

/// The payload of an answer of 64 KiB.
const FULL: usize = (64 << 10) - "HTTP/1.1 200 OK\r\nContent-Length: 65490\r\n\r\n".len();

/// The end of the connection is the end of the answer.
pub(crate) fn until_close() -> Vec<Case> {
    let until = |name: &str, bytes: Vec<u8>, payload: &str| Case::whole(name, bytes, payload).dropped();
    let inner = "0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    vec![
        until("until close", answer("", "hello"), "hello").then([Step::Close]),
        until("until close, without a body", answer("", ""), "").then([Step::Close]),
        until("until close, with what ends chunks", answer("", inner), inner).then([Step::Close]),
        until("until close, keep-alive", answer("Connection: keep-alive", "hello"), "hello").then([Step::Close]),
        until("until close, in pieces", answer("", "he"), "hello").then([
            Step::Await(2),
            Step::Send(b"ll".to_vec()),
            Step::Await(4),
            Step::Send(b"o".to_vec()),
            Step::Close,
        ]),
        until("until close, byte by byte", answer("", ""), "hello").then([Step::Drip(b"hello".to_vec()), Step::Close]),
        Case::broken("until a reset", answer("", "hello"), "hello").then([Step::Await(5), Step::Reset]),
        Case::broken("until silence", answer("", "hello"), "hello").then([Step::Await(5), Step::Hang]),
    ]
}
