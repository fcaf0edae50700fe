//! First byte, idle, total; requests that wait on a backend that froze.

use ingle_sim::Fault;

use crate::client::Req;
use crate::harness::{PATIENCE, Setup, sims, until};
use crate::scripted::{Gate, Scripted, Step, answer, chunk, stream_head};

/// More requests than the retry budget's floor.
const MANY: usize = 30;

fn post(session: &str) -> Req {
    Req::post("/v1/chat/completions", b"{}").session(session)
}

#[tokio::test]
async fn no_first_byte_in_time_sends_the_request_to_the_next_backend() {
    let (a, b) = (Scripted::start(|_| vec![Step::Hang]).await, Scripted::ok("b").await);
    let setup = Setup::new().backend("a", &a.url()).backend("b", &b.url());
    let gateway = setup.pool("timeouts: { first_byte: 200ms }").start().await;
    assert_eq!(gateway.send(&post(&gateway.session_of("a"))).await.outcome(), "b failover 200");
    assert_eq!(gateway.metric("ingle_retries_total", &[("reason", "first_byte")]).await, 1.0);
    assert_eq!(gateway.backend("a").await["last_error"], "no first byte within 200ms (timeouts.first_byte)");
    until("a's connection is closed", || a.left().len() == 1).await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn no_first_byte_in_time_from_the_only_backend_is_504() {
    let a = Scripted::start(|_| vec![Step::Hang]).await;
    let gateway = Setup::new().backend("a", &a.url()).pool("timeouts: { first_byte: 200ms }").start().await;
    let answer = gateway.send(&post("s")).await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "backend_timeout"));
    assert_eq!(a.count(), 1);
}

#[tokio::test]
async fn a_slow_first_byte_is_no_idle_stream() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |_| vec![Step::Wait(held.clone()), Step::Send(answer(200, "", b"late"))]).await;
    let gateway = Setup::new().backend("a", &a.url()).pool("timeouts: { idle: 100ms }").start().await;
    let req = post("s");
    let (answer, ()) = tokio::join!(gateway.send(&req), async {
        let begun = a.probes();
        until("many idle times have passed", || a.probes() > begun + 8).await;
        gate.open();
    });
    assert_eq!(answer.text(), "late");
}

#[tokio::test]
async fn a_stream_that_stops_is_cut_after_the_idle_time_and_not_sent_again() {
    let steps = || vec![Step::Send(stream_head()), Step::Send(chunk(b"data: 1\n\n")), Step::Hang];
    let (a, b) = (Scripted::start(move |_| steps()).await, Scripted::ok("b").await);
    let setup = Setup::new().backend("a", &a.url()).backend("b", &b.url());
    let gateway = setup.pool("timeouts: { idle: 200ms }").start().await;
    let answer = gateway.send(&post(&gateway.session_of("a"))).await;
    assert_eq!((answer.outcome().as_str(), answer.whole), ("a home 200", false));
    assert_eq!(answer.text(), "data: 1\n\n");
    assert_eq!(b.count(), 0);
    until("a's connection is closed", || a.left().len() == 1).await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn the_total_time_ends_a_stream_that_flows_and_a_request_that_waits() {
    let flow = || {
        let mut steps = vec![Step::Send(stream_head())];
        steps.extend((0..10_000).map(|_| Step::Send(chunk(&[b'x'; 1000]))));
        steps.push(Step::Hang);
        steps
    };
    let a = Scripted::start(move |_| flow()).await;
    let gateway = Setup::new().backend("a", &a.url()).pool("timeouts: { total: 500ms }").start().await;
    let answer = gateway.send(&post("s")).await;
    assert_eq!((answer.status, answer.whole), (200, false));

    let a = Scripted::start(|_| vec![Step::Hang]).await;
    let b = Scripted::ok("b").await;
    let setup = Setup::new().backend("a", &a.url()).backend("b", &b.url());
    let gateway = setup.pool("timeouts: { total: 200ms }").start().await;
    assert_eq!(gateway.send(&post(&gateway.session_of("a"))).await.status, 504, "its time is over, elsewhere too");
    assert_eq!(b.count(), 0);
}

#[tokio::test]
async fn requests_that_wait_on_a_frozen_backend_are_rescued_when_probes_find_out() {
    let sims = sims(2).await;
    let setup = Setup::new().unbounded().sims(&sims).health("interval: 50ms, timeout: 100ms, unhealthy_threshold: 2");
    let gateway = setup.start().await;
    sims[0].inject(Fault::Freeze);
    let sessions = gateway.sessions_of("a", MANY);
    let reqs: Vec<Req> = sessions.iter().map(|id| Req::chat("hello", 3, true).session(id)).collect();
    let answers = futures(&gateway, &reqs).await;
    for answer in answers {
        assert_eq!((answer.outcome().as_str(), answer.whole), ("b failover 200", true));
    }
    assert_eq!(gateway.metric("ingle_retries_total", &[]).await, MANY as f64);
    assert!(gateway.metric("ingle_retries_total", &[("reason", "unhealthy")]).await >= 1.0);
    gateway.until_idle().await;
}

async fn futures(gateway: &crate::harness::Gateway, reqs: &[Req]) -> Vec<crate::client::Answer> {
    let mut tasks = Vec::new();
    for req in reqs {
        let (mut client, req) = (gateway.client().await, req.clone());
        tasks.push(tokio::spawn(async move { client.send(&req).await }));
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn requests_on_the_only_backend_are_not_cut_when_it_freezes() {
    let sims = sims(1).await;
    let setup = Setup::new().sims(&sims).health("interval: 50ms, timeout: 100ms, unhealthy_threshold: 2");
    let gateway = setup.start().await;
    sims[0].inject(Fault::Freeze);
    let mut client = gateway.client().await;
    let waiting = tokio::spawn(async move { client.send(&Req::chat("hello", 3, false).session("s")).await });
    gateway.until_state("a", "unhealthy").await;
    // Two more looks of whoever cuts.
    let swept = gateway.inner.clock.now() + 300;
    until("the sweeper has looked", || gateway.inner.clock.now() > swept).await;
    assert!(!waiting.is_finished());
    sims[0].clear_faults();
    let answer = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(answer.outcome(), "a home 200");
}

#[tokio::test]
async fn a_request_that_was_turned_away_elsewhere_is_not_cut_when_its_last_backend_turns_unhealthy() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(|_| vec![Step::Send(answer(503, "", b"full"))]).await;
    let b = Scripted::start(move |_| vec![Step::Wait(held.clone()), Step::Send(answer(200, "", b"b"))]).await;
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let mut client = gateway.client().await;
    client.write(&post(&gateway.session_of("a")).bytes()).await;
    until("it waits at b", || (a.count(), b.count()) == (1, 1)).await;
    b.set_health(500);
    gateway.until_state("b", "unhealthy").await;
    let swept = gateway.inner.clock.now() + 300;
    until("the sweeper has looked", || gateway.inner.clock.now() > swept).await;
    gate.open();
    assert_eq!(client.answer().await.outcome(), "b failover 200");
}

#[tokio::test]
async fn a_stream_that_flows_is_not_cut_when_its_backend_turns_unhealthy() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |_| {
        let mut steps = vec![Step::Send(stream_head()), Step::Send(chunk(b"1"))];
        steps.extend([Step::Wait(held.clone()), Step::Send(chunk(b"2")), Step::Send(chunk(b""))]);
        steps
    })
    .await;
    let b = Scripted::ok("b").await;
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let mut client = gateway.client().await;
    client.write(&post(&gateway.session_of("a")).bytes()).await;
    client.head().await;
    assert_eq!(client.chunk().await.unwrap(), b"1");
    a.set_health(500);
    gateway.until_state("a", "unhealthy").await;
    let swept = gateway.inner.clock.now() + 300;
    until("the sweeper has looked", || gateway.inner.clock.now() > swept).await;
    gate.open();
    assert_eq!(client.chunk().await.unwrap(), b"2");
    assert_eq!(client.chunk().await.unwrap(), b"");
}
