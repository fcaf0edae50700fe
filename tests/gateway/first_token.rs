//! Streams before their first output: what the client sees of them, and where the request goes when they fail.

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::client::{CHAT, Client, Req, header_of};
use crate::h2c::H2c;
use crate::harness::{Gateway, PATIENCE, Setup, until};
use crate::scripted::{Gate, Scripted, Step, answer, chunk, event_head};

/// Never unhealthy by probes: only the stream itself counts.
const UNSHAKEN: &str = "interval: 1h, unhealthy_threshold: 1000";

const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n";
const TEXT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const LOADING: &str =
    "data: {\"error\":{\"code\":503,\"message\":\"Loading model\",\"type\":\"unavailable_error\"}}\n\n";

fn post(session: &str) -> Req {
    Req::post(CHAT, b"{}").session(session)
}

fn events(parts: &[&str]) -> Step {
    Step::Send(parts.iter().flat_map(|part| chunk(part.as_bytes())).collect())
}

/// What a failing backend does after the head of its stream.
async fn after_head(steps: Vec<Step>) -> Scripted {
    Scripted::start(move |_| [&[Step::Send(event_head())], &steps[..]].concat()).await
}

async fn good() -> Scripted {
    after_head(vec![events(&[ROLE, TEXT, DONE, ""])]).await
}

/// `a` is the home of the session that is returned.
async fn gateway(a: &Scripted, b: &Scripted, pool: &str) -> (Gateway, String) {
    let setup = Setup::new().health(UNSHAKEN).backend("a", &a.url()).backend("b", &b.url());
    let gateway = if pool.is_empty() { setup } else { setup.pool(pool) }.start().await;
    let session = gateway.session_of("a");
    (gateway, session)
}

/// Ways to fail between the head and the first output, and the reason of the retry.
fn failures() -> Vec<(Vec<Step>, &'static str)> {
    let ping = || events(&[": ping\n\n", ROLE, ": p"]);
    vec![
        (vec![Step::Close], "died_before_token"),
        (vec![ping(), Step::Close], "died_before_token"),
        (vec![events(&[""])], "died_before_token"),
        (vec![events(&[ROLE, ""])], "died_before_token"),
        (vec![events(&[LOADING, ""])], "error_event"),
        (vec![events(&[ROLE, LOADING]), Step::Hang], "error_event"),
        (
            vec![events(&["event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n"])],
            "error_event",
        ),
        (vec![events(&["data: {\"error\":{\"code\":500,\"type\":\"server_error\"}}\n\n"])], "error_event"),
    ]
}

#[tokio::test]
async fn stream_that_fails_before_its_first_token_is_served_by_another() {
    for (steps, reason) in failures() {
        let (a, b) = (after_head(steps).await, good().await);
        let (gateway, session) = gateway(&a, &b, "").await;
        let answer = gateway.send(&post(&session)).await;
        assert_eq!((answer.outcome().as_str(), answer.whole), ("b failover 200", true), "{reason}");
        assert_eq!(answer.text(), [ROLE, TEXT, DONE].concat(), "nothing of the failed attempt");
        assert_eq!(gateway.metric("ingle_retries_total", &[("reason", reason)]).await, 1.0, "{reason}");
        assert_eq!(gateway.metric("ingle_streams_resumed_total", &[]).await, 0.0, "its head was not out");
        assert!(gateway.backend("a").await["last_error"].is_string());

        // By now the session stays at b.
        let http2 = H2c::connect(gateway.address).await;
        let answer = http2.send(&post(&gateway.sessions_of("a", 2)[1]), true).await;
        assert_eq!(
            (answer.status(), answer.headers()["x-ingle-backend"].to_str().unwrap()),
            (200.try_into().unwrap(), "b")
        );
        assert_eq!(answer.body(), [ROLE, TEXT, DONE].concat().as_bytes());
        gateway.until_idle().await;
    }
}

/// A reset can overtake the head.
#[tokio::test]
async fn stream_that_is_reset_or_malformed_is_served_by_another() {
    let malformed = vec![Step::Send(b"zz\r\n".to_vec()), Step::Hang];
    for steps in [malformed, vec![Step::Reset], vec![events(&[": ping\n\n", ROLE]), Step::Reset]] {
        let (a, b) = (after_head(steps).await, good().await);
        let (gateway, session) = gateway(&a, &b, "").await;
        let answer = gateway.send(&post(&session)).await;
        assert_eq!((answer.outcome().as_str(), answer.whole), ("b failover 200", true));
        assert_eq!(answer.text(), [ROLE, TEXT, DONE].concat());
    }
}

#[tokio::test]
async fn head_and_events_without_output_wait_for_the_first_output() {
    let gate = Gate::new();
    let held = gate.clone();
    let steps = vec![events(&[": ping\n\n", ROLE]), Step::Wait(held), events(&[TEXT, DONE, ""])];
    let (a, b) = (after_head(steps).await, good().await);
    let (gateway, session) = gateway(&a, &b, "").await;
    let mut client = gateway.client().await;
    client.write(&post(&session).bytes()).await;
    until("a has the request", || a.count() == 1).await;
    // An answer on another connection is later than anything that was sent before on this one.
    gateway.send(&Req::get("/").session(&gateway.session_of("b"))).await;
    assert_eq!(client.stream.try_read(&mut [0; 10]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    gate.open();
    let answer = client.answer().await;
    assert_eq!((answer.outcome().as_str(), answer.whole), ("a home 200", true));
    assert_eq!(answer.text(), [": ping\n\n", ROLE, TEXT, DONE].concat());
}

#[tokio::test]
async fn after_hold_head_comments_pass_and_another_backend_continues() {
    let gates = [Gate::new(), Gate::new()];
    let [first, second] = gates.clone();
    let steps = vec![
        Step::Wait(first),
        events(&[": a\n\n", "data: {\"choices\":[],\"prompt_progress\":{\"processed\":1}}\n\n", ROLE, ": b\n\n: c"]),
        Step::Wait(second),
        Step::Reset,
    ];
    let a = after_head(steps).await;
    let b = after_head(vec![events(&["\u{feff}: d\n\n", ROLE]), events(&[TEXT, DONE, ""])]).await;
    let (gateway, session) = gateway(&a, &b, "retry: { hold_head: 0s }").await;
    let mut client = gateway.client().await;
    client.write(&post(&session).bytes()).await;
    let head = client.head().await;
    assert_eq!(header_of(&head, "X-Ingle-Backend"), Some("a"), "the head was sent before anything else came");
    gates[0].open();
    let progress = "data: {\"choices\":[],\"prompt_progress\":{\"processed\":1}}\n\n";
    client.until("\"processed\":1}}\n\n").await;
    gates[1].open();
    let mut body = Vec::new();
    while let Some(piece) = client.chunk().await.filter(|piece| !piece.is_empty()) {
        body.extend(piece);
    }
    let expected = [": a\n\n", progress, ": d\n\n", ROLE, TEXT, DONE].concat();
    assert_eq!(String::from_utf8(body).unwrap(), expected, "one stream, without a byte order mark in its middle");
    assert_eq!(gateway.metric("ingle_streams_resumed_total", &[]).await, 1.0);
    let of_b = [("backend", "b"), ("affinity", "failover")];
    assert_eq!(gateway.metric("ingle_time_to_first_token_seconds_count", &of_b).await, 1.0);
    assert_eq!(gateway.metric("ingle_time_to_first_token_seconds_count", &[("backend", "a")]).await, 0.0);
    // The connection can be used again.
    assert_eq!(client.send(&Req::get("/").session(&session)).await.status, 200);
    gateway.until_idle().await;
}

#[tokio::test]
async fn http2_stream_is_continued_after_its_head() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = after_head(vec![events(&[": a\n\n", ROLE]), Step::Wait(held), Step::Close]).await;
    let b = good().await;
    let (gateway, session) = gateway(&a, &b, "retry: { hold_head: 0s }").await;
    let http2 = H2c::connect(gateway.address).await;
    let (head, mut body) = http2.begin(&post(&session)).await.into_parts();
    assert_eq!((head.status.as_u16(), head.headers["x-ingle-backend"].to_str().unwrap()), (200, "a"));
    let mut all = Vec::new();
    while let Some(piece) = tokio::time::timeout(PATIENCE, body.data()).await.expect("data") {
        let piece: Bytes = piece.expect("no error");
        body.flow_control().release_capacity(piece.len()).unwrap();
        all.extend(piece);
        if all == b": a\n\n" {
            gate.open();
        }
    }
    assert_eq!(String::from_utf8(all).unwrap(), [": a\n\n", ROLE, TEXT, DONE].concat());
}

#[tokio::test]
async fn hold_head_runs_once_from_the_first_head() {
    let hang = || vec![events(&[ROLE]), Step::Hang];
    let (a, b) = (after_head(hang()).await, after_head(hang()).await);
    let (gateway, session) = gateway(&a, &b, "retry: { hold_head: 300ms }").await;
    let mut client = gateway.client().await;
    client.write(&post(&session).bytes()).await;
    let begun = std::time::Instant::now();
    let head = client.head().await;
    assert_eq!(header_of(&head, "X-Ingle-Backend"), Some("a"));
    assert!(begun.elapsed().as_millis() >= 250, "held");
    assert_eq!(client.buffer.len(), 0, "events are held");
}

/// What a client gets that has the head and then no backend: one event, and a connection that breaks.
#[tokio::test]
async fn stream_that_nobody_continues_ends_with_an_error_event_and_breaks() {
    let broken = || after_head(vec![events(&[": a\n\n", ROLE]), Step::Close]);
    let (a, b) = (broken().await, broken().await);
    let (gateway, session) = gateway(&a, &b, "retry: { hold_head: 0s }").await;
    for (path, start) in [
        (CHAT, ": a\n\n: a\n\ndata: {\"error\":{\"code\":\"backend_failed\",\"message\":\"Every"),
        ("/v1/messages", ": a\n\n: a\n\nevent: error\ndata: {\"error\":{\"message\":\"Every"),
        ("/v1/responses", ": a\n\n: a\n\nevent: error\ndata: {\"code\":\"backend_failed\",\"error\":{\"code\""),
    ] {
        let req = Req::post(path, b"{}").session(&session).header("X-Request-Id", "mine");
        let answer = gateway.send(&req).await;
        assert_eq!((answer.status, answer.whole), (200, false), "{path}");
        assert!(answer.text().starts_with(start) && answer.text().ends_with("}\n\n"), "{path}: {}", answer.text());
        assert_eq!(answer.text().matches("error\":{").count(), 1);
        if path == "/v1/messages" {
            assert!(
                answer.text().contains("\"type\":\"overloaded_error\"},\"request_id\":\"mine\""),
                "{}",
                answer.text()
            );
        }
        let http2 = H2c::connect(gateway.address).await;
        let mut body = http2.begin(&req).await.into_body();
        let mut all = Vec::new();
        let error = loop {
            match tokio::time::timeout(PATIENCE, body.data()).await.expect("data") {
                Some(Ok(piece)) => all.extend(piece),
                Some(Err(error)) => break error.reason(),
                None => panic!("a clean end"),
            }
        };
        assert_eq!((all, error), (answer.body, Some(h2::Reason::INTERNAL_ERROR)), "{path}");
    }
    gateway.until_idle().await;
}

#[tokio::test]
async fn http10_stream_that_breaks_is_reset() {
    for steps in [vec![events(&[": a\n\n"]), Step::Close], vec![events(&[ROLE, TEXT]), Step::Close]] {
        let (a, b) = (after_head(steps.clone()).await, after_head(steps).await);
        let (gateway, session) = gateway(&a, &b, "retry: { hold_head: 0s }").await;
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let mut client = Client::over(stream);
        client
            .write(
                format!("POST {CHAT} HTTP/1.0\r\nX-Session-Id: {session}\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes(),
            )
            .await;
        assert_eq!(header_of(&client.head().await, "Transfer-Encoding"), None);
        let error = loop {
            let mut buffer = [0; 1000];
            match tokio::time::timeout(PATIENCE, tokio::io::AsyncReadExt::read(&mut client.stream, &mut buffer))
                .await
                .unwrap()
            {
                Ok(0) => panic!("a clean end"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn answer_that_is_no_stream_ends_a_stream_whose_head_was_sent() {
    let refusal = br#"{"error":{"message":"The prompt is too long.","code":400}}"#;
    for (status, body, message) in [
        (400, &refusal[..], "The prompt is too long."),
        (200, b"{}", "The backend that was to continue the stream answered without one."),
    ] {
        let a = after_head(vec![Step::Close]).await;
        let b = Scripted::start(move |_| vec![Step::Send(answer(status, "Content-Type: application/json\r\n", body))])
            .await;
        let (gateway, session) = gateway(&a, &b, "retry: { hold_head: 0s }").await;
        let answer = gateway.send(&post(&session)).await;
        assert_eq!((answer.status, answer.whole), (200, false));
        assert!(answer.text().contains(&format!("\"message\":\"{message}\"")), "{}", answer.text());
    }
}

#[tokio::test]
async fn after_the_head_any_server_error_is_asked_elsewhere() {
    for status in [429, 500, 502, 503, 504] {
        let a = after_head(vec![Step::Close]).await;
        let b = Scripted::start(move |_| vec![Step::Send(answer(status, "", b"{\"error\":\"busy\"}"))]).await;
        let c = good().await;
        let setup = Setup::new().health(UNSHAKEN).backend("a", &a.url()).backend_with("b", &b.url(), "priority: 1");
        let setup = setup.backend_with("c", &c.url(), "priority: 2").pool("retry: { hold_head: 0s }");
        let gateway = setup.start().await;
        // The next tier serves only while the lower one is out of reach, as it is for a request that was there.
        let answer = gateway.send(&post("s")).await;
        assert_eq!((answer.backend(), answer.whole), ("a", true), "{status}: {}", answer.text());
        assert_eq!((a.count(), b.count(), c.count()), (1, 1, 1));
        assert_eq!(answer.text(), [ROLE, TEXT, DONE].concat());
    }
}

/// `retry.until: first_byte` is what a gateway does that does not look into streams.
#[tokio::test]
async fn until_first_byte_passes_everything_at_once() {
    let gate = Gate::new();
    let held = gate.clone();
    let (a, b) = (after_head(vec![events(&[ROLE]), Step::Wait(held), Step::Close]).await, good().await);
    let (gateway, session) = gateway(&a, &b, "retry: { until: first_byte }").await;
    let mut client = gateway.client().await;
    client.write(&post(&session).bytes()).await;
    client.head().await;
    assert_eq!(client.chunk().await.unwrap(), ROLE.as_bytes());
    gate.open();
    assert_eq!((client.chunk().await, b.count()), (None, 0));
}

#[tokio::test]
async fn error_that_is_an_answer_passes() {
    for event in [
        "data: {\"error\":{\"code\":400,\"message\":\"too long\"}}\n\n",
        "data: {\"error\":{\"message\":\"odd\"}}\n\n",
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\"}}\n\n",
    ] {
        let (a, b) = (after_head(vec![events(&[event, ""])]).await, good().await);
        let (gateway, session) = gateway(&a, &b, "").await;
        let answer = gateway.send(&post(&session)).await;
        assert_eq!((answer.outcome().as_str(), answer.text().as_str()), ("a home 200", event));
    }
}

#[tokio::test]
async fn failure_of_the_server_itself_is_retried_once() {
    let event = "data: {\"error\":{\"code\":500,\"message\":\"CUDA error\",\"type\":\"server_error\"}}\n\n";
    let failing = || after_head(vec![events(&[event, ""])]);
    let (a, b, c) = (failing().await, failing().await, failing().await);
    let setup = Setup::new().health(UNSHAKEN).backend("a", &a.url()).backend("b", &b.url()).backend("c", &c.url());
    let gateway = setup.start().await;
    let answer = gateway.send(&post(&gateway.session_of("a"))).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_backend_available"));
    assert_eq!(answer.json()["error"]["message"], "CUDA error");
    assert_eq!(a.count() + b.count() + c.count(), 2);
}

#[tokio::test]
async fn output_that_is_sent_is_never_retried() {
    let (a, b) = (after_head(vec![events(&[ROLE, TEXT]), Step::Close]).await, good().await);
    let (gateway, session) = gateway(&a, &b, "").await;
    let answer = gateway.send(&post(&session)).await;
    assert_eq!((answer.outcome().as_str(), answer.whole, b.count()), ("a home 200", false, 0));
    assert_eq!(answer.text(), [ROLE, TEXT].concat());
}

/// After the first output, the chunks of the backend pass as they are, trailers included.
#[tokio::test]
async fn chunks_after_the_first_output_pass_unchanged() {
    let gate = Gate::new();
    let held = gate.clone();
    let rest = b"3;x=1\r\nabc\r\n00\r\nX-Sum: 1\r\n\r\n".to_vec();
    let a = after_head(vec![events(&[ROLE, TEXT]), Step::Wait(held), Step::Send(rest)]).await;
    let b = good().await;
    let (gateway, session) = gateway(&a, &b, "").await;
    let mut client = gateway.client().await;
    client.write(&post(&session).bytes()).await;
    client.head().await;
    assert_eq!(client.chunk().await.unwrap(), [ROLE, TEXT].concat().as_bytes());
    gate.open();
    client.until("X-Sum: 1\r\n\r\n").await;
    assert_eq!(&client.buffer[..], b"3;x=1\r\nabc\r\n00\r\nX-Sum: 1\r\n\r\n");
}

/// Bodies of other framings end as their backend ends them.
#[tokio::test]
async fn streams_of_every_framing_pass_whole() {
    let body = [ROLE, TEXT, DONE].concat();
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".to_owned(),
        "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream\r\nContent-Length: {}\r\n\r\n", body.len()),
    ] {
        let script = vec![Step::Send(head.into_bytes()), Step::Send(body.clone().into_bytes()), Step::Close];
        let a = Scripted::start(move |_| script.clone()).await;
        let b = good().await;
        let (gateway, session) = gateway(&a, &b, "").await;
        let answer = gateway.send(&post(&session)).await;
        assert_eq!((answer.outcome().as_str(), answer.whole, answer.text().as_str()), ("a home 200", true, &*body));
        let http2 = H2c::connect(gateway.address).await;
        assert_eq!(*http2.send(&post(&session), true).await.body(), body.as_bytes());
    }
}

#[tokio::test]
async fn much_without_output_counts_as_started() {
    let gate = Gate::new();
    let held = gate.clone();
    let many = ROLE.repeat(600_000 / ROLE.len());
    let a = after_head(vec![events(&[&many]), Step::Wait(held), Step::Close]).await;
    let b = good().await;
    let (gateway, session) = gateway(&a, &b, "").await;
    let mut client = gateway.client().await;
    client.write(&post(&session).bytes()).await;
    client.head().await;
    gate.open();
    while client.chunk().await.is_some() {}
    assert_eq!(b.count(), 0);
    gateway.until_idle().await;
}

#[tokio::test]
async fn client_that_leaves_before_the_first_output_ends_the_work() {
    for pool in ["", "retry: { hold_head: 0s }"] {
        let (a, b) = (after_head(vec![events(&[": a\n\n", ROLE]), Step::Hang]).await, good().await);
        let (gateway, session) = gateway(&a, &b, pool).await;
        let mut client = gateway.client().await;
        client.write(&post(&session).bytes()).await;
        until("a has the request", || a.count() == 1).await;
        drop(client);
        until("a's connection is closed", || a.left().len() == 1).await;
        gateway.until_idle().await;
        assert_eq!(gateway.metric("ingle_client_aborts_total", &[("phase", "waiting")]).await, 1.0);
        assert_eq!((b.count(), gateway.state("a")), (0, "healthy"));
    }
}

/// A session is where its first output came from: a backend that sends a head and closes keeps none.
#[tokio::test]
async fn session_stays_where_its_first_output_came_from() {
    let (a, b, c) = (after_head(vec![Step::Close]).await, after_head(vec![Step::Close]).await, good().await);
    let setup = Setup::new().health(UNSHAKEN).backend("a", &a.url()).backend("b", &b.url()).backend("c", &c.url());
    let gateway = setup.start().await;
    let session = gateway.session_of("a");
    for turn in 0..3 {
        let answer = gateway.send(&post(&session)).await;
        let affinity = if turn == 0 { "failover" } else { "stayed" };
        assert_eq!(answer.outcome(), format!("c {affinity} 200"), "turn {turn}");
    }
    assert_eq!(a.count(), 1);
}
