//! Heads that are too large.

use crate::cases::Expect::{Refused, Served};
use crate::cases::{Case, case, get};

pub(crate) fn sizes() -> Vec<Case> {
    let many = |count: usize, value: usize| {
        let value = "v".repeat(value);
        get((0..count).map(|i| format!("X-{i}: {value}")).collect::<Vec<_>>().join("\r\n"))
    };
    let path = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "p".repeat(length));
    vec![
        case("a header of 60 KB", many(1, 60_000), Served(&["GET /case"])),
        case("a header of 70 KB", many(1, 70_000), Refused(431)),
        case("a header of 900 KB", many(1, 900_000), Refused(431)),
        case("a header of 2 MB", many(1, 2_000_000), Refused(431)),
        case("100 headers of 1 KB", many(100, 1000), Refused(431)),
        case("250 small headers", many(250, 1), Served(&["GET /case"])),
        case("300 small headers", many(300, 1), Refused(400)),
        case("10,000 headers", many(10_000, 1), Refused(400)),
        case("10 MB of headers", many(10_000, 1000), Refused(431)),
        case("10 MB that are no header", "a".repeat(10_000_000), Refused(431)),
        case("10 MB of empty lines", "\r\n".repeat(5_000_000), Refused(431)),
        case("a header name of 100 KB", get(format!("{}: x", "n".repeat(100_000))), Refused(400)),
        case("a path of 100 KB", path(100_000), Refused(400)),
        case("a path of 2 MB", path(2_000_000), Refused(431)),
        case("a method of 100 KB", format!("{} /case HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(100_000)), Refused(431)),
        case("the same header 200 times", get(vec!["X: y"; 200].join("\r\n")), Served(&["GET /case"])),
    ]
}
