//! `Content-Length`, and answers that have no body.

use crate::upstream::script::{Case, Step, answer, head};

pub(crate) fn lengths() -> Vec<Case> {
    let of = |value: &str| answer(format!("Content-Length: {value}"), "hello");
    let bad = |value: &str| Case::refused(format!("a length of {value:?}"), of(value));
    let mut cases: Vec<Case> = [
        "+5",
        "-5",
        "0x5",
        "5.0",
        "5e0",
        "5,",
        "5, 5",
        "5, 6",
        "5 5",
        "5;",
        "",
        "five",
        "\u{665}",
        "\"5\"",
        "5\u{a0}",
        "0000000000000000005",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551621",
        "99999999999999999999",
    ]
    .into_iter()
    .map(bad)
    .collect();
    let two = |one: &str, other: &str| answer(format!("{one}\r\n{other}"), "hello");
    cases.extend([
        Case::refused("the same length twice", two("Content-Length: 5", "Content-Length: 5")),
        Case::refused("two lengths", two("Content-Length: 0", "Content-Length: 5")),
        Case::refused("two lengths, one in capitals", two("CONTENT-LENGTH: 5", "content-length: 6")),
        Case::refused("two lengths, one empty", two("Content-Length:", "Content-Length: 5")),
        Case::whole("a length with zeros", of("005"), "hello"),
        Case::whole("a length without a space", answer("Content-Length:5", "hello"), "hello"),
        Case::whole("a length between tabs", of("\t5\t"), "hello"),
        Case::whole("a nominated length", two("Connection: Content-Length", "Content-Length: 5"), "hello"),
        Case::whole("an underscore is another field", answer("Content_Length: 2", "hello"), "hello")
            .then([Step::Close])
            .dropped(),
        Case::broken("a length over the body", of("6"), "hello").then([Step::Close]),
        Case::broken("a length over the body, and a reset", of("6"), "hello").then([Step::Await(5), Step::Reset]),
        Case::broken("a length over the body, and silence", of("6"), "hello").then([Step::Hang]),
        Case::broken("a length of 18 digits", of("999999999999999999"), "hello").then([Step::Await(5), Step::Close]),
        Case::whole("a length under the body", of("2"), "he").dropped(),
        Case::whole("a length of 0 and a body", of("0"), "").dropped(),
    ]);
    cases
}

/// What has no body, whatever its fields are.
pub(crate) fn empty() -> Vec<Case> {
    let line = |status: u16, fields: &str, rest: &str| format!("HTTP/1.1 {status} x\r\n{fields}\r\n{rest}");
    let with = |name: &str, status: u16, fields: &str, rest: &str| {
        Case::whole(format!("{status} {name}"), line(status, fields, rest), "").status(status)
    };
    let (length, chunks) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    let mut cases = Vec::new();
    for status in [204, 304] {
        cases.extend([
            with("alone", status, "", ""),
            with("with a length", status, length, ""),
            with("in chunks", status, chunks, ""),
            with("with a body", status, length, "hello").dropped(),
            with("with a body and no length", status, "", "hello").dropped(),
            with("with chunks", status, chunks, "5\r\nhello\r\n0\r\n\r\n").dropped(),
            Case::refused(format!("{status} in both framings"), line(status, &format!("{length}{chunks}"), "")),
            Case::refused(format!("{status} with two lengths"), line(status, &length.repeat(2), "")),
        ]);
    }
    cases.extend([
        with("with a length", 304, length, "").field("Content-Length", "5"),
        with("with nothing", 200, "Content-Length: 0\r\n", ""),
        Case::whole("HEAD with a length", head("Content-Length: 5"), "").method("HEAD").field("Content-Length", "5"),
        Case::whole("HEAD without a length", head(""), "").method("HEAD"),
        Case::whole("HEAD in chunks", head("Transfer-Encoding: chunked"), "").method("HEAD"),
        Case::whole("HEAD with a body", answer("Content-Length: 5", "hello"), "").method("HEAD").dropped(),
        Case::whole("HEAD with chunks", answer("Transfer-Encoding: chunked", "0\r\n\r\n"), "").method("HEAD").dropped(),
        Case::whole("HEAD with 404", "HTTP/1.1 404 x\r\nContent-Length: 5\r\n\r\n", "").method("HEAD").status(404),
        Case::refused("HEAD in both framings", head("Content-Length: 5\r\nTransfer-Encoding: chunked")).method("HEAD"),
        Case::refused("HEAD with a bad length", head("Content-Length: x")).method("HEAD"),
    ]);
    cases
}
