//! Bytes that have no place in a head.

use crate::cases::Expect::{Refused, Served};
use crate::cases::{Case, case, get};

pub(crate) fn bytes() -> Vec<Case> {
    let path = |path: &[u8]| [b"GET /case", path, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    let good = Served(&["GET /case"]);
    let bad = Refused(400);
    vec![
        case("NUL in a name", get(b"X\0Y: z"), bad),
        case("NUL in a value", get(b"X: y\0z"), bad),
        case("NUL in the path", path(b"\0"), bad),
        case("NUL in the method", b"GE\0T /case HTTP/1.1\r\nHost: a\r\n\r\n", bad),
        case("NUL in Host", b"GET /case HTTP/1.1\r\nHost: a\0b\r\n\r\n", bad),
        case("a bare CR in a name", get(b"X\rY: z"), bad),
        case("a bare CR in a value", get(b"X: y\rz"), bad),
        case("a bare CR in the path", path(b"\rx"), bad),
        case("CR CR LF", get(b"X: y\r"), bad),
        case("a bare LF in a name", get(b"X\nY: z"), bad),
        case("a bare LF in a value begins a header", get(b"X: y\nHost: b"), bad),
        case("a bare LF in the path", path(b"\nHost: b"), bad),
        case(
            "LF LF ends the head",
            b"GET /case HTTP/1.1\r\nHost: a\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
            good,
        ),
        case("UTF-8 in a name", get("\u{e9}: z".as_bytes()), bad),
        case("a byte beyond UTF-8 in a name", get(b"X\xff: z"), bad),
        case("UTF-8 in a value", get("X: \u{e9}".as_bytes()), good),
        case("a byte beyond UTF-8 in a value", get(b"X: \xff\xfe"), good),
        case("UTF-8 in the path", path("/\u{e9}".as_bytes()), Served(&["GET /case/\u{e9}"])),
        case("a byte beyond UTF-8 in the path", path(b"/\xff"), bad),
        case("a byte beyond UTF-8 in the method", b"G\xffT /case HTTP/1.1\r\nHost: a\r\n\r\n", bad),
        case("a byte beyond UTF-8 in Host", b"GET /case HTTP/1.1\r\nHost: \xff\r\n\r\n", bad),
        case("a control byte in a value", get(b"X: \x01"), bad),
        case("DEL in a value", get(b"X: \x7f"), bad),
        case("ESC in the path", path(b"\x1b[31m"), bad),
        case("DEL in the path", path(b"\x7f"), bad),
        case("a tab in a value", get(b"X: y\tz"), good),
        case("a space in a name", get(b"X Y: z"), bad),
        case("no name", get(b": z"), bad),
        case("no colon", get(b"X"), bad),
        case("a delimiter in a name", get(b"X(Y): z"), bad),
        case("an empty value", get(b"X:"), good),
        case("obs-fold in any header", get(b"X: y\r\n z"), bad),
        case("a space in the path", path(b"/a b"), Served(&["GET /case/a%20b"])),
        case("a tab in the path", path(b"/a\tb"), bad),
        case("a quote and brackets in the path", path(b"/\"<>[]{}|^`\\"), bad),
    ]
}
