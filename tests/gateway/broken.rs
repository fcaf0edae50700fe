//! Responses that break off in the middle: counted by cause, shown, and held against a backend that does it again and again.

use std::time::Duration;

use crate::client::{CHAT, Req};
use crate::harness::{Gateway, Setup, until};
use crate::scripted::{Gate, Scripted, Step, answer, chunk, event_head};

const TEXT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";

fn post(session: &str) -> Req {
    Req::post(CHAT, b"{}").session(session)
}

/// A stream that has output, and then this.
fn stream(then: &[Step]) -> Vec<Step> {
    [&[Step::Send([event_head(), chunk(TEXT.as_bytes())].concat())], then].concat()
}

fn whole() -> Vec<Step> {
    stream(&[Step::Send(chunk(b""))])
}

async fn started(a: &Scripted, pool: &str) -> Gateway {
    let setup = Setup::new().health("interval: 50ms, unhealthy_threshold: 1000").pool(pool);
    setup.backend("a", &a.url()).start().await
}

async fn broken(gateway: &Gateway, cause: &str) -> f64 {
    gateway.metric("ingle_streams_broken_total", &[("pool", "main"), ("backend", "a"), ("cause", cause)]).await
}

/// Sends a request whose response does not come to its end.
async fn send_broken(gateway: &Gateway, session: &str) {
    let answer = gateway.send(&post(session)).await;
    assert!(answer.status == 200 && !answer.whole, "{answer:?}");
}

#[tokio::test]
async fn broken_streams_are_counted_by_cause() {
    for (steps, pool, cause) in [
        (stream(&[Step::Close]), "fail_open: true", "closed"),
        (
            stream(&[Step::Work(Duration::from_millis(100)), Step::Send(b"zz\r\n".to_vec()), Step::Hang]),
            "fail_open: true",
            "framing",
        ),
        (stream(&[Step::Hang]), "timeouts: { idle: 100ms }", "idle"),
        (stream(&[Step::Hang]), "timeouts: { total: 200ms }", "total"),
        (
            vec![Step::Send([event_head(), chunk(b": ping\n\n")].concat()), Step::Hang],
            "timeouts: { first_token: 200ms }\n    retry: { hold_head: 0s }",
            "limit",
        ),
        (
            vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec()), Step::Close],
            "fail_open: true",
            "closed",
        ),
    ] {
        let a = Scripted::start(move |_| steps.clone()).await;
        let gateway = started(&a, pool).await;
        send_broken(&gateway, "s").await;
        assert_eq!(broken(&gateway, cause).await, 1.0, "{cause}");
        assert_eq!(gateway.metric("ingle_streams_broken_total", &[]).await, 1.0, "{cause}");
        assert_eq!(gateway.backend("a").await["streams_broken"], 1);
    }
}

#[tokio::test]
async fn reset_streams_are_counted_as_such() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |_| stream(&[Step::Wait(held.clone()), Step::Reset])).await;
    let gateway = started(&a, "fail_open: true").await;
    let mut client = gateway.client().await;
    client.write(&post("s").bytes()).await;
    client.until("\"x\"").await;
    gate.open();
    client.rest().await;
    gateway.until_idle().await;
    assert_eq!(broken(&gateway, "reset").await, 1.0);
}

#[tokio::test]
async fn clients_that_leave_break_no_stream() {
    let a = Scripted::start(|_| stream(&[Step::Hang])).await;
    let gateway = started(&a, "fail_open: true").await;
    for left in 1..=3 {
        let mut client = gateway.client().await;
        client.write(&post("s").bytes()).await;
        client.until("\"x\"").await;
        drop(client);
        until("it is gone", || a.left().len() == left).await;
    }
    gateway.until_idle().await;
    assert_eq!(gateway.metric("ingle_streams_broken_total", &[]).await, 0.0);
    assert_eq!((gateway.state("a"), gateway.metric("ingle_client_aborts_total", &[]).await), ("healthy", 3.0));
}

#[tokio::test]
async fn streams_broken_in_a_row_take_a_backend_out() {
    let a = Scripted::start(|_| stream(&[Step::Close])).await;
    let b = Scripted::start(|_| whole()).await;
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let sessions = gateway.sessions_of("a", 12);
    for session in &sessions[..3] {
        send_broken(&gateway, session).await;
    }
    assert_eq!(gateway.state("a"), "unhealthy");
    let labels = [("backend", "a"), ("to", "unhealthy"), ("cause", "broken")];
    assert_eq!(gateway.metric("ingle_health_transitions_total", &labels).await, 1.0);
    let probes = a.probes();
    until("probes were good for long", || a.probes() > probes + 10).await;
    assert_eq!(gateway.state("a"), "unhealthy", "good probes are not enough");
    assert_eq!(gateway.backend("a").await["on_trial"], true);
}

#[tokio::test]
async fn whole_streams_between_broken_ones_are_a_sign_of_life() {
    let a = Scripted::start(|seen| if seen.number % 3 == 2 { whole() } else { stream(&[Step::Close]) }).await;
    let b = Scripted::start(|_| whole()).await;
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    for session in gateway.sessions_of("a", 12) {
        assert_eq!(gateway.send(&post(&session)).await.status, 200);
    }
    assert_eq!((gateway.state("a"), a.count()), ("healthy", 12));
}

#[tokio::test]
async fn backend_whose_streams_end_again_comes_back() {
    let a = Scripted::start(|seen| if seen.number < 3 { stream(&[Step::Close]) } else { whole() }).await;
    let b = Scripted::start(|_| whole()).await;
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    for session in gateway.sessions_of("a", 3) {
        send_broken(&gateway, &session).await;
    }
    let mut client = gateway.client().await;
    while gateway.state("a") != "healthy" {
        assert!(client.send(&Req::post(CHAT, b"{}")).await.whole);
    }
}

#[tokio::test]
async fn only_backend_whose_streams_break_is_used() {
    let a = Scripted::start(|_| stream(&[Step::Close])).await;
    let gateway = Setup::new().pool("fail_open: false").backend("a", &a.url()).start().await;
    for _ in 0..6 {
        send_broken(&gateway, "s").await;
    }
    assert_eq!(gateway.send(&Req::get("/v1/models")).await.status, 200);
    assert_eq!(a.count(), 7);
}

#[tokio::test]
async fn broken_response_is_no_whole_one() {
    let body = br#"{"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":0}}}"#;
    let a = Scripted::start(|_| vec![Step::Send(answer(200, "Content-Type: application/json\r\n", body))]).await;
    let gateway = started(&a, "fail_open: true").await;
    assert!(gateway.send(&post("s")).await.whole);
    assert_eq!(gateway.metric("ingle_streams_broken_total", &[]).await, 0.0);
}
