//! What is added, kept and stripped on the way to a backend and back.

use crate::client::Req;
use crate::harness::{Gateway, Setup};
use crate::scripted::{Scripted, Seen, Step, answer};

async fn one() -> (Gateway, Scripted) {
    let a = Scripted::ok("a").await;
    (Setup::new().backend("a", &a.url()).start().await, a)
}

/// What the backend sees of a request.
async fn seen(req: &Req) -> Seen {
    let (gateway, a) = one().await;
    assert_eq!(gateway.send(req).await.status, 200);
    a.seen().remove(0)
}

#[tokio::test]
async fn where_a_request_came_from_is_added() {
    let seen = seen(&Req::get("/")).await;
    assert_eq!(seen.header("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!((seen.header("X-Forwarded-Proto"), seen.header("X-Forwarded-Host")), (Some("http"), Some("llm.test")));
}

#[tokio::test]
async fn what_a_client_says_of_where_it_comes_from_is_overwritten() {
    let req = Req::get("/").header("X-Forwarded-For", "10.1.1.1, 10.2.2.2").header("X-Forwarded-For", "10.3.3.3");
    let seen = seen(&req.header("X-Forwarded-Proto", "gopher").header("X-Forwarded-Host", "evil")).await;
    assert_eq!(seen.header("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!((seen.header("X-Forwarded-Proto"), seen.header("X-Forwarded-Host")), (Some("http"), Some("llm.test")));
    for name in ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"] {
        assert_eq!(seen.count(name), 1, "{name}");
    }
}

#[tokio::test]
async fn a_request_id_is_kept_or_made_up() {
    assert_eq!(seen(&Req::get("/").header("X-Request-Id", "mine")).await.header("X-Request-Id"), Some("mine"));
    let (gateway, a) = one().await;
    gateway.send(&Req::get("/")).await;
    gateway.send(&Req::get("/")).await;
    let ids: Vec<String> = a.seen().iter().map(|seen| seen.header("X-Request-Id").unwrap().to_owned()).collect();
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.len() == 32), "{ids:?}");
}

#[tokio::test]
async fn every_attempt_of_a_request_has_the_same_id() {
    let (a, b) = (Scripted::start(|_| vec![Step::Close]).await, Scripted::ok("b").await);
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    gateway.send(&Req::post("/", b"{}").session(&gateway.session_of("a"))).await;
    assert_eq!(a.seen()[0].header("X-Request-Id"), b.seen()[0].header("X-Request-Id"));
    assert_eq!(a.seen()[0].head, b.seen()[0].head, "nor does anything else differ");
}

#[tokio::test]
async fn host_target_method_and_session_pass_unchanged() {
    let target = "/v1//chat/../x%2F%20y?a=%20b&&c=//d;e='f'&g=%e4";
    let req = Req::new("POST", target, b"{}").session("my session").header("Authorization", "Bearer k");
    let seen = seen(&req.header("X-Twice", "1").header("X-Twice", "2").header("X-Bytes", "caf\u{e9}")).await;
    assert!(seen.head.starts_with(&format!("POST {target} HTTP/1.1\r\n")), "{}", seen.head);
    assert_eq!((seen.header("Host"), seen.count("Host")), (Some("llm.test"), 1));
    assert_eq!((seen.header("X-Session-Id"), seen.header("Authorization")), (Some("my session"), Some("Bearer k")));
    assert_eq!((seen.count("X-Twice"), seen.header("X-Bytes")), (2, Some("caf\u{e9}")));
}

#[tokio::test]
async fn what_is_meant_for_the_next_hop_alone_is_stripped() {
    let req = Req::get("/").header("Connection", "keep-alive, X-Private").header("X-Private", "1");
    let req = req.header("Keep-Alive", "timeout=5").header("TE", "trailers").header("Proxy-Connection", "keep-alive");
    let req = req.header("Proxy-Authorization", "Basic k").header("Upgrade", "h2c").header("X-Public", "1");
    let seen = seen(&req).await;
    for name in ["X-Private", "Keep-Alive", "TE", "Proxy-Connection", "Proxy-Authorization", "Upgrade"] {
        assert_eq!(seen.count(name), 0, "{name}: {}", seen.head);
    }
    assert!(seen.header("Connection").is_none_or(|value| value.eq_ignore_ascii_case("keep-alive")), "{}", seen.head);
    assert_eq!(seen.header("X-Public"), Some("1"));
}

/// Pingora strips them, but is told that there is nothing to strip where `form.rs` sees nothing: it has to know each.
#[tokio::test]
async fn each_header_of_one_hop_is_stripped_if_it_is_the_only_one() {
    let (gateway, a) = one().await;
    let headers = [
        ("Connection", "close"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Authorization", "Basic k"),
        ("Proxy-Connection", "close"),
        ("TE", "trailers"),
        ("Trailer", "X-End"),
        ("Upgrade", "h2c"),
    ];
    for (index, (name, value)) in headers.into_iter().enumerate() {
        assert_eq!(gateway.send(&Req::get("/").header(name, value)).await.status, 200);
        assert_eq!(a.seen()[index].count(name), 0, "{}", a.seen()[index].head);
    }
}

#[tokio::test]
async fn a_backend_cannot_speak_for_the_gateway_nor_end_the_clients_connection() {
    let headers = "X-Ingle-Backend: evil\r\nX-Ingle-Affinity: evil\r\nConnection: close\r\n";
    let a = Scripted::start(move |_| vec![Step::Send(answer(200, headers, b"a")), Step::Close]).await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        let answer = client.send(&Req::get("/").session("s")).await;
        assert_eq!(answer.outcome(), "a home 200");
        assert!(!answer.head.contains("evil"), "{}", answer.head);
        assert!(answer.header("Connection").is_none_or(|value| !value.contains("close")), "{}", answer.head);
    }
}

#[tokio::test]
async fn a_response_header_that_connection_names_goes_no_further() {
    let head = "HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive, Content-Length\r\nX-Hop: 1\r\nX-End: 2\r\n";
    let a = Scripted::start(move |_| vec![Step::Send(format!("{head}Content-Length: 2\r\n\r\nok").into())]).await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let response = gateway.send(&Req::get("/")).await;
    assert_eq!((response.header("X-Hop"), response.header("X-End")), (None, Some("2")));
    assert_eq!(response.body, b"ok");
}

#[tokio::test]
async fn without_a_host_what_the_client_says_of_one_goes_no_further() {
    let (gateway, a) = one().await;
    let mut client = gateway.client().await;
    client.write(b"GET / HTTP/1.0\r\nX-Forwarded-Host: evil\r\n\r\n").await;
    assert!(client.rest().await.contains(" 200 "));
    let seen = &a.seen()[0];
    assert_eq!((seen.count("X-Forwarded-Host"), seen.head.contains("evil")), (0, false), "{}", seen.head);
}
