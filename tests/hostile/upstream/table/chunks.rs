//! Chunked bodies that are malformed, at once and later, and trailers.

use crate::upstream::script::{Case, Fate, Must, Step, chunked};

/// In the first read nothing has reached the client; later its answer breaks off.
fn bad(name: &str, bytes: &str) -> [Case; 2] {
    let at_once = Case::refused(format!("at once: {name}"), chunked(bytes));
    let later = Case::broken(format!("later: {name}"), chunked("3\r\nabc\r\n"), "abchello");
    [at_once, later.then([Step::Await(3), Step::Send(bytes.as_bytes().to_vec())])]
}

/// The client gets what came before, and sees that the rest is missing.
fn cut(name: &str, bytes: &str) -> Case {
    let steps = [Step::Await(3), Step::Send(bytes.as_bytes().to_vec()), Step::Close];
    Case::broken(name, chunked("3\r\nabc\r\n"), "abchello").then(steps)
}

pub(crate) fn chunks() -> Vec<Case> {
    let good = |name: &str, bytes: &str| Case::whole(name, chunked(bytes), "hello");
    let zeros = |count: usize| format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(count));
    let extension = |length: usize| format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(length));
    let mut cases = vec![
        good("one chunk", "5\r\nhello\r\n0\r\n\r\n"),
        good("five chunks", "1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n"),
        good("a size of 15 digits", &zeros(14)),
        good("extensions", "5;a;b=c;d=\"e;\\\"f\"\r\nhello\r\n0;g\r\n\r\n"),
        good("an extension of 4 KiB", &extension(4096)),
        good("a last chunk of many zeros", "5\r\nhello\r\n000\r\n\r\n"),
        Case::whole("chunks byte by byte", chunked(""), "hello")
            .then([Step::Drip(b"5;a\r\nhello\r\n0\r\n\r\n".to_vec())]),
        Case::whole("a size like a letter", chunked(format!("A\r\n{}\r\n0\r\n\r\n", "x".repeat(10))), "x".repeat(10)),
    ];
    for (name, bytes) in [
        ("a size of 16 digits", &*zeros(15)),
        ("a size of 100 digits", &zeros(99)),
        ("an extension over 4 KiB", &extension(4097)),
        ("an extension of 100 KB", &extension(100_000)),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("a size that is none", "zz\r\nhello\r\n0\r\n\r\n"),
        ("a size with a plus", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a size with a minus", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a size after a space", " 5\r\nhello\r\n0\r\n\r\n"),
        ("a size before a space", "5 \r\nhello\r\n0\r\n\r\n"),
        ("a size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
        ("a size with NUL", "5\0\r\nhello\r\n0\r\n\r\n"),
        ("a size of 64 bits", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("a size beyond 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("a size that ends with LF", "5\nhello\r\n0\r\n\r\n"),
        ("a size that ends with CR", "5\rhello\r\n0\r\n\r\n"),
        ("an extension without a name", "5;\r\nhello\r\n0\r\n\r\n"),
        ("an extension after a space", "5; a\r\nhello\r\n0\r\n\r\n"),
        ("an extension with LF", "5;a\nhello\r\n0\r\n\r\n"),
        ("an extension with CR", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("an extension with NUL", "5;a\0\r\nhello\r\n0\r\n\r\n"),
        ("a quoted extension with CR LF", "5;a=\"\r\nhello\r\n0\r\n\r\n"),
        ("a chunk without CR LF", "5\r\nhello0\r\n\r\n"),
        ("a chunk with LF", "5\r\nhello\n0\r\n\r\n"),
        ("a chunk longer than its size", "4\r\nhello\r\n0\r\n\r\n"),
        ("a chunk shorter than its size", "6\r\nhello\r\n0\r\n\r\n"),
        ("a last chunk with LF", "5\r\nhello\r\n0\n\n"),
        ("LF after the last chunk", "5\r\nhello\r\n0\r\n\n"),
        ("CR after the last chunk", "5\r\nhello\r\n0\r\n\rX"),
        ("an answer in place of a chunk", "5\r\nhello\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nSTRAY"),
    ] {
        cases.extend(bad(name, bytes));
    }
    cases.extend([
        cut("the end before the last chunk", "5\r\nhello\r\n"),
        cut("the end in a chunk", "5\r\nhel"),
        cut("the end in a size", "5"),
        cut("the end in the last chunk", "5\r\nhello\r\n0\r\n"),
        cut("the end in a trailer", "5\r\nhello\r\n0\r\nX: y\r\n"),
        cut("the end in a chunk of 2^60 bytes", "fffffffffffffff\r\nhello"),
    ]);
    cases
}

/// What follows the last chunk.
pub(crate) fn trailers() -> Vec<Case> {
    let with = |lines: &str| chunked(format!("5\r\nhello\r\n0\r\n{lines}\r\n\r\n"));
    let good = |name: &str, lines: &str| Case::whole(name, with(lines), "hello");
    let filler = |length: usize| format!("X: {}", "x".repeat(length - "X: \r\n\r\n".len()));
    let mut cases = vec![
        good("a trailer", "X-Sum: 1").trailers(&[("X-Sum", "1")]),
        good("two trailers of one name", "X: 1\r\nX:2").trailers(&[("X", "1"), ("X", "2")]),
        good("an empty trailer", "X:").trailers(&[("X", "")]),
        good("trailers that frame", "Content-Length: 9\r\nTransfer-Encoding: identity\r\nTrailer: X"),
        good("trailers of the connection", "Connection: close\r\nKeep-Alive: x\r\nUpgrade: x\r\nTE: x"),
        good("trailers that route and describe", "Host: a\r\nContent-Type: x\r\nContent-Encoding: gzip"),
        good("a good one among bad ones", "Content-Length: 9\r\nX: 1\r\nTE: x").trailers(&[("X", "1")]),
        good("trailers of 8 KiB", &filler(8192)).trailers(&[("X", &"x".repeat(8192 - "X: \r\n\r\n".len()))]),
        good("32 trailers", &vec!["X: y"; 32].join("\r\n")).trailers(&[("X", "y"); 32]),
        Case::whole("trailers byte by byte", chunked("5\r\nhello\r\n"), "hello")
            .then([Step::Await(5), Step::Drip(b"0\r\nX: 1\r\nTE: x\r\n\r\n".to_vec())])
            .trailers(&[("X", "1")]),
        Case { fate: Fate::Dropped, ..good("an answer behind trailers", "X: 1\r\n\r\nHTTP/1.1 200 OK\r\nX: STRAY") }
            .trailers(&[("X", "1")]),
    ];
    for (name, lines) in [
        ("trailers over 8 KiB", &*filler(8193)),
        ("a trailer of 100 KB", &filler(100_000)),
        ("33 trailers", &vec!["X: y"; 33].join("\r\n")),
        ("a trailer that is an answer", "HTTP/1.1 200 OK\r\nContent-Length: 5"),
        ("a trailer with LF", "X: y\nX: z"),
        ("a trailer with CR", "X: y\rX: z"),
        ("a trailer with NUL", "X: \0"),
        ("a trailer with a space before its colon", "X : y"),
        ("a trailer without a colon", "X"),
        ("a trailer without a name", ": y"),
        ("a folded trailer", "X: y\r\n z"),
        ("a trailer after a space", " X: y"),
    ] {
        let body = format!("5\r\nhello\r\n0\r\n{lines}\r\n\r\n");
        cases.extend(bad(name, &body).map(|case| match case.must {
            // All of the payload comes before the trailer section.
            Must::Broken(status, _) => Case { must: Must::Broken(status, b"abchello".to_vec()), ..case },
            _ => case,
        }));
    }
    cases
}
