//! Chunked bodies.

use crate::cases::Expect::{Closed, Refused, Served};
use crate::cases::{Case, case, cut, post};

/// Sizes, line ends and extensions.
pub(crate) fn chunks() -> Vec<Case> {
    let body = |bytes: &str| post("Transfer-Encoding: chunked", bytes);
    let good = Served(&["POST /case abcde"]);
    let bad = Refused(400);
    vec![
        case("chunk size empty", body("\r\nabcde\r\n0\r\n\r\n"), bad),
        case("a good chunk", body("5\r\nabcde\r\n0\r\n\r\n"), good),
        case("chunk size zz", body("zz\r\nabcde\r\n0\r\n\r\n"), bad),
        case("chunk size -5", body("-5\r\nabcde\r\n0\r\n\r\n"), bad),
        case("chunk size +5", body("+5\r\nabcde\r\n0\r\n\r\n"), bad),
        case("chunk size 0x5", body("0x5\r\nabcde\r\n0\r\n\r\n"), bad),
        case("chunk size 5_", body("5_\r\nabcde\r\n0\r\n\r\n"), bad),
        case("chunk size after a space", body(" 5\r\nabcde\r\n0\r\n\r\n"), bad),
        case("chunk size before a space", body("5 \r\nabcde\r\n0\r\n\r\n"), bad),
        case("chunk size with zeros", body("0000000000005\r\nabcde\r\n0\r\n\r\n"), good),
        case("chunk size with 100 zeros", body(&format!("{}5\r\nabcde\r\n0\r\n\r\n", "0".repeat(100))), bad),
        case("chunk size of 64 bits", body("ffffffffffffffff\r\nabcde\r\n0\r\n\r\n"), bad),
        case("chunk size beyond 64 bits", body("10000000000000005\r\nabcde\r\n0\r\n\r\n"), bad),
        case("chunk size of 63 bits", body("7fffffffffffffff\r\nabcde\r\n0\r\n\r\n"), bad),
        cut("chunk size beyond 32 bits", body("100000005\r\nabcde\r\n0\r\n\r\n"), Closed),
        case("a chunk extension", body("5;a=b\r\nabcde\r\n0;c\r\n\r\n"), good),
        case("a quoted chunk extension", body("5;a=\"b;c\"\r\nabcde\r\n0\r\n\r\n"), good),
        case("a chunk extension without a name", body("5;\r\nabcde\r\n0\r\n\r\n"), bad),
        case("a chunk extension after a space", body("5; a\r\nabcde\r\n0\r\n\r\n"), bad),
        case("a chunk extension with LF", body("5;a\nabcde\r\n0\r\n\r\n"), bad),
        case("a chunk extension with CR", body("5;a\rb\r\nabcde\r\n0\r\n\r\n"), bad),
        case("a chunk extension of 100 KB", body(&format!("5;{}\r\nabcde\r\n0\r\n\r\n", "a".repeat(100_000))), bad),
        case("a chunk size that ends with LF", body("5\nabcde\r\n0\r\n\r\n"), bad),
        case("a chunk size that ends with CR", body("5\rabcde\r\n0\r\n\r\n"), bad),
        case("no CR LF after a chunk", body("5\r\nabcde0\r\n\r\n"), bad),
        case("LF after a chunk", body("5\r\nabcde\n0\r\n\r\n"), bad),
        case("a chunk longer than its size", body("3\r\nabcde\r\n0\r\n\r\n"), bad),
        cut("a chunk shorter than its size", body("9\r\nabcde\r\n0\r\n\r\n"), bad),
        cut("the end in a chunk", body("5\r\nab"), Closed),
        cut("the end in a size", body("5"), Closed),
        cut("the end before the last chunk", body("5\r\nabcde\r\n"), Closed),
        cut("the end in the last chunk", body("5\r\nabcde\r\n0\r\n"), Closed),
        cut("no body at all", body(""), Closed),
        case("the last chunk with LF", body("5\r\nabcde\r\n0\n\n"), bad),
        case("1,000 chunks of one byte", body(&format!("{}0\r\n\r\n", "1\r\na\r\n".repeat(1000))), Served(&[THOUSAND])),
        case(
            "more than max_body in chunks",
            body(&format!("{}0\r\n\r\n", format!("10000\r\n{}\r\n", "a".repeat(0x10000)).repeat(17))),
            Refused(413),
        ),
    ]
}

/// What follows the last chunk. Trailers are dropped unread: nobody upstream asked for them.
pub(crate) fn trailers() -> Vec<Case> {
    let trailer = |lines: &str| post("Transfer-Encoding: chunked", format!("5\r\nabcde\r\n0\r\n{lines}\r\n\r\n"));
    let good = Served(&["POST /case abcde"]);
    vec![
        case("a trailer", trailer("X-Sum: 1"), good),
        case("a trailer that names the framing", trailer("Content-Length: 9\r\nTransfer-Encoding: identity"), good),
        case("a trailer that names a session", trailer("X-Session-Id: other"), good),
        case("a trailer that is a request", trailer("GET /smuggled HTTP/1.1\r\nHost: a"), Refused(400)),
        case("a trailer with NUL", trailer("X: \0"), Refused(400)),
        case("a trailer of 100 KB", trailer(&format!("X: {}", "a".repeat(100_000))), Refused(400)),
        case("2,000 trailers", trailer(&vec!["X: y"; 2000].join("\r\n")), Refused(400)),
        cut("a trailer that does not end", post("Transfer-Encoding: chunked", "5\r\nabcde\r\n0\r\nX: y\r\n"), Closed),
    ]
}

/// A POST with a thousand times `a`.
const THOUSAND: &str = "POST /case \
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
