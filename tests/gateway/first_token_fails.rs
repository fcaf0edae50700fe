//! When no backend produces output in time, or at all: statuses, time limits, health.

use crate::client::{CHAT, Req};
use crate::harness::{Gateway, Setup, nobody, until};
use crate::scripted::{Gate, Scripted, Step, answer, chunk, event_head};

const UNSHAKEN: &str = "interval: 1h, unhealthy_threshold: 1000";
const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n";
const TEXT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";

fn post(session: &str) -> Req {
    Req::post(CHAT, b"{}").session(session)
}

fn events(parts: &[&str]) -> Step {
    Step::Send(parts.iter().flat_map(|part| chunk(part.as_bytes())).collect())
}

async fn after_head(steps: Vec<Step>) -> Scripted {
    Scripted::start(move |_| [&[Step::Send(event_head())], &steps[..]].concat()).await
}

async fn started(backends: &[&Scripted], pool: &str) -> Gateway {
    let setup = Setup::new().health(UNSHAKEN).pool(pool);
    let named = ["a", "b", "c"].iter().zip(backends);
    named.fold(setup, |setup, (name, backend)| setup.backend(name, &backend.url())).start().await
}

fn error_event(code: u16, message: &str) -> Step {
    events(&[&format!("data: {{\"error\":{{\"code\":{code},\"message\":\"{message}\"}}}}\n\n"), ""])
}

#[tokio::test]
async fn after_heads_the_answer_is_503_with_a_message() {
    for (steps, status, code, message) in [
        (
            vec![Step::Close],
            503,
            "backend_failed",
            "Every backend that was tried failed before the first token; try again. Cause: the backend closed the connection.",
        ),
        (vec![error_event(503, "Loading model")], 503, "no_backend_available", "Loading model"),
        (vec![error_event(429, "Slow down")], 429, "backend_busy", "Slow down"),
    ] {
        let (a, b) = (after_head(steps.clone()).await, after_head(steps).await);
        let gateway = started(&[&a, &b], "fail_open: true").await;
        let answer = gateway.send(&post("s")).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert_eq!((&answer.json()["error"]["message"], answer.header("Retry-After")), (&message.into(), Some("2")));
        assert_eq!((a.count(), b.count()), (1, 1));

        let req = Req::post("/v1/messages?beta=true", b"{}").header("X-Request-Id", "mine");
        let answer = gateway.send(&req).await;
        let json = answer.json();
        let kind = if status == 429 { "rate_limit_error" } else { "overloaded_error" };
        assert_eq!((answer.status, &json["error"]["type"], &json["type"]), (status, &kind.into(), &"error".into()));
        assert_eq!((&json["error"]["message"], &json["request_id"]), (&message.into(), &"mine".into()));
    }
}

#[tokio::test]
async fn without_a_byte_the_answer_is_502_and_can_be_tried_again() {
    let setup = Setup::new().health(UNSHAKEN).backend("a", &nobody()).backend("b", &nobody());
    let gateway = setup.start_cold().await;
    until("both were probed", || gateway.inner.probed()).await;
    let answer = gateway.send(&post("s")).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "backend_failed"));
    assert_eq!(answer.header("Retry-After"), Some("2"));
}

#[tokio::test]
async fn first_token_limit_moves_the_request_and_then_is_504() {
    let slow = || after_head(vec![events(&[": ping\n\n", ROLE]), Step::Hang]);
    let (a, b) = (slow().await, slow().await);
    let gateway = started(&[&a, &b], "timeouts: { first_token: 200ms, first_byte: 100ms }").await;
    let answer = gateway.send(&post("s")).await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "backend_timeout"));
    assert_eq!(gateway.metric("ingle_retries_total", &[("reason", "first_token")]).await, 1.0);
    assert_eq!(
        (gateway.backend("a").await["last_error"].clone(), gateway.state("a")),
        ("no first token within 200ms (timeouts.first_token)".into(), "healthy")
    );
    gateway.until_idle().await;
}

#[tokio::test]
async fn first_token_limit_counts_against_a_backend_only_while_others_produce() {
    let gate = Gate::new();
    let held = gate.clone();
    let slow = || after_head(vec![events(&[ROLE]), Step::Hang]);
    let flowing = after_head(vec![events(&[TEXT]), Step::Wait(held.clone()), events(&[TEXT]), Step::Wait(held)]).await;
    let (a, b) = (slow().await, slow().await);
    let setup = Setup::new().health("interval: 1h, unhealthy_threshold: 1").pool("timeouts: { first_token: 300ms }");
    let setup = setup.backend("a", &a.url()).backend("b", &b.url()).backend("c", &flowing.url());
    let gateway = setup.pool("retry: { max_attempts: 1 }").start().await;
    assert_eq!(gateway.send(&post(&gateway.session_of("a"))).await.status, 504);
    assert_eq!(gateway.state("a"), "healthy", "nothing else was produced: all are busy");

    let mut stream = gateway.client().await;
    stream.write(&post(&gateway.session_of("c")).bytes()).await;
    stream.until("\"x\"").await;
    let (req, mut client) = (post(&gateway.session_of("b")), gateway.client().await);
    client.write(&req.bytes()).await;
    until("b has the request", || b.count() == 1).await;
    // Milliseconds are the grain of the clock.
    let now = gateway.inner.clock.now();
    until("the clock has moved", || gateway.inner.clock.now() > now + 5).await;
    gate.open();
    assert_eq!(client.answer().await.status, 504);
    assert_eq!(gateway.state("b"), "unhealthy", "c has produced meanwhile");
}

/// A head is no sign of life: the backend is found dead, and the request is rescued.
#[tokio::test]
async fn stream_without_output_leaves_a_frozen_backend() {
    let head = || after_head(vec![events(&[": ping\n\n", ROLE]), Step::Hang]);
    let b = after_head(vec![events(&[ROLE, TEXT, "data: [DONE]\n\n", ""])]).await;
    for pool in ["fail_open: true", "retry: { hold_head: 0s }"] {
        let a = head().await;
        let setup = Setup::new().unbounded().backend("a", &a.url()).backend("b", &b.url()).pool(pool);
        let gateway = setup.start().await;
        let mut clients = Vec::new();
        // More than the floor of the retry budget: one dead GPU can strand many.
        for session in gateway.sessions_of("a", 32) {
            let mut client = gateway.client().await;
            client.write(&post(&session).bytes()).await;
            clients.push(client);
        }
        until("all wait at a", || a.count() == 32).await;
        a.set_health(500);
        for mut client in clients {
            let answer = client.answer().await;
            assert!(answer.whole && answer.text().ends_with(&[ROLE, TEXT, "data: [DONE]\n\n"].concat()), "{answer:?}");
        }
        assert_eq!(gateway.metric("ingle_retries_total", &[("reason", "unhealthy")]).await, 32.0);
        gateway.until_idle().await;
    }
}

/// `timeouts.idle` is for streams that flow: a prefill can take longer.
#[tokio::test]
async fn idle_limit_starts_with_the_first_output() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = after_head(vec![events(&[ROLE]), Step::Wait(held), events(&[TEXT]), Step::Hang]).await;
    let gateway = started(&[&a], "timeouts: { idle: 200ms }").await;
    let mut client = gateway.client().await;
    client.write(&post("s").bytes()).await;
    until("a has the request", || a.count() == 1).await;
    let swept = gateway.inner.clock.now() + 700;
    until("three idle times have passed", || gateway.inner.clock.now() > swept).await;
    gate.open();
    client.head().await;
    assert_eq!(client.chunk().await.unwrap(), [ROLE, TEXT].concat().as_bytes());
    assert_eq!(client.chunk().await, None, "cut after the idle time");
}

#[tokio::test]
async fn retries_of_time_limits_cost_budget_and_deaths_do_not() {
    let (a, b) = (after_head(vec![Step::Close]).await, after_head(vec![events(&[TEXT, ""])]).await);
    let setup = Setup::new().health(UNSHAKEN).backend("a", &a.url()).backend("b", &b.url());
    let gateway = setup.top("affinity: { return_home: immediately }").pool("retry: { budget: 0% }").start().await;
    let mut client = gateway.client().await;
    for _ in 0..25 {
        assert_eq!(client.send(&post(&gateway.session_of("a"))).await.outcome(), "b failover 200");
    }
    assert_eq!(gateway.metric("ingle_retries_total", &[("reason", "died_before_token")]).await, 25.0);
}

#[tokio::test]
async fn websocket_at_responses_is_refused_where_the_server_has_none() {
    let a = Scripted::start(|_| vec![Step::Send(answer(404, "", b""))]).await;
    let upgrade = |path| {
        let req = Req::get(path).header("Connection", "Upgrade").header("Upgrade", "websocket");
        req.header("Sec-WebSocket-Key", "x").header("Sec-WebSocket-Version", "13")
    };
    for (server, status) in [("llama_server", 426), ("vllm", 426), ("generic", 404)] {
        let setup = Setup::new().backend_with("a", &a.url(), &format!("server: {server}"));
        let gateway = setup.start().await;
        assert_eq!(gateway.send(&upgrade("/v1/responses")).await.status, status, "{server}");
        assert_eq!(gateway.send(&upgrade("/v1/realtime")).await.status, 404, "{server}");
    }
}

#[tokio::test]
async fn control_characters_in_the_target_are_refused() {
    let a = Scripted::ok("a").await;
    let gateway = started(&[&a], "fail_open: true").await;
    for byte in (0u8..32).chain([127]).filter(|byte| !b"\t\n\r ".contains(byte)) {
        let mut client = gateway.client().await;
        client.write(&[b"GET /a", &[byte][..], b"b HTTP/1.1\r\nHost: x\r\n\r\n"].concat()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("Server")), (400, None), "{byte}: {answer:?}");
    }
    assert_eq!(a.count(), 0);
    assert_eq!(gateway.send(&Req::get("/a%00b")).await.status, 200, "what is encoded is the backend's matter");
}
