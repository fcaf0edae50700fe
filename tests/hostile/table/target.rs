//! Targets, authorities, methods.

use crate::cases::Expect::{Refused, Served};
use crate::cases::{Case, case};

/// Where to: the target and Host.
pub(crate) fn targets() -> Vec<Case> {
    let line = |method: &str, target: &str, headers: &str| format!("{method} {target} HTTP/1.1\r\n{headers}\r\n");
    let to = |target: &str| line("GET", target, "Host: a\r\n");
    let host = |lines: &str| line("GET", "/case", lines);
    let good = Served(&["GET /case"]);
    let bad = Refused(400);
    vec![
        case("absolute form", to("http://a/case"), good),
        case("absolute form without a path", to("http://a?x"), Served(&["GET /?x"])),
        case("absolute form of HTTP/1.0 without Host", "GET http://a/case HTTP/1.0\r\n\r\n", good),
        case("absolute form of another host", to("http://b/case"), bad),
        case("absolute form without Host", line("GET", "http://a/case", ""), bad),
        case("absolute form with another scheme", to("ftp://a/case"), bad),
        case("absolute form of https", to("https://a/case"), good),
        case("absolute form with userinfo", to("http://u@a/case"), bad),
        case("absolute form, backslashes", to("http:\\\\a\\case"), bad),
        case("absolute form, one slash", to("http:/a/case"), bad),
        case("absolute form, three slashes", to("http:///case"), bad),
        case("no slash", to("case"), bad),
        case("an authority as the target", to("a:80"), bad),
        case("an empty target", "GET  HTTP/1.1\r\nHost: a\r\n\r\n", bad),
        case("a target of two slashes", to("//b/case"), Served(&["GET //b/case"])),
        case("a target with a fragment", to("/case#x"), good),
        case("dots in the target", to("/../../case"), Served(&["GET /../../case"])),
        case("an encoded CR LF in the target", to("/case%0d%0aX:y"), Served(&["GET /case%0d%0aX:y"])),
        case("an asterisk for GET", to("*"), bad),
        case("no Host", host(""), bad),
        case("Host twice, the same", host("Host: a\r\nHost: a\r\n"), bad),
        case("Host twice, different", host("Host: a\r\nHost: b\r\n"), bad),
        case("Host empty", host("Host:\r\n"), good),
        case("Host with userinfo", host("Host: u@a\r\n"), bad),
        case("Host with a path", host("Host: a/b\r\n"), bad),
        case("Host with a space", host("Host: a b\r\n"), bad),
        case("Host with a comma", host("Host: a, b\r\n"), bad),
        case("Host with a bad port", host("Host: a:99999999\r\n"), good),
        case("Host of 10 KB", host(&format!("Host: {}\r\n", "a".repeat(10_000))), good),
    ]
}

/// Methods.
pub(crate) fn methods() -> Vec<Case> {
    let method = |method: &str, target: &str| format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let bad = Refused(400);
    vec![
        case("HEAD", method("HEAD", "/case"), Served(&["HEAD /case"])),
        case("CONNECT", method("CONNECT", "a:80"), Refused(405)),
        case("CONNECT to the host", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Refused(405)),
        case("CONNECT with a path", method("CONNECT", "/case"), Refused(405)),
        case("TRACE", method("TRACE", "/case"), Served(&["TRACE /case"])),
        case("OPTIONS *", method("OPTIONS", "*"), Served(&["OPTIONS *"])),
        case("PRI *", method("PRI", "*"), bad),
        case("a preface that turns out to be none", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", bad),
        case("an unknown method", method("BREW", "/case"), Served(&["BREW /case"])),
        case("a method in lower case", method("get", "/case"), Served(&["get /case"])),
        case("a method with a delimiter", method("GE(T", "/case"), bad),
        case("no method", method("", "/case"), bad),
    ]
}
