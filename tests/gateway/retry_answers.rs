//! 503, 502 and 429: whose answer the client gets. How many attempts the budget allows.

use crate::client::Req;
use crate::harness::{Gateway, Setup, sims};
use crate::scripted::{Scripted, Step, answer, chunk, event_head};

/// Never unhealthy, never probed again: only the retry table speaks.
const UNSHAKEN: &str = "interval: 1h, unhealthy_threshold: 1000";

fn post(session: &str) -> Req {
    Req::post("/v1/chat/completions", b"{}").session(session)
}

async fn answering(status: u16, headers: &'static str, body: &'static str) -> Scripted {
    Scripted::start(move |_| vec![Step::Send(answer(status, headers, body.as_bytes()))]).await
}

async fn gateway(backends: &[(&str, &Scripted)]) -> Gateway {
    let setup = Setup::new().health(UNSHAKEN);
    backends.iter().fold(setup, |setup, (name, backend)| setup.backend(name, &backend.url())).start().await
}

#[tokio::test]
async fn not_now_is_asked_elsewhere() {
    for status in [503, 502, 429] {
        let (a, b) = (answering(status, "", "not now").await, Scripted::ok("b").await);
        let gateway = gateway(&[("a", &a), ("b", &b)]).await;
        let answer = gateway.send(&post(&gateway.session_of("a"))).await;
        assert_eq!((answer.outcome().as_str(), answer.text().as_str()), ("b failover 200", "b"));
        assert_eq!(gateway.metric("ingle_retries_total", &[("reason", "status")]).await, 1.0);
        let code = [("backend", "b"), ("affinity", "failover"), ("code", "2xx")];
        assert_eq!(gateway.metric("ingle_requests_total", &code).await, 1.0);
        assert_eq!(gateway.metric("ingle_requests_total", &[]).await, 1.0, "a client's request counts once");
    }
}

#[tokio::test]
async fn when_all_say_not_now_the_last_answer_passes_verbatim() {
    for status in [503, 502, 429] {
        let a = answering(status, "Retry-After: 7\r\nX-Of: a\r\n", "a is busy").await;
        let b = answering(status, "Retry-After: 9\r\nX-Of: b\r\n", "b is busy").await;
        let gateway = gateway(&[("a", &a), ("b", &b)]).await;
        let answer = gateway.send(&post(&gateway.session_of("a"))).await;
        assert_eq!(
            (answer.outcome().as_str(), answer.text().as_str()),
            (&*format!("b failover {status}"), "b is busy")
        );
        assert_eq!((answer.header("Retry-After"), answer.header("X-Of")), (Some("9"), Some("b")));
        assert_eq!((a.count(), b.count()), (1, 1));
    }
}

#[tokio::test]
async fn the_answer_of_the_only_backend_passes_verbatim() {
    for status in [400, 404, 429, 500, 502, 503, 504] {
        let a = answering(status, "Retry-After: 7\r\n", "{\"error\":\"mine\"}").await;
        let gateway = gateway(&[("a", &a)]).await;
        let answer = gateway.send(&post("s")).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, "{\"error\":\"mine\"}"));
        assert_eq!(answer.header("Retry-After"), Some("7"));
        assert_eq!(a.count(), 1);
    }
}

#[tokio::test]
async fn other_errors_are_answers() {
    for status in [400, 404, 500, 501, 504] {
        let (a, b) = (answering(status, "", "mine").await, Scripted::ok("b").await);
        let gateway = gateway(&[("a", &a), ("b", &b)]).await;
        assert_eq!(gateway.send(&post(&gateway.session_of("a"))).await.outcome(), format!("a home {status}"));
        assert_eq!(b.count(), 0);
    }
}

#[tokio::test]
async fn a_session_that_was_turned_away_everywhere_goes_home_again() {
    let (a, b) = (answering(503, "", "a").await, answering(503, "", "b").await);
    let gateway = gateway(&[("a", &a), ("b", &b)]).await;
    let session = gateway.session_of("a");
    gateway.send(&post(&session)).await;
    gateway.send(&post(&session)).await;
    assert_eq!((a.count(), b.count()), (2, 2), "each began at home");
    assert_eq!(gateway.metric("ingle_displaced_sessions", &[]).await, 0.0);
}

#[tokio::test]
async fn when_the_next_one_cannot_be_reached_the_wait_that_the_first_asked_for_survives() {
    let sims = sims(1).await;
    let b = answering(503, "Retry-After: 7\r\n", "loading").await;
    let setup = Setup::new().health(UNSHAKEN).sims(&sims).backend("b", &b.url());
    let gateway = setup.start().await;
    sims[0].kill().await;
    let answer = gateway.send(&post(&gateway.session_of("b"))).await;
    assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("7")));
    assert_eq!(answer.code(), "no_backend_available");
}

/// Sends until one is not answered by `b`; how many were.
async fn retried(gateway: &Gateway, session: &str) -> (usize, crate::client::Answer) {
    let mut client = gateway.client().await;
    for count in 0..500 {
        let answer = client.send(&post(session)).await;
        if answer.backend() != "b" {
            return (count, answer);
        }
    }
    panic!("the budget has no end");
}

/// Its first event is an error: a retry for that costs budget.
async fn failing() -> Scripted {
    let event = b"data: {\"error\":{\"code\":503,\"message\":\"Loading model\"}}\n\n";
    Scripted::start(move |_| vec![Step::Send([event_head(), chunk(event), chunk(b"")].concat())]).await
}

#[tokio::test]
async fn the_budget_has_a_floor_of_ten() {
    let (a, b) = (failing().await, Scripted::ok("b").await);
    let setup = Setup::new().health(UNSHAKEN).backend("a", &a.url()).backend("b", &b.url());
    // Each session fails over once: it stays then where it was answered.
    let gateway = setup.top("affinity: { return_home: immediately }").pool("retry: { budget: 0% }").start().await;
    let (count, answer) = retried(&gateway, &gateway.session_of("a")).await;
    assert_eq!((count, answer.status, answer.code().as_str()), (10, 503, "no_backend_available"));
    assert_eq!(
        (&answer.json()["error"]["message"], answer.header("Retry-After")),
        (&"Loading model".into(), Some("2"))
    );
    assert_eq!(gateway.metric("ingle_retries_total", &[("reason", "error_event")]).await, 10.0);
}

#[tokio::test]
async fn an_answer_that_the_budget_keeps_from_being_retried_passes_verbatim() {
    let (a, b) = (answering(503, "Retry-After: 7\r\n", "a is loading").await, Scripted::ok("b").await);
    let setup = Setup::new().health(UNSHAKEN).backend("a", &a.url()).backend("b", &b.url());
    let gateway = setup.top("affinity: { return_home: immediately }").pool("retry: { budget: 0% }").start().await;
    let (count, answer) = retried(&gateway, &gateway.session_of("a")).await;
    assert_eq!(count, 10);
    assert_eq!((answer.outcome().as_str(), answer.text().as_str()), ("a home 503", "a is loading"));
    assert_eq!(answer.header("Retry-After"), Some("7"));
    assert_eq!(gateway.metric("ingle_retries_total", &[("reason", "status")]).await, 10.0);
}

#[tokio::test]
async fn the_budget_is_a_share_of_recent_requests() {
    let (a, b) = (failing().await, Scripted::ok("b").await);
    let setup = Setup::new().health(UNSHAKEN).backend("a", &a.url()).backend("b", &b.url());
    let gateway = setup.top("affinity: { return_home: immediately }").pool("retry: { budget: 50% }").start().await;
    let mut client = gateway.client().await;
    let at_b = gateway.session_of("b");
    for _ in 0..60 {
        assert_eq!(client.send(&post(&at_b)).await.outcome(), "b home 200");
    }
    // The request that is retried counts itself: r retries are allowed while r <= (60 + r) / 2.
    assert_eq!(retried(&gateway, &gateway.session_of("a")).await.0, 60);
}

#[tokio::test]
async fn a_refused_connection_takes_nothing_from_the_budget() {
    let sims = sims(2).await;
    let setup = Setup::new().health(UNSHAKEN).sims(&sims).pool("retry: { budget: 0% }");
    let gateway = setup.top("affinity: { return_home: immediately }").start().await;
    sims[0].kill().await;
    let req = Req::chat("hello", 2, false).session(&gateway.session_of("a"));
    for _ in 0..25 {
        assert_eq!(gateway.send(&req).await.outcome(), "b failover 200");
    }
    assert_eq!(gateway.metric("ingle_retries_total", &[("reason", "connect")]).await, 25.0);
}
