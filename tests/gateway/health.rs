//! Warming, unhealthy, probation; what is and what is not held against a backend; when the gateway is ready.

use ingle_sim::{Fault, Scope, SimConfig, SimServer};

use crate::client::Req;
use crate::harness::{Gateway, Setup, nobody, noise, sims, until};
use crate::scripted::{Gate, Scripted, Step, answer, chunk, stream_head};

fn post(session: &str) -> Req {
    Req::post("/v1/chat/completions", b"{}").session(session)
}

async fn transitions(gateway: &Gateway, to: &str, cause: &str) -> f64 {
    gateway.metric("ingle_health_transitions_total", &[("backend", "a"), ("to", to), ("cause", cause)]).await
}

/// No failure is counted, noted or acted upon.
async fn spotless(gateway: &Gateway, name: &str) {
    assert_eq!(gateway.state(name), "healthy");
    assert_eq!(gateway.metric("ingle_health_transitions_total", &[("to", "unhealthy")]).await, 0.0);
    assert_eq!(gateway.backend(name).await["last_error"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_backend_that_loads_its_model_is_warming_and_gets_nothing() {
    let sims = sims(2).await;
    let gateway = Setup::new().sims(&sims).start().await;
    sims[0].set_loading(true);
    gateway.until_state("a", "warming").await;
    for session in gateway.sessions_of("a", 5) {
        assert_eq!(gateway.send(&Req::chat("hello", 2, false).session(&session)).await.outcome(), "b failover 200");
    }
    assert_eq!(sims[0].stats().completions, 0);
    assert_eq!(transitions(&gateway, "warming", "loading").await, 1.0);
    sims[0].set_loading(false);
    gateway.until_state("a", "healthy").await;
    assert_eq!(transitions(&gateway, "healthy", "probe").await, 2.0, "at the start and now");
    assert_eq!(gateway.metric("ingle_health_transitions_total", &[("to", "unhealthy")]).await, 0.0);
}

#[tokio::test]
async fn failing_probes_make_a_backend_unhealthy_and_good_ones_bring_it_back_through_probation() {
    let sims = sims(2).await;
    let gateway = Setup::new().sims(&sims).start().await;
    sims[0].inject(Fault::status(500).on(Scope::Health));
    gateway.until_state("a", "unhealthy").await;
    assert_eq!(transitions(&gateway, "unhealthy", "probe_failed").await, 1.0);
    assert_eq!(gateway.metric("ingle_backend_healthy", &[("backend", "a")]).await, 0.0);
    assert_eq!(gateway.metric("ingle_backend_state", &[("backend", "a"), ("state", "unhealthy")]).await, 1.0);
    assert_eq!(gateway.metric("ingle_backend_state", &[("backend", "a")]).await, 1.0, "one state at a time");
    assert_eq!(gateway.backend("a").await["last_error"], "probe: status 500");
    let session = gateway.session_of("a");
    assert_eq!(gateway.send(&Req::chat("hello", 2, false).session(&session)).await.outcome(), "b failover 200");

    sims[0].clear_faults();
    gateway.until_state("a", "healthy").await;
    assert_eq!(transitions(&gateway, "probation", "probe").await, 1.0, "not at once");
}

#[tokio::test]
async fn fewer_failing_probes_than_the_threshold_change_nothing() {
    let sims = sims(1).await;
    let gateway = Setup::new().sims(&sims).health("interval: 20ms, unhealthy_threshold: 4").start().await;
    for _ in 0..3 {
        let probes = sims[0].stats().requests["/health"];
        sims[0].inject(Fault::status(500).on(Scope::Health).times(3));
        sims[0].wait_for(crate::harness::PATIENCE, |stats| stats.requests["/health"] > probes + 4).await.unwrap();
    }
    assert_eq!(transitions(&gateway, "unhealthy", "probe_failed").await, 0.0);
}

#[tokio::test]
async fn the_first_failure_on_probation_is_one_too_many() {
    let (a, b) = (Scripted::start(|_| vec![Step::Close]).await, Scripted::ok("b").await);
    let setup = Setup::new().backend("a", &a.url()).backend("b", &b.url());
    let gateway = setup.health("interval: 300ms, unhealthy_threshold: 2").start().await;
    a.set_health(500);
    gateway.until_state("a", "unhealthy").await;
    a.set_health(200);
    gateway.until_state("a", "probation").await;
    assert_eq!(gateway.send(&post(&gateway.session_of("a"))).await.outcome(), "b failover 200");
    assert_eq!(transitions(&gateway, "unhealthy", "closed").await, 1.0);
}

#[tokio::test]
async fn failing_requests_make_a_backend_unhealthy_between_two_probes() {
    let bad_gateway = Step::Send(answer(502, "", b""));
    for (step, cause) in [(Step::Close, "closed"), (Step::Reset, "closed"), (bad_gateway, "bad_gateway")] {
        let (a, b) = (Scripted::start(move |_| vec![step.clone()]).await, Scripted::ok("b").await);
        let gateway = Setup::new().one_probe().backend("a", &a.url()).backend("b", &b.url()).start().await;
        for session in gateway.sessions_of("a", 5) {
            assert_eq!(gateway.send(&post(&session)).await.outcome(), "b failover 200");
        }
        assert_eq!(transitions(&gateway, "unhealthy", cause).await, 1.0);
        assert_eq!(a.count(), 3, "nobody goes there any more");
    }
}

#[tokio::test]
async fn refused_connections_make_a_backend_unhealthy_between_two_probes() {
    let sims = sims(2).await;
    let gateway = Setup::new().one_probe().sims(&sims).start().await;
    sims[0].kill().await;
    for session in gateway.sessions_of("a", 5) {
        assert_eq!(gateway.send(&Req::chat("hello", 2, false).session(&session)).await.outcome(), "b failover 200");
    }
    assert_eq!(transitions(&gateway, "unhealthy", "connect").await, 1.0);
    assert_eq!(gateway.metric("ingle_retries_total", &[("reason", "connect")]).await, 3.0);
}

#[tokio::test]
async fn answers_that_are_the_clients_fault_or_the_models_are_no_failures() {
    for status in [400, 401, 404, 413, 422, 429, 501, 503] {
        let a = Scripted::start(move |_| vec![Step::Send(answer(status, "", b"{}"))]).await;
        let gateway = Setup::new().one_probe().backend("a", &a.url()).start().await;
        for _ in 0..6 {
            assert_eq!(gateway.send(&post("s")).await.status, status);
        }
        spotless(&gateway, "a").await;
    }
}

#[tokio::test]
async fn clients_that_leave_are_no_failures() {
    let a = Scripted::start(|seen| match seen.number % 2 {
        0 => vec![Step::Hang],
        _ => vec![Step::Send(stream_head()), Step::Send(chunk(b"1")), Step::Hang],
    })
    .await;
    let gateway = Setup::new().one_probe().backend("a", &a.url()).start().await;
    for i in 0..10 {
        let mut client = gateway.client().await;
        client.write(&post("s").bytes()).await;
        until("it is there", || a.count() == i + 1).await;
        drop(client);
        until("it is gone", || a.left().len() == i + 1).await;
    }
    spotless(&gateway, "a").await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn malformed_bodies_are_no_failures_of_any_backend() {
    let sims = sims(4).await;
    let gateway = Setup::new().sims(&sims).start().await;
    let head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let long = [&head[..], &chunk(&noise(60_000)), &chunk(&noise(60_000)), b"zz\r\nhello\r\n"].concat();
    let bodies = [[&head[..], b"zz\r\nhello\r\n"].concat(), [&head[..], b"5\r\nhelloXX0\r\n\r\n"].concat(), long];
    for (i, bytes) in bodies.iter().cycle().take(24).enumerate() {
        let mut client = gateway.client().await;
        client.write(bytes).await;
        let answer = client.rest().await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{i}: {answer}");
    }
    for name in ["a", "b", "c", "d"] {
        spotless(&gateway, name).await;
    }
    assert_eq!(gateway.send(&Req::chat("hello", 2, false)).await.status, 200);
    gateway.until_idle().await;
}

#[tokio::test]
async fn a_body_that_ends_too_early_is_no_failure() {
    let sims = sims(1).await;
    let gateway = Setup::new().sims(&sims).start().await;
    for length in [1000, 30_000_000] {
        for _ in 0..5 {
            let mut client = gateway.client().await;
            let head = format!("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\nhalf");
            client.write(head.as_bytes()).await;
            drop(client);
        }
    }
    until("all are there and gone", || gateway.inner.connections.get() == 0).await;
    spotless(&gateway, "a").await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn tokens_that_flow_outweigh_a_probe_that_fails() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |_| {
        let mut steps = vec![Step::Send(stream_head())];
        steps.extend((0..100_000).flat_map(|_| [Step::Send(chunk(b"token")), Step::Wait(held.clone())]));
        steps
    })
    .await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let mut client = gateway.client().await;
    client.write(&post("s").bytes()).await;
    client.head().await;
    a.set_health(500);
    let begun = a.probes();
    while a.probes() < begun + 10 {
        client.chunk().await.unwrap();
        gate.open();
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert_eq!(gateway.state("a"), "healthy", "ten probes failed");
    // The stream stands still: now the probes are believed.
    gateway.until_state("a", "unhealthy").await;
}

#[tokio::test]
async fn the_gateway_is_ready_after_the_first_round_of_probes_and_not_before() {
    let sim = SimServer::start(SimConfig::llama_server("a").instant()).await.unwrap();
    sim.inject(Fault::Freeze);
    let setup = Setup::new().sims([&sim]).backend("b", &nobody()).health("interval: 50ms, timeout: 20s");
    let gateway = setup.start_cold().await;
    gateway.until_state("b", "unhealthy").await;
    assert_eq!(gateway.admin_get("/readyz").await.status, 503, "a has not been heard of");
    assert_eq!(gateway.admin_get("/livez").await.status, 200);
    sim.clear_faults();
    gateway.until_state("a", "healthy").await;
    until("the round is over", || gateway.inner.ready()).await;
    assert_eq!(gateway.admin_get("/readyz").await.status, 200);
}

#[tokio::test]
async fn the_gateway_stays_ready_when_every_backend_is_down() {
    let sims = sims(2).await;
    let gateway = Setup::new().sims(&sims).pool("fail_open: false").start().await;
    sims[0].kill().await;
    sims[1].kill().await;
    gateway.until_state("a", "unhealthy").await;
    gateway.until_state("b", "unhealthy").await;
    assert_eq!(gateway.admin_get("/readyz").await.status, 200);
    let answer = gateway.send(&post("s")).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_backend_available"));
    assert!(answer.header("Retry-After").is_some());
    let labels = [("backend", "none"), ("affinity", "none"), ("code", "5xx")];
    assert_eq!(gateway.metric("ingle_requests_total", &labels).await, 1.0);
}

#[tokio::test]
async fn a_tcp_probe_needs_no_http() {
    let a = Scripted::ok("a").await;
    a.set_health(500);
    let gateway = Setup::new().backend("a", &a.url()).health("interval: 50ms, type: tcp").start().await;
    assert_eq!(gateway.send(&post("s")).await.outcome(), "a home 200");
    assert_eq!(a.probes(), 0);
}

#[tokio::test]
async fn a_backend_may_be_named_by_its_host() {
    let a = Scripted::ok("a").await;
    let url = format!("http://localhost:{}", a.address.port());
    // localhost may be ::1 first, where nobody listens: the next address is tried.
    let gateway = Setup::new().backend("a", &url).start().await;
    let answer = gateway.send(&post("s")).await;
    assert_eq!((answer.outcome().as_str(), a.seen()[0].header("Host")), ("a home 200", Some("llm.test")));
    let unknown = Setup::new().backend("a", "http://no-such-host.invalid:80").start_cold().await;
    unknown.until_state("a", "unhealthy").await;
    assert_eq!(unknown.send(&post("s")).await.status, 502);
}
