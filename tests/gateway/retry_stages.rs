//! The retry table, stage by stage.

use std::time::Duration;

use ingle_sim::Fault;
use tokio::time::timeout;

use crate::client::Req;
use crate::harness::{Setup, sims};
use crate::scripted::{Scripted, Step, answer, chunk, stream_head};

fn post() -> Req {
    Req::post("/v1/chat/completions", b"{}")
}

/// A gateway between `a`, which does as told, and `b`, which works; and a session whose home is `a`.
async fn beside_one_that_works(
    a: impl Fn() -> Vec<Step> + Send + Sync + 'static,
) -> (crate::harness::Gateway, String, Scripted, Scripted) {
    let (a, b) = (Scripted::start(move |_| a()).await, Scripted::ok("b").await);
    let gateway = Setup::new().one_probe().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let session = gateway.session_of("a");
    (gateway, session, a, b)
}

#[tokio::test]
async fn a_refused_connection_sends_the_request_to_the_next_backend() {
    let sims = sims(2).await;
    let gateway = Setup::new().one_probe().sims(&sims).start().await;
    sims[0].kill().await;
    let req = Req::chat("hello", 4, false).session(&gateway.session_of("a"));
    assert_eq!(gateway.send(&req).await.outcome(), "b failover 200");
    assert_eq!(gateway.metric("ingle_retries_total", &[("reason", "connect")]).await, 1.0);
    assert_eq!(gateway.metric("ingle_retries_total", &[]).await, 1.0);
    gateway.until_idle().await;
}

/// The kernel drops a SYN to a listener whose queue is full: nobody refuses, nobody answers.
#[tokio::test]
async fn a_connection_that_is_not_made_in_time_sends_the_request_to_the_next_backend() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let (address, b) = (full.local_addr().unwrap(), Scripted::ok("b").await);
    let setup = Setup::new().health("interval: 1h, type: tcp").pool("timeouts: { connect: 300ms }");
    let gateway = setup.backend("a", &format!("http://{address}")).backend("b", &b.url()).start().await;
    let mut queued = Vec::new();
    while let Ok(connected) = timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await {
        queued.push(connected.unwrap());
        assert!(queued.len() < 100, "the queue has no end");
    }
    assert_eq!(gateway.send(&post().session(&gateway.session_of("a"))).await.outcome(), "b failover 200");
    assert_eq!(gateway.metric("ingle_retries_total", &[("reason", "connect")]).await, 1.0);
}

#[tokio::test]
async fn a_fresh_connection_closed_before_any_byte_sends_the_request_to_the_next_backend() {
    for how in [Step::Close, Step::Reset] {
        let (gateway, session, a, b) = beside_one_that_works(move || vec![how.clone()]).await;
        let answer = gateway.send(&post().session(&session)).await;
        assert_eq!((answer.outcome().as_str(), answer.text().as_str()), ("b failover 200", "b"));
        assert_eq!((a.count(), b.count()), (1, 1));
        assert_eq!(gateway.metric("ingle_retries_total", &[("reason", "closed")]).await, 1.0);
        assert!(gateway.backend("a").await["last_error"].is_string());
    }
}

#[tokio::test]
async fn bytes_that_are_no_http_and_half_a_head_have_not_reached_the_client() {
    for sent in [&b"what?\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\nContent-Le"] {
        let (gateway, session, _a, b) = beside_one_that_works(|| vec![Step::Send(sent.to_vec()), Step::Close]).await;
        assert_eq!(gateway.send(&post().session(&session)).await.outcome(), "b failover 200", "{sent:?}");
        assert_eq!(b.count(), 1);
    }
}

#[tokio::test]
async fn an_interim_response_is_not_yet_the_response() {
    let interim = b"HTTP/1.1 102 Processing\r\n\r\n".to_vec();
    let (gateway, session, _a, b) = beside_one_that_works(move || vec![Step::Send(interim.clone()), Step::Close]).await;
    assert_eq!(gateway.send(&post().session(&session)).await.outcome(), "b failover 200");
    assert_eq!(b.count(), 1);
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_no_response() {
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec();
    let steps = move || vec![Step::Send(switching.clone()), Step::Hang];
    let (gateway, session, _a, b) = beside_one_that_works(steps).await;
    assert_eq!(gateway.send(&post().session(&session)).await.outcome(), "b failover 200");
    assert_eq!(b.count(), 1);
}

#[tokio::test]
async fn a_stream_that_is_cut_is_never_sent_again() {
    for how in [Step::Close, Step::Reset] {
        let steps = move || vec![Step::Send(stream_head()), Step::Send(chunk(b"data: 1\n\n")), how.clone()];
        let (gateway, session, a, b) = beside_one_that_works(steps).await;
        let answer = gateway.send(&post().session(&session)).await;
        assert_eq!(answer.outcome(), "a home 200");
        assert!(!answer.whole, "the client sees that it is cut");
        assert_eq!((a.count(), b.count()), (1, 0));
        assert_eq!(gateway.metric("ingle_retries_total", &[]).await, 0.0);
        assert_eq!(gateway.state("a"), "healthy");
        gateway.until_idle().await;
    }
}

#[tokio::test]
async fn a_response_whose_head_alone_came_is_never_sent_again() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n".to_vec();
    let (gateway, session, _a, b) = beside_one_that_works(move || vec![Step::Send(head.clone()), Step::Close]).await;
    let answer = gateway.send(&post().session(&session)).await;
    assert_eq!((answer.outcome().as_str(), answer.whole), ("a home 200", false));
    assert_eq!(b.count(), 0);
}

#[tokio::test]
async fn one_attempt_means_no_retry() {
    let (a, b) = (Scripted::start(|_| vec![Step::Close]).await, Scripted::ok("b").await);
    let setup = Setup::new().one_probe().backend("a", &a.url()).backend("b", &b.url());
    let gateway = setup.pool("retry: { max_attempts: 1 }").start().await;
    let answer = gateway.send(&post().session(&gateway.session_of("a"))).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "backend_failed"));
    assert_eq!(b.count(), 0);

    let sims = sims(2).await;
    let gateway = Setup::new().one_probe().sims(&sims).pool("retry: { max_attempts: 1 }").start().await;
    sims[0].kill().await;
    assert_eq!(gateway.send(&post().session(&gateway.session_of("a"))).await.status, 502, "refused");
    sims[1].inject(Fault::status(503));
    let answer = gateway.send(&post().session(&gateway.session_of("b"))).await;
    assert_eq!(answer.outcome(), "b home 503", "an answer is the backend's own");
    assert_eq!(gateway.metric("ingle_retries_total", &[]).await, 0.0);
}

#[tokio::test]
async fn attempts_are_bounded_and_each_goes_to_another_backend() {
    let mut backends = Vec::new();
    let mut setup = Setup::new().one_probe();
    for name in ["a", "b", "c", "d", "e"] {
        let backend = Scripted::start(|_| vec![Step::Close]).await;
        setup = setup.backend(name, &backend.url());
        backends.push(backend);
    }
    let gateway = setup.start().await;
    let answer = gateway.send(&post().session("s")).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "backend_failed"));
    let counts: Vec<usize> = backends.iter().map(Scripted::count).collect();
    assert_eq!((counts.iter().sum::<usize>(), counts.iter().max()), (3, Some(&1)), "{counts:?}");
}

#[tokio::test]
async fn a_request_without_a_session_is_retried_too() {
    let (gateway, _session, a, b) = beside_one_that_works(|| vec![Step::Close]).await;
    for _ in 0..4 {
        assert_eq!(gateway.send(&post()).await.outcome(), "b balanced 200");
    }
    assert!(a.count() >= 2 && b.count() == 4, "round robin took both");
}

#[tokio::test]
async fn a_body_that_failed_nowhere_is_sent_once() {
    let (gateway, session, a, b) = beside_one_that_works(|| vec![Step::Send(answer(200, "", b"a"))]).await;
    assert_eq!(gateway.send(&post().session(&session)).await.text(), "a");
    assert_eq!((a.count(), b.count()), (1, 0));
}
