//! A llama-server that dies in the middle of its work, and comes back.

use std::time::Duration;

use ingle_sim::load::{ErrorKind, LoadConfig, LoadReport, LoadRun};

use crate::client::Req;
use crate::harness::{Gateway, sum};
use crate::llama::{Real, setup};
use crate::reuse::even_prefix;
use crate::{promtool, wait};

/// Conversations of each kind, half of them at home on the server that dies.
const SESSIONS: usize = 4;
const HALF: u64 = SESSIONS as u64 / 2;
/// Turns that each session plays, on average, between two events.
const TURNS: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_had_begun_there_fails_and_only_its_sessions_move_once() {
    let Some(real) = Real::take("killed").await else { return };
    let [a, b] = real.pair(2 * SESSIONS).await;
    let port = a.address.port();
    // One server has everything for a while: without this, its load alone would send sessions back.
    let gateway = setup([&a.address, &b.address]).unbounded().start().await;
    let loads = [true, false].map(|stream| LoadRun::start(conversations(&gateway, stream)).unwrap());

    // Every session has a place by now: they take turns in order.
    more_answers(&loads).await;
    wait::until("answers of a have begun, and others not", async || begun_and_waiting(&gateway, "a").await).await;
    drop(a);
    gateway.until_state("a", "unhealthy").await;
    more_answers(&loads).await;
    assert_eq!(gateway.state("a"), "unhealthy");
    let while_down = failed(&loads);

    let _a = real.server_at(port, 2 * SESSIONS).await;
    gateway.until_state("a", "healthy").await;
    more_answers(&loads).await;
    assert_eq!(failed(&loads), while_down, "nothing fails when it comes back");
    let [streams, answers] = loads;
    streams.stop();
    answers.stop();
    judge(&gateway, &streams.finish().await, &answers.finish().await).await;
}

async fn judge(gateway: &Gateway, streams: &LoadReport, answers: &LoadReport) {
    let retries = gateway.metric("ingle_retries_total", &[]).await;
    let begun = streams.errors.get(&ErrorKind::Broken).copied().unwrap_or(0);
    println!("streams:\n{streams}\nJSON answers:\n{answers}");
    println!("{retries} attempts were repeated elsewhere: their requests had not begun, and nobody noticed");
    println!(
        "{begun} streams had begun when their server was killed: nobody can finish those, and clients see them break"
    );

    assert_eq!(answers.failed(), 0, "a JSON answer begins when it is complete: {answers}");
    assert_eq!(streams.failed(), begun, "streams that had begun break, and are seen to: {streams}");
    assert!(begun <= HALF, "no session loses two turns: {streams}");
    assert!(retries >= 1.0, "somebody waited for the server that was killed");
    for report in [streams, answers] {
        assert_eq!((report.moved_sessions, report.moves), (HALF, HALF), "{:?}", report.affinity);
        assert_eq!(report.affinity["failover"], HALF, "later turns stay: {:?}", report.affinity);
    }
    assert_eq!(gateway.metric("ingle_displaced_sessions", &[]).await, 2.0 * HALF as f64);
    for (backend, to, changes) in [("a", "unhealthy", 1.0), ("a", "warming", 1.0), ("b", "unhealthy", 0.0)] {
        let labels = [("backend", backend), ("to", to)];
        assert_eq!(gateway.metric("ingle_health_transitions_total", &labels).await, changes, "{labels:?}");
    }
    gateway.until_idle().await;
    let new = Req::chat("hello", 1, false).session(&gateway.session_of("a"));
    assert_eq!(gateway.send(&new).await.outcome(), "a home 200");
    promtool::accepts(gateway).await;
}

/// Long conversations of short turns, so that something is under way on both servers all the time.
fn conversations(gateway: &Gateway, stream: bool) -> LoadConfig {
    LoadConfig {
        stream,
        sessions: SESSIONS,
        session_prefix: even_prefix(gateway, SESSIONS, if stream { "streams" } else { "answers" }),
        seed: 1 + u64::from(stream),
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

/// Waits until each load has got some turns further.
async fn more_answers(loads: &[LoadRun]) {
    let enough: Vec<u64> = loads.iter().map(|load| load.snapshot().succeeded + TURNS * SESSIONS as u64).collect();
    for (load, enough) in loads.iter().zip(enough) {
        wait::until(&format!("{enough} answers"), async || load.snapshot().succeeded >= enough).await;
    }
}

fn failed(loads: &[LoadRun]) -> u64 {
    loads.iter().map(|load| load.snapshot().failed()).sum()
}

/// Whether a backend has requests of both kinds. Its first bytes and its answers are counted from the same moment on.
async fn begun_and_waiting(gateway: &Gateway, name: &str) -> bool {
    let metrics = gateway.admin_get("/metrics").await.text();
    let of = |family| sum(&metrics, family, &[("backend", name)]);
    let begun = of("ingle_time_to_first_byte_seconds_count") - of("ingle_requests_total");
    begun >= 1.0 && of("ingle_in_flight_requests") > begun
}
