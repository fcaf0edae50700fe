//! Backends that leave requests without output while their probes are good, and saturation, which is not that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::{CHAT, Client, Req};
use crate::harness::{Gateway, Setup, until};
use crate::scripted::{Gate, Scripted, Step, answer};

fn keyless() -> Req {
    Req::post(CHAT, b"{}")
}

/// Hangs while it is told to.
async fn hanging(hangs: &Arc<AtomicBool>) -> Scripted {
    let hangs = Arc::clone(hangs);
    Scripted::start(move |_| match hangs.load(Ordering::Relaxed) {
        true => vec![Step::Hang],
        false => vec![Step::Send(answer(200, "", b"a"))],
    })
    .await
}

async fn begin(gateway: &Gateway, req: &Req) -> Client {
    let mut client = gateway.client().await;
    client.write(&req.bytes()).await;
    client
}

async fn on_trial(gateway: &Gateway) -> bool {
    gateway.backend("a").await["on_trial"] == true
}

/// Sends requests to `b`, so that others than `a` produce output, until `a` is found to hang.
async fn until_on_trial(gateway: &Gateway) {
    let session = gateway.session_of("b");
    while !on_trial(gateway).await {
        assert_eq!(gateway.send(&Req::post(CHAT, b"{}").session(&session)).await.status, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn backend_that_hangs_gets_nothing_new() {
    for balance in ["round_robin", "least_requests"] {
        let hangs = Arc::new(AtomicBool::new(false));
        let (a, b) = (hanging(&hangs).await, Scripted::ok("b").await);
        let setup = Setup::new().pool(&format!("balance: {balance}")).backend("a", &a.url()).backend("b", &b.url());
        let gateway = setup.start().await;
        let known = gateway.session_of("a");
        assert_eq!(gateway.send(&Req::post(CHAT, b"{}").session(&known)).await.outcome(), "a home 200");
        hangs.store(true, Ordering::Relaxed);
        let stuck = begin(&gateway, &Req::post(CHAT, b"{}").session(&gateway.sessions_of("a", 2)[1])).await;
        until_on_trial(&gateway).await;
        assert_eq!(gateway.state("a"), "healthy", "its probes are good");
        // Its client leaves; what was seen stays.
        drop(stuck);
        until("it is gone", || a.left().len() == 1).await;
        let before = a.count();
        let mut trials = Vec::new();
        for _ in 0..40 {
            let arrived = a.count() + b.count();
            let client = begin(&gateway, &keyless()).await;
            until("it has arrived", || a.count() + b.count() > arrived).await;
            trials.push(client);
        }
        assert!(a.count() - before <= 2, "{balance}: {} of 40", a.count() - before);
        for session in &gateway.sessions_of("a", 8)[2..] {
            assert_eq!(gateway.send(&Req::post(CHAT, b"{}").session(session)).await.outcome(), "b spilled 200");
        }
        let arrived = a.count();
        let _stays = begin(&gateway, &Req::post(CHAT, b"{}").session(&known)).await;
        until("whose cache is there goes there", || a.count() > arrived).await;
    }
}

#[tokio::test]
async fn first_output_ends_the_suspicion() {
    let hangs = Arc::new(AtomicBool::new(true));
    let (a, b) = (hanging(&hangs).await, Scripted::ok("b").await);
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let _stuck = begin(&gateway, &Req::post(CHAT, b"{}").session(&gateway.session_of("a"))).await;
    until_on_trial(&gateway).await;
    hangs.store(false, Ordering::Relaxed);
    let mut client = gateway.client().await;
    while on_trial(&gateway).await {
        assert_eq!(client.send(&keyless()).await.status, 200);
    }
    let (first, second) = (client.send(&keyless()).await, client.send(&keyless()).await);
    assert_ne!(first.backend(), second.backend(), "by turns again");
}

#[tokio::test]
async fn backend_that_produces_elsewhere_does_not_hang() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |seen| match seen.number {
        0 => vec![Step::Wait(held.clone()), Step::Send(answer(200, "", b"a"))],
        _ => vec![Step::Send(answer(200, "", b"a"))],
    })
    .await;
    let b = Scripted::ok("b").await;
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let long = begin(&gateway, &Req::post(CHAT, b"{}").session(&gateway.session_of("a"))).await;
    until("it is there", || a.count() == 1).await;
    let end = gateway.inner.clock.now() + 3000;
    while gateway.inner.clock.now() < end {
        assert_eq!(gateway.send(&keyless()).await.status, 200);
        assert!(!on_trial(&gateway).await, "a long prompt beside others");
    }
    drop(long);
}

#[tokio::test]
async fn slow_pool_does_not_hang() {
    let (a, b) = (Scripted::start(|_| vec![Step::Hang]).await, Scripted::start(|_| vec![Step::Hang]).await);
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let _all = [begin(&gateway, &keyless()).await, begin(&gateway, &keyless()).await];
    let end = gateway.inner.clock.now() + 2500;
    until("they have waited", || gateway.inner.clock.now() > end).await;
    for name in ["a", "b"] {
        assert_eq!(gateway.backend(name).await["on_trial"], false, "all are slow");
    }
}

/// Each prompt takes longer than the limit, on all backends: sending them elsewhere multiplies the load.
#[tokio::test]
async fn time_limits_under_saturation_multiply_nothing() {
    for limit in ["first_byte", "first_token"] {
        let slow = || Scripted::start(|_| vec![Step::Work(Duration::from_secs(6)), Step::Send(answer(200, "", b""))]);
        let backends = [slow().await, slow().await, slow().await];
        let setup = ["a", "b", "c"]
            .iter()
            .zip(&backends)
            .fold(Setup::new(), |setup, (name, backend)| setup.backend(name, &backend.url()));
        let gateway = setup.pool(&format!("timeouts: {{ {limit}: 400ms }}")).start().await;
        let mut clients = Vec::new();
        for n in 0..20 {
            clients.push(begin(&gateway, &Req::post(CHAT, b"{}").session(&format!("s{n}"))).await);
        }
        for mut client in clients {
            assert_eq!(client.answer().await.status, 504);
        }
        let prefills: usize = backends.iter().map(Scripted::count).sum();
        assert!(prefills <= 30, "{prefills}: twenty, and the floor of the budget");
        for name in ["a", "b", "c"] {
            assert_eq!(gateway.state(name), "healthy", "{name}: all are busy");
        }
    }
}

/// The same beside a backend that produces: what is slow beside it is unhealthy, and what waits there stays.
#[tokio::test]
async fn requests_of_a_slow_backend_cost_budget() {
    let slow = Scripted::start(|_| vec![Step::Hang]).await;
    let fast =
        Scripted::start(|_| vec![Step::Work(Duration::from_millis(20)), Step::Send(answer(200, "", b"b"))]).await;
    let setup = Setup::new().unbounded().pool("timeouts: { first_byte: 600ms }\n    retry: { budget: 0% }");
    let gateway = setup.backend("a", &slow.url()).backend("b", &fast.url()).start().await;
    let mut clients = Vec::new();
    for session in gateway.sessions_of("a", 40) {
        clients.push(begin(&gateway, &Req::post(CHAT, b"{}").session(&session)).await);
    }
    until("all wait", || slow.count() == 40).await;
    let session = gateway.session_of("b");
    let (mut served, mut late) = (0, 0);
    while gateway.state("a") == "healthy" {
        assert_eq!(gateway.send(&Req::post(CHAT, b"{}").session(&session)).await.status, 200);
    }
    for mut client in clients {
        match client.answer().await.status {
            200 => served += 1,
            504 => late += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!((served, late), (10, 30), "the floor of the budget");
    assert_eq!(gateway.metric("ingle_retries_total", &[("reason", "unhealthy")]).await, 0.0);
}
