//! A llama-server that dies in the middle of its work, and comes back.

use std::time::Duration;

use ingle_sim::load::{ErrorKind, LoadConfig, LoadReport, LoadRun};

use crate::harness::{Gateway, sum};
use crate::llama::{Real, setup};
use crate::reuse::even_prefix;
use crate::{promtool, wait};

const SESSIONS: usize = 8;
/// Turns that each session plays, on average, between two events.
const TURNS: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_had_begun_there_fails_and_only_its_sessions_move_once() {
    let Some(real) = Real::take("killed").await else { return };
    let [a, b] = real.pair(SESSIONS).await;
    let address = a.address;
    let gateway = setup([&a.address, &b.address]).start().await;
    let load = LoadRun::start(conversations(&gateway)).unwrap();

    // Every session has a place by now: they take turns in order.
    succeeded(&load, TURNS * SESSIONS as u64).await;
    wait::until("answers of a have begun, and others not", async || begun_and_waiting(&gateway, "a").await).await;
    drop(a);
    gateway.until_state("a", "unhealthy").await;
    let down = succeeded(&load, load.snapshot().succeeded + TURNS * SESSIONS as u64).await;
    assert_eq!(gateway.state("a"), "unhealthy");

    let _a = real.server_at(address.port(), SESSIONS).await;
    gateway.until_state("a", "healthy").await;
    succeeded(&load, load.snapshot().succeeded + TURNS * SESSIONS as u64).await;
    load.stop();
    let report = load.finish().await;
    explain(&gateway, &report).await;

    let begun = report.errors.get(&ErrorKind::Broken).copied().unwrap_or(0);
    assert_eq!(report.failed(), begun, "only streams that had begun break, and are seen to: {report}");
    assert!(begun <= SESSIONS as u64 / 2, "no session loses two turns: {report}");
    assert_eq!(report.errors, down.errors, "nothing fails when it comes back");
    let its_sessions = SESSIONS as u64 / 2;
    assert_eq!((report.moved_sessions, report.moves), (its_sessions, its_sessions), "{:?}", report.affinity);
    assert_eq!(report.affinity["failover"], its_sessions, "later turns stay: {:?}", report.affinity);
    assert_eq!(gateway.metric("ingle_displaced_sessions", &[]).await, its_sessions as f64);
    for (backend, to, changes) in [("a", "unhealthy", 1.0), ("a", "warming", 1.0), ("b", "unhealthy", 0.0)] {
        let labels = [("backend", backend), ("to", to)];
        assert_eq!(gateway.metric("ingle_health_transitions_total", &labels).await, changes, "{labels:?}");
    }
    gateway.until_idle().await;
    new_sessions_go_home(&gateway).await;
    promtool::accepts(&gateway).await;
}

/// Long conversations of short turns, so that something is under way on both servers all the time.
fn conversations(gateway: &Gateway) -> LoadConfig {
    LoadConfig {
        sessions: SESSIONS,
        session_prefix: even_prefix(gateway, SESSIONS),
        turns: 80,
        think_time: Duration::from_millis(50),
        concurrency: SESSIONS,
        first_prompt_bytes: 200,
        turn_bytes: 40,
        max_tokens: 16,
        timeout: Duration::from_secs(60),
        ..LoadConfig::new([gateway.url()])
    }
}

async fn new_sessions_go_home(gateway: &Gateway) {
    let req = crate::client::Req::chat("hello", 1, false);
    let answer = gateway.send(&req.session(&gateway.session_of("a"))).await;
    assert_eq!(answer.outcome(), "a home 200");
}

async fn succeeded(load: &LoadRun, requests: u64) -> LoadReport {
    let reached = async || Some(load.snapshot()).filter(|report| report.succeeded >= requests);
    wait::for_some(&format!("{requests} answers"), reached).await
}

/// Whether a backend has requests of both kinds. Its first bytes and its answers are counted from the same moment on.
async fn begun_and_waiting(gateway: &Gateway, name: &str) -> bool {
    let metrics = gateway.admin_get("/metrics").await.text();
    let of = |family| sum(&metrics, family, &[("backend", name)]);
    let begun = of("ingle_time_to_first_byte_seconds_count") - of("ingle_requests_total");
    begun >= 1.0 && of("ingle_in_flight_requests") > begun
}

async fn explain(gateway: &Gateway, report: &LoadReport) {
    let mut retries = String::new();
    for reason in ["connect", "stale", "closed", "unhealthy"] {
        let count = gateway.metric("ingle_retries_total", &[("reason", reason)]).await;
        retries += &format!(" {reason} {count}");
    }
    println!("{report}\nattempts elsewhere or again:{retries}; affinity {:?}", report.affinity);
    let begun = report.failed();
    println!(
        "{begun} answers had begun when their server was killed; nobody can finish those, and clients see them break"
    );
}
