//! Heads that are large, endless, or slow.

use crate::reader::{MAX_FIELDS, MAX_HEAD};
use crate::upstream::script::{Case, Step, answer};

pub(crate) fn sizes() -> Vec<Case> {
    let fields = |count: usize| "X: y\r\n".repeat(count - 1);
    let of = |length: usize| {
        let filler = length - answer("Content-Length: 5\r\nX: ", "").len();
        answer(format!("Content-Length: 5\r\nX: {}", "x".repeat(filler)), "hello")
    };
    let many = |count: usize| answer(format!("{}Content-Length: 5", fields(count)), "hello");
    let nominated = |names: usize| {
        answer(format!("Content-Length: 5\r\nConnection: keep-alive, {}", vec!["x"; names].join(",")), "hello")
    };
    let drip = answer("Content-Length: 5\r\nX: y", "hello");
    let endless = |field: String| Case::refused("", "HTTP/1.1 200 OK\r\n").then([Step::Flood(field.into_bytes())]);
    let named = |name: &str, case: Case| Case { name: name.to_owned(), ..case };
    vec![
        // The client has the same bounds, and the gateway adds a few fields.
        Case::whole("a head of almost 64 KiB", of(MAX_HEAD - 512), "hello"),
        Case::refused("a head of 64 KiB and a byte", of(MAX_HEAD + 1)),
        Case::refused("a head of 200 KB", of(200_000)),
        Case::whole("250 fields", many(MAX_FIELDS - 6), "hello"),
        Case::refused("257 fields", many(MAX_FIELDS + 1)),
        Case::refused("10,000 fields", many(10_000)),
        Case::whole("16 names in Connection", nominated(16), "hello"),
        Case::refused("17 names in Connection", nominated(17)),
        Case::refused("30,000 names in Connection", nominated(30_000)),
        Case::refused("100 KB of empty lines", "\r\n".repeat(50_000)),
        named("a field without end", endless("x".repeat(1000))),
        named("fields without end", endless("X: y\r\n".to_owned())),
        Case::refused("a status line without end", "HTTP/1.1 200 ").then([Step::Flood(vec![b'x'; 1000])]),
        Case::whole("a head byte by byte", "", "hello").steps([Step::Drip(drip)]),
        Case::refused("a head byte by byte without end", "HTTP/1.1 200 OK\r\n")
            .then([Step::Drip(b"X: y\r\n".repeat(1000)), Step::Hang])
            .status(504),
    ]
}
