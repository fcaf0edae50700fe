//! The session header, as clients send it and as they should not.

use crate::client::Req;
use crate::harness::{Gateway, Setup};
use crate::scripted::Scripted;

const SOURCES: [&str; 4] = ["X-Session-Id", "Thread-ID", "none", "invalid"];

async fn two() -> (Gateway, Scripted, Scripted) {
    let (a, b) = (Scripted::ok("a").await, Scripted::ok("b").await);
    let setup = Setup::new().backend("a", &a.url()).backend("b", &b.url());
    let affinity = "affinity: { headers: [X-Session-Id, Thread-ID], max_length: 16 }";
    (setup.top(affinity).start().await, a, b)
}

/// Sends a request with these header lines; from where its session came.
async fn source(gateway: &Gateway, lines: &[u8]) -> (&'static str, String) {
    let mut before = Vec::new();
    for source in SOURCES {
        before.push(gateway.metric("ingle_session_keys_total", &[("source", source)]).await);
    }
    let mut client = gateway.client().await;
    client.write(&[b"GET / HTTP/1.1\r\nHost: x\r\n", lines, b"\r\n"].concat()).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 200);
    let mut found = Vec::new();
    for (source, before) in SOURCES.into_iter().zip(before) {
        let now = gateway.metric("ingle_session_keys_total", &[("source", source)]).await;
        found.extend((now > before).then_some(source));
    }
    assert_eq!(found.len(), 1, "counted once: {found:?}");
    (found[0], answer.affinity().to_owned())
}

#[tokio::test]
async fn which_header_counts_and_which_values_do() {
    let (gateway, _a, _b) = two().await;
    let cases: [(&[u8], &str); 19] = [
        (b"", "none"),
        (b"X-Session-Id:\r\n", "none"),
        (b"X-Session-Id:  \t \r\n", "none"),
        (b"X-Session-Id: s\r\n", "X-Session-Id"),
        (b"x-SESSION-id: s\r\n", "X-Session-Id"),
        (b"X-Session-Id: two words\r\n", "X-Session-Id"),
        (b"X-Session-Id: sixteen-bytes-xx\r\n", "X-Session-Id"),
        (b"X-Session-Id: seventeen-bytes-x\r\n", "invalid"),
        (b"thread-id: t\r\n", "Thread-ID"),
        (b"Thread-ID: t\r\nX-Session-Id: s\r\n", "X-Session-Id"),
        (b"X-Session-Id:\r\nThread-ID: t\r\n", "Thread-ID"),
        (b"X-Session-Id: seventeen-bytes-x\r\nThread-ID: t\r\n", "invalid"),
        (b"X-Session-Id: s\r\nX-Session-Id: s\r\n", "X-Session-Id"),
        (b"X-Session-Id: s\r\nX-Session-Id:\r\n", "X-Session-Id"),
        (b"X-Session-Id: s\r\nX-Session-Id: t\r\n", "invalid"),
        (b"X-Session-Id: s\r\nThread-ID: \xff\r\n", "X-Session-Id"),
        ("X-Session-Id: café\r\n".as_bytes(), "invalid"),
        (b"X-Session-Id: \xff\xfe\r\n", "invalid"),
        (b"X-Session-Id: a\tb\r\n", "invalid"),
    ];
    for (lines, expected) in cases {
        let (source, affinity) = source(&gateway, lines).await;
        assert_eq!(source, expected, "{}", String::from_utf8_lossy(lines));
        assert_eq!(affinity == "home", !matches!(expected, "none" | "invalid"), "{affinity}");
        assert!(affinity == "home" || affinity == "balanced");
    }
}

#[tokio::test]
async fn the_first_header_decides_where_to() {
    let (gateway, _a, _b) = two().await;
    for i in 0..20 {
        let (one, other) = (format!("s{i}"), format!("t{i}"));
        let req = Req::get("/").header("Thread-ID", &other).header("X-Session-Id", &one);
        assert_eq!(gateway.send(&req).await.backend(), gateway.home(&one));
        let req = Req::get("/").header("Thread-ID", &other);
        assert_eq!(gateway.send(&req).await.backend(), gateway.home(&other), "the same key from another header");
        let req = Req::get("/").header("X-Session-Id", &format!("  {one} \t"));
        assert_eq!(gateway.send(&req).await.backend(), gateway.home(&one), "blanks around do not count");
    }
}

#[tokio::test]
async fn a_session_of_ten_kilobytes_is_served_without_one() {
    let (gateway, a, b) = two().await;
    let id = "x".repeat(10_000);
    for _ in 0..10 {
        assert_eq!(gateway.send(&Req::get("/").session(&id)).await.affinity(), "balanced");
    }
    assert_eq!((a.count(), b.count()), (5, 5), "strangers do not end up together");
    assert_eq!(a.seen()[0].header("X-Session-Id"), Some(id.as_str()), "it goes through all the same");
}

#[tokio::test]
async fn a_nul_in_any_header_is_refused() {
    let (gateway, a, b) = two().await;
    let mut client = gateway.client().await;
    client.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Session-Id: a\0b\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!((a.count(), b.count()), (0, 0));
}
