//! Status lines, versions, and connections without an answer.

use crate::upstream::script::{Case, Step, head};

/// What starts no HTTP/1.1 response.
pub(crate) fn junk() -> Vec<Case> {
    let line = |line: &str| format!("{line}\r\nContent-Length: 5\r\n\r\nhello");
    let bad = |text: &str| Case::refused(format!("status line {text:?}"), line(text));
    let mut cases: Vec<Case> = [
        "ICY 200 OK",
        "HTTP/2 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/1.10 200 OK",
        "HTTP/0.9 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1200 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        " HTTP/1.1 200 OK",
        "\u{feff}HTTP/1.1 200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 0x0 OK",
        "HTTP/1.1 000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 600 OK",
        "HTTP/1.1 999 OK",
        "HTTP/1.1 200\tOK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\rK",
        "HTTP/1.1 200 OK\r",
        "HTTP/1.1 200 O\nK",
        "GET /case HTTP/1.1",
        "\r\nHTTP/1.1 200 OK",
        "\nHTTP/1.1 200 OK",
        "\0HTTP/1.1 200 OK",
    ]
    .into_iter()
    .map(bad)
    .collect();
    cases.extend([
        Case::refused("HTTP/0.9", "<html>hello</html>").then([Step::Close]),
        Case::refused("HTTP/0.9 that looks like HTTP", "HTTP hello\n").then([Step::Close]),
        Case::refused("a TLS alert", b"\x15\x03\x03\x00\x02\x02\x28").then([Step::Close]),
        Case::refused("an HTTP/2 settings frame", b"\0\0\0\x04\0\0\0\0\0").then([Step::Close]),
        Case::refused("a body without a head", "5\r\nhello\r\n0\r\n\r\n"),
    ]);
    cases
}

/// Connections that end before the head does.
pub(crate) fn nothing() -> Vec<Case> {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n";
    vec![
        Case::refused("a close without a byte", "").steps([Step::Close]),
        Case::refused("a reset without a byte", "").steps([Step::Reset]),
        Case::refused("a close in the status line", "HTTP/1.1 2").then([Step::Close]),
        Case::refused("a close in a field", half).then([Step::Close]),
        Case::refused("a reset in a field", half).then([Step::Reset]),
        Case::refused("silence", "").steps([Step::Hang]).status(504),
        Case::refused("silence in a field", half).then([Step::Hang]).status(504),
    ]
}

/// What is unusual, and an answer.
pub(crate) fn unusual() -> Vec<Case> {
    let with = |line: &str, fields: &str| format!("{line}\r\n{fields}\r\n\r\nhello");
    let length = "Content-Length: 5";
    let whole = |name: &str, line: &str, fields: &str| Case::whole(name, with(line, fields), "hello");
    vec![
        whole("an ordinary answer", "HTTP/1.1 200 OK", length),
        whole("an empty reason", "HTTP/1.1 200 ", length),
        whole("no reason and no space", "HTTP/1.1 200", length),
        whole("a reason beyond ASCII", "HTTP/1.1 200 \u{e9}", length),
        whole("a reason that is a field", "HTTP/1.1 200 Content-Length: 0", length),
        whole("a reason with a tab", "HTTP/1.1 200 \tO\tK", length),
        whole("status 599", "HTTP/1.1 599 x", length).status(599),
        whole("status 400", "HTTP/1.1 400 x", length).status(400),
        whole("status 205 with a body", "HTTP/1.1 205 x", length).status(205),
        whole("HTTP/1.0 with a length", "HTTP/1.0 200 OK", length).dropped(),
        whole("HTTP/1.0 that keeps", "HTTP/1.0 200 OK", "Content-Length: 5\r\nConnection: keep-alive"),
        whole(
            "HTTP/1.0 that keeps and closes",
            "HTTP/1.0 200 OK",
            "Content-Length: 5\r\nConnection: keep-alive, close",
        )
        .dropped(),
        whole("HTTP/1.1 that closes", "HTTP/1.1 200 OK", "Content-Length: 5\r\nConnection: x, Close").dropped(),
        whole("HTTP/1.0 until it closes", "HTTP/1.0 200 OK", "X: y").dropped().then([Step::Close]),
        whole("an X-Ingle-Backend of the backend's", "HTTP/1.1 200 OK", "Content-Length: 5\r\nX-Ingle-Backend: other"),
        Case::whole("a head alone, then the body", head(length), "hello")
            .then([Step::Await(0), Step::Send(b"hello".to_vec())]),
        Case::whole("a body in three pieces", head(length), "hello").then([
            Step::Await(0),
            Step::Send(b"he".to_vec()),
            Step::Await(2),
            Step::Send(b"ll".to_vec()),
            Step::Await(4),
            Step::Send(b"o".to_vec()),
        ]),
    ]
}
