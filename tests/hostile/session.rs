//! Session headers that are none: served as no session, or refused, never failed.

use crate::client::{End, exchange};
use crate::world::World;

/// What a request with these session headers counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Header,
    None,
    Invalid,
    /// The parser answers 400.
    Refused,
}

fn cases() -> Vec<(&'static str, Vec<u8>, Source)> {
    use Source::{Header, Invalid, None, Refused};
    let id = |value: &[u8]| [b"X-Session-Id: ", value].concat();
    let two = |one: &[u8], other: &[u8]| [&id(one)[..], b"\r\n", &id(other)].concat();
    vec![
        ("an ordinary id", id(b"s"), Header),
        ("an id of 256 bytes", id(&[b's'; 256]), Header),
        ("an id of 257 bytes", id(&[b's'; 257]), Invalid),
        ("an id of 10 KB", id(&[b's'; 10_240]), Invalid),
        ("an empty id", id(b""), None),
        ("blanks for an id", id(b" \t "), None),
        ("twice the same", two(b"s", b"s"), Header),
        ("twice the same but for blanks", two(b"s", b" s "), Header),
        ("twice, different", two(b"s", b"t"), Invalid),
        ("one empty, one not", two(b"", b"s"), Header),
        ("one good, one invalid", two(b"s", b"\xff"), Invalid),
        (
            "100 different ones",
            (0..100).map(|i| format!("X-Session-Id: {i}")).collect::<Vec<_>>().join("\r\n").into_bytes(),
            Invalid,
        ),
        ("a tab inside", id(b"s\tt"), Invalid),
        ("UTF-8", id("caf\u{e9}".as_bytes()), Invalid),
        ("bytes beyond UTF-8", id(b"\xff\xfe"), Invalid),
        ("NUL", id(b"s\0t"), Refused),
        ("a control byte", id(b"s\x01t"), Refused),
        ("DEL", id(b"s\x7ft"), Refused),
        ("a bare CR", id(b"s\rt"), Refused),
        ("obs-fold", id(b"s\r\n t"), Refused),
        ("a list", id(b"s, t"), Header),
        ("a query for a database", id(b"'; DROP TABLE sessions; --"), Header),
        ("a format string", id(b"%s%n{}${jndi:ldap://x}"), Header),
        ("nominated by Connection", [&id(b"s")[..], b"\r\nConnection: X-Session-Id"].concat(), Header),
        ("an underscore is another header", b"X_Session_Id: s".to_vec(), None),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_session_id_is_no_session_and_no_failure() {
    let world = World::start("5s").await;
    for (name, headers, source) in cases() {
        let before = (world.sessions(), world.invalid_sessions());
        let request = [b"GET /case HTTP/1.1\r\nHost: a\r\n", &headers[..], b"\r\n\r\n"].concat();
        let answers = exchange(world.address, &request, End::Waits, 1).await.unwrap();
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        let (reached, _) = world.aftermath().await.unwrap();
        let after = (world.sessions() - before.0, world.invalid_sessions() - before.1);
        let expected = match source {
            Source::Refused => (vec![400], 0, (0, 0)),
            Source::Header => (vec![200], 1, (1, 0)),
            Source::None => (vec![200], 1, (0, 0)),
            Source::Invalid => (vec![200], 1, (0, 1)),
        };
        println!("{name:<40} {source:?}");
        assert_eq!(
            (statuses, reached.len(), after),
            expected,
            "{name}: (statuses, requests upstream, (header, invalid))"
        );
    }
}

/// The client may keep its session from the backend, as it may with any header; the gateway's choice stays the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nominated_session_header_still_routes_but_goes_no_further() {
    let world = World::start("5s").await;
    for (connection, expected) in [("keep-alive", vec![&b"s"[..]]), ("X-Session-Id", vec![])] {
        let request = format!("GET /case HTTP/1.1\r\nHost: a\r\nX-Session-Id: s\r\nConnection: {connection}\r\n\r\n");
        let answers = exchange(world.address, request.as_bytes(), End::Waits, 1).await.unwrap();
        assert!(answers[0].head.to_ascii_lowercase().contains("x-ingle-affinity: home"), "{}", answers[0].head);
        let log = world.backend.take().await;
        assert_eq!(log.requests[0].all("x-session-id"), expected, "Connection: {connection}");
    }
}
