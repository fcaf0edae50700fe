//! Backends that answer with errors while their probes are good: taken out, tried, brought back; what their answers teach.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::client::{CHAT, Req};
use crate::harness::{Gateway, Setup, until};
use crate::scripted::{Scripted, Step, answer, chunk, event_head};

fn post(session: &str) -> Req {
    Req::post(CHAT, b"{}").session(session)
}

/// A backend whose answers have this status at once; 200 takes a while.
async fn switched(status: &Arc<AtomicU16>) -> Scripted {
    let status = Arc::clone(status);
    Scripted::start(move |_| match status.load(Ordering::Relaxed) {
        200 => vec![Step::Work(Duration::from_millis(50)), Step::Send(answer(200, "", b"{}"))],
        status => vec![Step::Send(answer(status, "", b"{}"))],
    })
    .await
}

async fn pair(status: &Arc<AtomicU16>, setup: Setup) -> (Scripted, Scripted, Gateway) {
    let (a, b) = (switched(status).await, switched(&Arc::new(AtomicU16::new(200))).await);
    let gateway = setup.unbounded().backend("a", &a.url()).backend("b", &b.url()).start().await;
    (a, b, gateway)
}

/// Sends so many requests, eight at a time; returns how many failed.
async fn burst(gateway: &Gateway, count: usize, req: impl Fn(usize) -> Req) -> usize {
    let mut failed = 0;
    for first in (0..count).step_by(8) {
        let sent = (first..first + 8).map(|n| {
            let (address, req) = (gateway.address, req(n));
            tokio::spawn(async move { crate::client::Client::connect(address).await.send(&req).await.status })
        });
        for sent in sent.collect::<Vec<_>>() {
            failed += usize::from(sent.await.unwrap() >= 500);
        }
    }
    failed
}

async fn is_out(gateway: &Gateway, cause: &str) {
    let labels = [("backend", "a"), ("to", "unhealthy"), ("cause", cause)];
    assert_eq!(
        (gateway.state("a"), gateway.metric("ingle_health_transitions_total", &labels).await),
        ("unhealthy", 1.0)
    );
}

#[tokio::test]
async fn streak_of_errors_takes_a_backend_out() {
    for (name, setup) in [
        ("round robin", Setup::new()),
        ("least requests", Setup::new().pool("balance: least_requests")),
        ("least ttft", Setup::new().top("affinity: { policy: least_ttft }")),
    ] {
        for status in [500, 507] {
            let (a, _b, gateway) = pair(&Arc::new(AtomicU16::new(status)), setup.clone()).await;
            let mut failed = burst(&gateway, 48, |_| Req::post(CHAT, b"{}")).await;
            assert_eq!(gateway.backend("a").await["last_error"], format!("answered {status}"));
            if name == "round robin" {
                is_out(&gateway, "errors").await;
            }
            // What looks at load sends nothing more there, before the streak is one.
            let is_out = gateway.state("a") == "unhealthy";
            let (before, more) = (a.count(), burst(&gateway, 64, |_| Req::post(CHAT, b"{}")).await);
            assert!(!is_out || more == 0 && a.count() - before <= 2, "{name}: trials are few, and fail no client");
            failed += more;
            assert!(failed <= 17, "{name}: {failed}: the threshold, and what was there already");
        }
    }
}

#[tokio::test]
async fn new_sessions_do_not_flock_to_quick_errors() {
    for policy in ["consistent_hash", "least_ttft"] {
        let setup = Setup::new().top(&format!("affinity: {{ policy: {policy} }}"));
        let (_a, _b, gateway) = pair(&Arc::new(AtomicU16::new(500)), setup).await;
        let failed = burst(&gateway, 48, |n| post(&format!("s{n}"))).await;
        assert!(failed <= 17, "{policy}: {failed}");
    }
}

#[tokio::test]
async fn errors_of_one_session_are_its_own() {
    let (a, _b, gateway) = pair(&Arc::new(AtomicU16::new(500)), Setup::new()).await;
    let session = gateway.session_of("a");
    for _ in 0..30 {
        assert_eq!(gateway.send(&post(&session)).await.outcome(), "a home 500");
    }
    assert_eq!((gateway.state("a"), a.count()), ("healthy", 30));
    assert_eq!(gateway.metric("ingle_displaced_sessions", &[]).await, 0.0);
}

#[tokio::test]
async fn errors_everywhere_take_nothing_out() {
    let status = Arc::new(AtomicU16::new(500));
    let (a, b) = (switched(&status).await, switched(&status).await);
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    assert_eq!(burst(&gateway, 80, |_| Req::post(CHAT, b"one bad prompt")).await, 80);
    assert_eq!((gateway.state("a"), gateway.state("b")), ("healthy", "healthy"));
}

#[tokio::test]
async fn only_backend_is_tried_whatever_it_answers() {
    for fail_open in [true, false] {
        let a = switched(&Arc::new(AtomicU16::new(500))).await;
        let gateway = Setup::new().pool(&format!("fail_open: {fail_open}")).backend("a", &a.url()).start().await;
        assert_eq!(burst(&gateway, 40, |_| Req::post(CHAT, b"{}")).await, 40);
        assert_eq!((gateway.state("a"), a.count()), ("healthy", 40));
    }
}

#[tokio::test]
async fn good_trials_bring_a_backend_back() {
    let status = Arc::new(AtomicU16::new(500));
    let (a, _b, gateway) = pair(&status, Setup::new()).await;
    burst(&gateway, 48, |_| Req::post(CHAT, b"{}")).await;
    is_out(&gateway, "errors").await;
    let probes = a.probes();
    until("probes were good for long", || a.probes() > probes + 20).await;
    assert_eq!(gateway.state("a"), "unhealthy", "good probes are not enough");
    status.store(200, Ordering::Relaxed);
    let mut client = gateway.client().await;
    let sessions = gateway.sessions_of("a", 3);
    while gateway.state("a") != "healthy" {
        assert_eq!(client.send(&post(&sessions[0])).await.status, 200);
        assert_eq!(client.send(&Req::post(CHAT, b"{}")).await.status, 200);
    }
    let labels = [("backend", "a"), ("to", "probation"), ("cause", "response")];
    assert_eq!(gateway.metric("ingle_health_transitions_total", &labels).await, 1.0);
    assert_eq!(gateway.send(&post(&sessions[2])).await.outcome(), "a home 200");
}

#[tokio::test]
async fn sessions_alone_bring_a_backend_back() {
    let status = Arc::new(AtomicU16::new(500));
    let (_a, _b, gateway) = pair(&status, Setup::new().health("interval: 50ms, error_threshold: 3")).await;
    let (there, elsewhere) = (gateway.sessions_of("a", 3), gateway.session_of("b"));
    for session in there.iter().cycle().take(6) {
        gateway.send(&post(session)).await;
    }
    is_out(&gateway, "errors").await;
    status.store(200, Ordering::Relaxed);
    let mut client = gateway.client().await;
    while gateway.state("a") != "healthy" {
        assert_eq!(client.send(&post(&there[0])).await.status, 200);
        assert_eq!(client.send(&post(&elsewhere)).await.outcome(), "b home 200", "all others stay");
    }
}

#[tokio::test]
async fn error_events_and_refusals_are_errors() {
    let event = |code| format!("data: {{\"error\":{{\"code\":{code},\"message\":\"dead\"}}}}\n\n");
    let stream = |code: u16| Step::Send([event_head(), chunk(event(code).as_bytes()), chunk(b"")].concat());
    for step in [stream(500), stream(503), Step::Send(answer(503, "", b"{}")), Step::Send(answer(500, "", b""))] {
        let a = Scripted::start(move |_| vec![step.clone()]).await;
        let b = Scripted::ok("b").await;
        let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
        for session in gateway.sessions_of("b", 2) {
            gateway.send(&post(&session)).await;
        }
        for session in gateway.sessions_of("a", 12) {
            gateway.send(&post(&session)).await;
        }
        is_out(&gateway, "errors").await;
    }
}

/// It refuses what it has no room for, while it works.
#[tokio::test]
async fn busy_backend_is_not_failing() {
    let a = Scripted::start(|seen| match seen.number {
        0 => vec![Step::Send(event_head()), Step::Send(chunk(b"data: x\n\n")), Step::Hang],
        _ => vec![Step::Send(answer(503, "", b"{}"))],
    })
    .await;
    let b = Scripted::ok("b").await;
    let setup = Setup::new().health("interval: 50ms, error_threshold: 3").backend("a", &a.url());
    let gateway = setup.backend("b", &b.url()).start().await;
    let sessions = gateway.sessions_of("a", 8);
    let mut stream = gateway.client().await;
    stream.write(&post(&sessions[0]).bytes()).await;
    stream.until("data: x").await;
    for session in &sessions[1..] {
        assert_eq!(gateway.send(&post(session)).await.status, 200);
    }
    assert_eq!(gateway.state("a"), "healthy");
}

#[tokio::test]
async fn error_answer_leaves_no_cache() {
    for status in [400, 404, 429, 500, 501] {
        let fails = Scripted::start(move |_| vec![Step::Send(answer(status, "", b"{}"))]).await;
        let a = Scripted::ok("a").await;
        let gateway = Setup::new().backend("a", &a.url()).backend("b", &fails.url()).start().await;
        let session = gateway.session_of("a");
        gateway.admin_post("/backends/a/drain").await;
        assert_eq!(gateway.send(&post(&session)).await.outcome(), format!("b failover {status}"));
        gateway.admin_post("/backends/a/undrain").await;
        assert_eq!(gateway.send(&post(&session)).await.outcome(), "a home 200");
        assert_eq!(gateway.metric("ingle_known_sessions", &[]).await, 1.0);
    }
}

#[tokio::test]
async fn error_answer_is_no_first_token() {
    let fails = Scripted::start(|_| vec![Step::Send(answer(500, "", b"{}"))]).await;
    let gateway = Setup::new().backend("a", &fails.url()).start().await;
    gateway.send(&post("s")).await;
    assert_eq!(gateway.metric("ingle_time_to_first_token_seconds_count", &[]).await, 0.0);
    assert_eq!(gateway.metric("ingle_time_to_first_byte_seconds_count", &[]).await, 1.0);
}

/// What does not reach a model says nothing of its engine.
#[tokio::test]
async fn list_of_models_hides_no_dead_engine() {
    let a = Scripted::start(|seen| {
        let status = if seen.head.starts_with("GET") { 200 } else { 500 };
        vec![Step::Send(answer(status, "", b"{}"))]
    })
    .await;
    let b = Scripted::ok("b").await;
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    for session in gateway.sessions_of("a", 12) {
        gateway.send(&Req::get("/v1/models").session(&session)).await;
        gateway.send(&post(&session)).await;
    }
    is_out(&gateway, "errors").await;
}

/// What the bad one of four gets once its first streak is 5 s old, while its errors come and go; all other sessions stay.
#[tokio::test]
async fn failing_backend_has_a_share_below_2_percent() {
    let status = Arc::new(AtomicU16::new(200));
    let answers = |status: &Arc<AtomicU16>| {
        let status = Arc::clone(status);
        Scripted::start(move |_| match status.load(Ordering::Relaxed) {
            200 => vec![Step::Work(Duration::from_millis(5)), Step::Send(answer(200, "", b"{}"))],
            status => vec![Step::Send(answer(status, "", b"{}"))],
        })
    };
    let good = Arc::new(AtomicU16::new(200));
    let backends = [answers(&status).await, answers(&good).await, answers(&good).await, answers(&good).await];
    let setup = ["a", "b", "c", "d"].iter().zip(&backends);
    let setup = setup.fold(Setup::new().unbounded(), |setup, (name, backend)| setup.backend(name, &backend.url()));
    let gateway = setup.start().await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut clients = Vec::new();
    for n in 0..8 {
        let (mut client, stop) = (gateway.client().await, Arc::clone(&stop));
        let home = gateway.home(&format!("s{n}"));
        let (session, keyless) = (post(&format!("s{n}")), Req::post(CHAT, b"{}"));
        clients.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let outcome = client.send(&session).await.outcome();
                assert!(home == "a" || outcome == format!("{home} home 200"), "{outcome}");
                client.send(&keyless).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }));
    }
    let clock = gateway.inner.clock;
    let pass = async |time: u64| {
        let end = clock.now() + time;
        until("time has passed", || clock.now() >= end).await;
    };
    pass(500).await;
    status.store(500, Ordering::Relaxed);
    gateway.until_state("a", "unhealthy").await;
    pass(5000).await;
    let count = || backends.iter().map(Scripted::count).sum::<usize>();
    let (bad, all) = (backends[0].count(), count());
    pass(3000).await;
    let (bad, all) = (backends[0].count() - bad, count() - all);
    assert!(bad * 50 < all, "{bad} of {all}");
    status.store(200, Ordering::Relaxed);
    gateway.until_state("a", "healthy").await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
}
