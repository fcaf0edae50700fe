//! What belongs to one connection only: nominations, upgrades, pipelines, expectations.

use crate::cases::Expect::{Closed, Refused, Served};
use crate::cases::{Case, case, cut, get, post};

/// Headers that name headers.
pub(crate) fn nominations() -> Vec<Case> {
    let good = Served(&["GET /case"]);
    let bad = Refused(400);
    vec![
        case("Connection: Host", get("Connection: Host"), bad),
        case("Connection: X-Forwarded-For", get("Connection: X-Forwarded-For\r\nX-Forwarded-For: 1.2.3.4"), bad),
        case("Connection: close, x-forwarded-host", get("Connection: close, x-forwarded-host"), bad),
        case("Connection: X-Session-Id", get("Connection: X-Session-Id\r\nX-Session-Id: s"), good),
        case(
            "Connection: Content-Length",
            post("Connection: Content-Length\r\nContent-Length: 2", "ab"),
            Served(&["POST /case ab"]),
        ),
        case(
            "Connection: Transfer-Encoding",
            post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", "2\r\nab\r\n0\r\n\r\n"),
            Served(&["POST /case ab"]),
        ),
        case("Connection: :authority", get("Connection: :authority"), bad),
        case("Connection: \"X\"", get("Connection: \"X\""), bad),
        case("Connection with 20 names", get(format!("Connection: {}", vec!["x"; 20].join(","))), bad),
        case("Connection: keep-alive, close", get("Connection: keep-alive, close"), good),
        case(
            "Proxy-Connection, Keep-Alive, TE, Trailer",
            get("Proxy-Connection: close\r\nKeep-Alive: timeout=9\r\nTE: trailers\r\nTrailer: X"),
            good,
        ),
        case("X-Forwarded-For that is no text", get(b"X-Forwarded-For: \xff\r\nX-Forwarded-For: 1.2.3.4"), good),
        case("X-Request-Id that is no text", get(b"X-Request-Id: \xff"), good),
        case("X-Ingle-Backend from a client", get("X-Ingle-Backend: other\r\nX-Ingle-Affinity: home"), good),
    ]
}

/// Upgrades that nobody agreed to.
pub(crate) fn upgrades() -> Vec<Case> {
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let good = Served(&["GET /case"]);
    let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    vec![
        case("an upgrade that gets no 101", get(websocket), good),
        case("bytes after an upgrade that gets no 101", [&get(websocket)[..], smuggled].concat(), good),
        case("an upgrade to anything", get("Connection: Upgrade\r\nUpgrade: anything"), good),
        case(
            "an upgrade to h2c",
            get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"),
            good,
        ),
        case(
            "an upgrade with a body",
            post(format!("{websocket}\r\nContent-Length: 2"), "ab"),
            Served(&["POST /case ab"]),
        ),
        case(
            "an upgrade with CL and TE",
            post(format!("{websocket}\r\nContent-Length: 2\r\nTransfer-Encoding: chunked"), "0\r\n\r\n"),
            Refused(400),
        ),
        cut("an upgrade with half a body", post(format!("{websocket}\r\nContent-Length: 20"), "ab"), Closed),
        cut(
            "an upgrade with half a chunk",
            post(format!("{websocket}\r\nTransfer-Encoding: chunked"), "5\r\nab"),
            Closed,
        ),
        case(
            "an upgrade with a bad chunk",
            post(format!("{websocket}\r\nTransfer-Encoding: chunked"), "zz\r\nab"),
            Refused(400),
        ),
        case(
            "an upgrade of HTTP/1.0",
            "GET /case HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            good,
        ),
    ]
}

/// More than one request at once, and expectations.
pub(crate) fn pipelines() -> Vec<Case> {
    let numbered = |n: usize| format!("POST /case/{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{n}{n}");
    let first = Served(&["POST /case/1 11"]);
    vec![
        case("two POSTs in one segment", format!("{}{}", numbered(1), numbered(2)), first),
        case("ten POSTs in one segment", (1..=10).map(|n| numbered(n % 10)).collect::<String>(), first),
        case("two GETs in one segment", [get("X: y"), get("X: y")].concat(), Served(&["GET /case"])),
        case("a POST, then garbage", format!("{}\0\0\0", numbered(1)), first),
        case("a refused request, then a good one", [get("X: \0"), get("X: y")].concat(), Refused(400)),
        case(
            "Expect: 100-continue with the body already there",
            post("Expect: 100-continue\r\nContent-Length: 2", "ab"),
            Served(&["POST /case ab"]),
        ),
        case(
            "Expect: 100-continue, in chunks",
            post("Expect: 100-continue\r\nTransfer-Encoding: chunked", "2\r\nab\r\n0\r\n\r\n"),
            Served(&["POST /case ab"]),
        ),
        case("Expect: 100-continue without a body", get("Expect: 100-continue"), Served(&["GET /case"])),
        case("Expect: anything", get("Expect: anything"), Served(&["GET /case"])),
    ]
}
