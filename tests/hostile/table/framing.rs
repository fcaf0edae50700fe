//! Where a message ends: Content-Length, Transfer-Encoding, versions.

use crate::cases::Expect::{Closed, Refused, Served};
use crate::cases::{Case, case, cut, get, post};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Content-Length against Transfer-Encoding.
pub(crate) fn both() -> Vec<Case> {
    let end = format!("0\r\n\r\n{SMUGGLED}");
    let inside = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    vec![
        case("CL.TE", post(format!("Content-Length: {}\r\nTransfer-Encoding: chunked", end.len()), &end), Refused(400)),
        case("TE.CL", post("Content-Length: 4\r\nTransfer-Encoding: chunked", &inside), Refused(400)),
        case("TE first, then CL", post("Transfer-Encoding: chunked\r\nContent-Length: 0", &inside), Refused(400)),
        case("TE and a bad CL", post("Transfer-Encoding: chunked\r\nContent-Length: -1", "0\r\n\r\n"), Refused(400)),
        case(
            "TE and CL twice",
            post("Content-Length: 1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2", "0\r\n\r\n"),
            Refused(400),
        ),
        case(
            "TE and CL on GET",
            get("Transfer-Encoding: chunked\r\nContent-Length: 3").into_iter().chain(*b"0\r\n\r\n").collect::<Vec<_>>(),
            Refused(400),
        ),
        case(
            "a request in a body",
            post(format!("Content-Length: {}", SMUGGLED.len()), SMUGGLED),
            Served(&["POST /case GET /smuggled HTTP/1.1\r\nHost: a"]),
        ),
        case("bytes after CL", post("Content-Length: 2", format!("ab{SMUGGLED}")), Served(&["POST /case ab"])),
        case("bytes after chunks", post("Transfer-Encoding: chunked", &end), Served(&["POST /case"])),
        case("garbage after CL", post("Content-Length: 2", "ab\0\0\r\n"), Served(&["POST /case ab"])),
        case("a body without framing", post("X: y", SMUGGLED), Served(&["POST /case"])),
    ]
}

/// Transfer-Encoding in disguise. The body is `ab` to who reads chunks, and a request to who does not.
pub(crate) fn transfer_encoding() -> Vec<Case> {
    let te = |lines: &[u8]| post(lines, format!("2\r\nab\r\n0\r\n\r\n{SMUGGLED}"));
    let good = Served(&["POST /case ab"]);
    let bad = Refused(400);
    vec![
        case("TE: Chunked", te(b"Transfer-Encoding: Chunked"), good),
        case("TE: CHUNKED, name in capitals", te(b"TRANSFER-ENCODING: CHUNKED"), good),
        case("TE after a tab", te(b"Transfer-Encoding:\tchunked"), good),
        case("TE before a tab", te(b"Transfer-Encoding: chunked\t"), good),
        case("TE without a blank", te(b"Transfer-Encoding:chunked"), good),
        case("TE, space before the colon", te(b"Transfer-Encoding : chunked"), bad),
        case("TE, tab before the colon", te(b"Transfer-Encoding\t: chunked"), bad),
        case("TE, leading space", te(b" Transfer-Encoding: chunked"), bad),
        case("TE, leading space, not first", te(b"X: y\r\n Transfer-Encoding: chunked"), bad),
        case("TE, obs-fold", te(b"Transfer-Encoding:\r\n chunked"), bad),
        case("TE, obs-fold with tab", te(b"Transfer-Encoding: identity\r\n\t, chunked"), bad),
        case("TE: chunked, identity", te(b"Transfer-Encoding: chunked, identity"), bad),
        case("TE: identity, chunked", te(b"Transfer-Encoding: identity, chunked"), bad),
        case("TE: identity", te(b"Transfer-Encoding: identity"), bad),
        case("TE: gzip", te(b"Transfer-Encoding: gzip"), bad),
        case("TE: gzip, chunked", te(b"Transfer-Encoding: gzip, chunked"), bad),
        case("TE: chunked, chunked", te(b"Transfer-Encoding: chunked, chunked"), bad),
        case("TE twice: chunked", te(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), bad),
        case("TE twice: identity, then chunked", te(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"), bad),
        case("TE twice: chunked, then identity", te(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"), bad),
        case("TE: xchunked", te(b"Transfer-Encoding: xchunked"), bad),
        case("TE: chunkedx", te(b"Transfer-Encoding: chunkedx"), bad),
        case("TE: \"chunked\"", te(b"Transfer-Encoding: \"chunked\""), bad),
        case("TE: chunked;q=1", te(b"Transfer-Encoding: chunked;q=1"), bad),
        case("TE: chunked,", te(b"Transfer-Encoding: chunked,"), bad),
        case("TE: , chunked", te(b"Transfer-Encoding: , chunked"), bad),
        case("TE empty", te(b"Transfer-Encoding:"), bad),
        case("TE after a vertical tab", te(b"Transfer-Encoding: \x0bchunked"), bad),
        case("TE with NUL", te(b"Transfer-Encoding: chunked\0"), bad),
        case("TE after a non-breaking space", te(b"Transfer-Encoding: \xa0chunked"), bad),
        case("TE after a bare CR", te(b"X: y\rTransfer-Encoding: chunked"), bad),
        case("TE after a bare LF", te(b"X: y\nTransfer-Encoding: chunked"), good),
        case(
            "Transfer_Encoding is another header",
            te(b"Transfer_Encoding: chunked\r\nContent-Length: 2"),
            Served(&["POST /case 2"]),
        ),
    ]
}

/// Content-Length in disguise. The body is `abcde` to who counts five bytes.
pub(crate) fn content_length() -> Vec<Case> {
    let length = |lines: &str| post(lines, "abcde");
    let good = Served(&["POST /case abcde"]);
    let bad = Refused(400);
    vec![
        case("CL twice, the same", length("Content-Length: 5\r\nContent-Length: 5"), bad),
        case("CL twice, different", length("Content-Length: 5\r\nContent-Length: 6"), bad),
        case("CL twice, different in spelling", length("Content-Length: 5\r\nContent-Length: 05"), bad),
        case("CL: 5, 5", length("Content-Length: 5, 5"), bad),
        case("CL: 5, 6", length("Content-Length: 5, 6"), bad),
        case("CL: -1", length("Content-Length: -1"), bad),
        case("CL: -5", length("Content-Length: -5"), bad),
        case("CL: +5", length("Content-Length: +5"), bad),
        case("CL: 0x5", length("Content-Length: 0x5"), bad),
        case("CL: 5a", length("Content-Length: 5a"), bad),
        case("CL: 5 5", length("Content-Length: 5 5"), bad),
        case("CL: 5.0", length("Content-Length: 5.0"), bad),
        case("CL: 1e1", length("Content-Length: 1e1"), bad),
        case("CL: 5;", length("Content-Length: 5;"), bad),
        case("CL: 5,", length("Content-Length: 5,"), bad),
        case("CL empty", length("Content-Length:"), bad),
        case("CL of wide digits", length("Content-Length: \u{ff15}"), bad),
        case("CL: 05", length("Content-Length: 05"), good),
        case("CL after tabs", length("Content-Length:\t\t5\t"), good),
        case("CL, space before the colon", length("Content-Length : 5"), bad),
        case("CL beyond 64 bits", length("Content-Length: 18446744073709551616"), bad),
        case("CL of 64 bits", length("Content-Length: 18446744073709551615"), Refused(413)),
        case("CL of 63 bits", length("Content-Length: 9223372036854775807"), Refused(413)),
        case("CL of 10,000 digits", length(&format!("Content-Length: {}", "9".repeat(10_000))), bad),
        case("CL over max_body", length("Content-Length: 1048577"), Refused(413)),
        case("CL on GET", [get("Content-Length: 5"), b"abcde".to_vec()].concat(), Served(&["GET /case abcde"])),
        cut("CL longer than the body", length("Content-Length: 6"), Closed),
    ]
}

/// Versions.
pub(crate) fn versions() -> Vec<Case> {
    let version = |version: &str| format!("GET /case {version}\r\nHost: a\r\n\r\n");
    let bad = Refused(400);
    vec![
        case("HTTP/1.0", version("HTTP/1.0"), Served(&["GET /case"])),
        case("HTTP/1.0 without Host", "GET /case HTTP/1.0\r\n\r\n", Served(&["GET /case"])),
        case("HTTP/1.0 with TE", "POST /case HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", bad),
        case(
            "HTTP/1.0 with TE and CL",
            "POST /case HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            bad,
        ),
        case(
            "HTTP/1.0 with a body",
            "POST /case HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
            Served(&["POST /case ab"]),
        ),
        case("HTTP/1.0, pipelined", format!("{}{SMUGGLED}", version("HTTP/1.0")), Served(&["GET /case"])),
        case("HTTP/0.9", "GET /case\r\n", bad),
        case("HTTP/0.9 with a version", version("HTTP/0.9"), bad),
        case("HTTP/1.2", version("HTTP/1.2"), bad),
        case("HTTP/1.10", version("HTTP/1.10"), bad),
        case("HTTP/2.0 in an HTTP/1 line", version("HTTP/2.0"), bad),
        case("HTTP/3", version("HTTP/3"), bad),
        case("http/1.1", version("http/1.1"), bad),
        case("HTTP/1.1x", version("HTTP/1.1x"), bad),
        case("a version twice", version("HTTP/1.1 HTTP/1.1"), bad),
        case("empty lines before the request", format!("\r\n\r\n{}", version("HTTP/1.1")), Served(&["GET /case"])),
        case("a space before the method", format!(" {}", version("HTTP/1.1")), bad),
        case("two spaces in the request line", "GET  /case HTTP/1.1\r\nHost: a\r\n\r\n", bad),
        case("tabs in the request line", "GET\t/case\tHTTP/1.1\r\nHost: a\r\n\r\n", bad),
        case("lines that end with LF", "GET /case HTTP/1.1\nHost: a\n\n", Served(&["GET /case"])),
        cut("lines that end with CR", "GET /case HTTP/1.1\rHost: a\r\r", bad),
        case("a TLS hello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n", bad),
        cut("nothing at all", "", Closed),
        cut("empty lines only", "\r\n\r\n\r\n", Closed),
        cut("half a head", "GET /case HTTP/1.1\r\nHost: a\r\nX-", Closed),
    ]
}
