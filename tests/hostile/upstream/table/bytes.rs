//! Bytes that have no place in a head, and fields that try to be more than one.

use crate::upstream::script::{Case, Step, answer};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n";

/// A second answer, as a field's value would start it.
const SPLIT: &str = "Content-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nSTRAY";

pub(crate) fn bytes() -> Vec<Case> {
    let with = |field: &[u8]| answer([b"Content-Length: 5\r\n", field].concat(), "hello");
    let bad = |name: &str, field: &[u8]| Case::refused(name, with(field));
    let good = |name: &str, field: &[u8]| Case::whole(name, with(field), "hello");
    vec![
        bad("NUL in a name", b"X\0Y: z"),
        bad("NUL in a value", b"X: y\0z"),
        bad("a control byte in a value", b"X: \x01"),
        bad("a control byte in a name", b"X\x01: y"),
        bad("DEL in a value", b"X: \x7f"),
        bad("ESC in a value", b"X: \x1b[31m"),
        bad("a vertical tab before a value", b"X:\x0by"),
        bad("a form feed before a value", b"X:\x0cy"),
        bad("a space before a colon", b"X : y"),
        bad("a tab before a colon", b"X\t: y"),
        bad("a space before a length's colon", b"Content-Length : 5"),
        bad("a space before a coding's colon", b"Transfer-Encoding : chunked"),
        bad("a space in a name", b"X Y: z"),
        bad("a delimiter in a name", b"X(Y): z"),
        bad("a quoted name", b"\"X\": z"),
        bad("UTF-8 in a name", "\u{e9}: z".as_bytes()),
        bad("no name", b": z"),
        bad("no colon", b"X"),
        bad("a line of spaces", b"   "),
        bad("a fold", b"X: y\r\n z"),
        bad("a fold with a tab", b"X: y\r\n\tz"),
        bad("a fold with nothing", b"X: y\r\n "),
        bad("a fold of a length", b"X: y\r\n Content-Length: 0"),
        Case::refused("a fold of the status line", "HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 0\r\n\r\n"),
        Case::refused("a length in a fold", "HTTP/1.1 200 OK\r\nContent-Length:\r\n 5\r\n\r\nhello"),
        good("UTF-8 in a value", "X: \u{e9}".as_bytes()).field("X", "\u{e9}"),
        good("bytes beyond UTF-8 in a value", b"X: \xff\xfe").field("X", b"\xff\xfe"),
        good("a tab in a value", b"X: y\tz").field("X", "y\tz"),
        good("an empty value", b"X:").field("X", ""),
        good("colons in a value", b"X: : :y").field("X", ": :y"),
        good("a name of all delimiters that it can have", b"!#$%&'*+-.^_`|~: y").field("!#$%&'*+-.^_`|~", "y"),
    ]
}

/// Line ends that some recipients accept, and values that hold them.
pub(crate) fn lines() -> Vec<Case> {
    let value = |value: &str| format!("{OK}X: {value}\r\n\r\nhello");
    let bad = |name: &str, bytes: &str| Case::refused(name, bytes);
    vec![
        bad("LF after the status line", "HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\nhello"),
        bad("LF after a field", "HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\nhello"),
        bad("LF at the end of the head", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\nhello"),
        bad("LF everywhere", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"),
        bad("LF in half a head", "HTTP/1.1 200 OK\nContent-Length: 5\r\n"),
        bad("CR after the status line", "HTTP/1.1 200 OK\rContent-Length: 5\r\n\r\nhello"),
        bad("CR everywhere", "HTTP/1.1 200 OK\rContent-Length: 5\r\rhello"),
        bad("CR CR LF after a field", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\r\n\r\nhello"),
        bad("LF CR at the end of the head", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\n\rhello"),
        bad("CR LF CR X", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\rXhello"),
        bad("a split with LF", &value(&format!("y\n{}", SPLIT.replace("\r\n", "\n")))),
        bad("a split with CR", &value(&format!("y\r{}", SPLIT.replace("\r\n", "\r")))),
        bad("a split with CR CR LF", &value(&format!("y\r\r\n{SPLIT}"))),
        bad("a split whose parts disagree", &value(&format!("y\r\n{SPLIT}"))),
        Case::whole("escapes of line ends", value("y%0d%0a%0d%0aHTTP/1.1%20200"), "hello")
            .field("X", "y%0d%0a%0d%0aHTTP/1.1%20200"),
        Case::whole("letters whose low byte is a line end", value("y\u{560d}\u{560a}z"), "hello")
            .field("X", "y\u{560d}\u{560a}z"),
        Case::whole("Unicode's own line ends", value("y\u{2028}\u{85}z"), "hello").field("X", "y\u{2028}\u{85}z"),
        Case::whole("a split that is one", format!("HTTP/1.1 200 OK\r\nX: y\r\n{SPLIT}"), "").dropped(),
        Case::whole(
            "a head in the body",
            answer("Content-Length: 37", "HTTP/1.1 200 OK\r\nX: y\r\n\r\nHTTP/1.1 ..."),
            "HTTP/1.1 200 OK\r\nX: y\r\n\r\nHTTP/1.1 ...",
        ),
        Case::whole("a CR at the end of a read", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r", "hello")
            .then([Step::Drip(b"\nhello".to_vec())]),
    ]
}
