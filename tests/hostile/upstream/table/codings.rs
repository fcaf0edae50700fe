//! `Transfer-Encoding`, and both framings at once.

use crate::upstream::script::{Case, Step, answer};

const BODY: &str = "5\r\nhello\r\n0\r\n\r\n";

pub(crate) fn codings() -> Vec<Case> {
    let of = |value: &str| answer(format!("Transfer-Encoding: {value}"), BODY);
    let bad = |value: &str| Case::refused(format!("a coding of {value:?}"), of(value));
    let mut cases: Vec<Case> = [
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "chunked,",
        ", chunked",
        "identity",
        "gzip",
        "",
        "xchunked",
        "chunkedx",
        "chunked;q=1",
        "\"chunked\"",
        "chunked\u{a0}",
        "\u{212a}chunked",
        "cow, chunked",
        "identity, chunked",
    ]
    .into_iter()
    .map(bad)
    .collect();
    let two = |one: &str, other: &str| answer(format!("{one}\r\n{other}"), BODY);
    let chunked = "Transfer-Encoding: chunked";
    cases.extend([
        Case::whole("chunked", of("chunked"), "hello"),
        Case::whole("chunked in capitals", of("CHUNKED"), "hello"),
        Case::whole("chunked between tabs", of("\tchunked\t"), "hello"),
        Case::whole("a nominated coding", two("Connection: Transfer-Encoding", chunked), "hello"),
        Case::refused("chunked twice", two(chunked, chunked)),
        Case::refused("chunked and identity", two(chunked, "Transfer-Encoding: identity")),
        Case::refused("identity and chunked", two("Transfer-Encoding: identity", chunked)),
        Case::refused("a coding, then a length", two(chunked, "Content-Length: 5")),
        Case::refused("a length, then a coding", two("Content-Length: 5", chunked)),
        Case::refused("a length of 0 and a coding", two("Content-Length: 0", chunked)),
        Case::refused("a bad length and a coding", two("Content-Length: x", chunked)),
        Case::refused("a length and a bad coding", two("Content-Length: 15", "Transfer-Encoding: x")),
        Case::refused("a coding and 100 lengths", two(chunked, &vec!["Content-Length: 5"; 100].join("\r\n"))),
        Case::refused("HTTP/1.0 in chunks", format!("HTTP/1.0 200 OK\r\n{chunked}\r\n\r\n{BODY}")),
        Case::whole("another field of a similar name", answer("X-Transfer-Encoding: chunked", BODY), BODY)
            .then([Step::Close])
            .dropped(),
        Case::whole("an underscore is another field", answer("Transfer_Encoding: chunked", BODY), BODY)
            .then([Step::Close])
            .dropped(),
    ]);
    cases
}
