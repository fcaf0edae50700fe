//! What backends say of their own load.

use std::time::Duration;

use ingle::core::Signals;
use ingle_sim::{Fault, Scope, SimConfig, SimServer};
use serde_json::{Value, json};

use crate::client::{Client, Req};
use crate::harness::{Gateway, Setup, sims, sims_of, until};
use crate::process::Process;
use crate::scripted::{Scripted, Seen, Step, answer, chunk};

/// As often as the config allows.
const OFTEN: &str = "signals: { interval: 100ms }";
const AUTO: &str = "overload: { max_in_flight: auto }";

fn signals(gateway: &Gateway, name: &str) -> Signals {
    let snapshot = gateway.inner.snapshot.load();
    let member = snapshot.pool.position(name).unwrap();
    snapshot.pool.members()[member].backend.signals().unwrap_or_default()
}

async fn until_signals(gateway: &Gateway, name: &str, expected: Signals) {
    until(&format!("{name} says {expected:?}"), || signals(gateway, name) == expected).await;
}

fn asked(sim: &SimServer, path: &str) -> usize {
    sim.stats().requests.get(path).copied().unwrap_or_default()
}

/// Waits for so many more polls of a backend that answers them: whoever else was to be asked has been.
async fn until_polled(sim: &SimServer, more: usize) {
    let polls = asked(sim, "/metrics");
    until("it was polled again", || asked(sim, "/metrics") >= polls + more).await;
}

/// Requests that somebody else than the gateway sent there, and that go on until dropped.
async fn others(sim: &SimServer, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for i in 0..count {
        let mut client = Client::connect(sim.address()).await;
        // 640 tokens.
        client.write(&Req::chat(&format!("{i:<2560}"), 1_000_000, true).bytes()).await;
        clients.push(client);
    }
    until("they are there", || sim.stats().in_flight == count).await;
    clients
}

#[tokio::test]
async fn what_a_llama_server_has_to_do_is_seen() {
    let config = SimConfig { slots: 2, prefill_rate: 1e9, ..SimConfig::llama_server("a") };
    let sim = SimServer::start(config).await.unwrap();
    let gateway = Setup::new().sims([&sim]).pool(OFTEN).start().await;
    until_signals(&gateway, "a", Signals { slots: Some(2), running: Some(0), waiting: Some(0), kv_usage: None }).await;
    let clients = others(&sim, 3).await;
    until_signals(&gateway, "a", Signals { slots: Some(2), running: Some(2), waiting: Some(1), kv_usage: None }).await;

    let said = json!({"slots": 2, "running": 2, "waiting": 1, "kv_usage": null});
    assert_eq!(gateway.backend("a").await["signals"], said);
    let text = gateway.admin_get("/metrics").await.text();
    for (name, value) in [("slots", 2), ("running_requests", 2), ("waiting_requests", 1)] {
        let line = format!("ingle_backend_{name}{{backend=\"a\",pool=\"main\"}} {value}");
        assert!(text.lines().any(|other| other == line), "{line}: {text}");
    }
    assert!(text.contains("# TYPE ingle_backend_kv_usage_ratio gauge\n"), "the family is there");
    assert!(!text.contains("ingle_backend_kv_usage_ratio{"), "a figure that is not known has no series");
    assert_eq!(asked(&sim, "/slots"), 0, "its metrics say all that changes");
    assert_eq!(asked(&sim, "/props"), 1, "its slots do not change");
    drop(clients);
    until_signals(&gateway, "a", Signals { slots: Some(2), running: Some(0), waiting: Some(0), kv_usage: None }).await;
}

#[tokio::test]
async fn what_a_vllm_has_to_do_is_seen() {
    let config = SimConfig { slots: 2, prefill_rate: 1e9, cache_tokens: 2560, ..SimConfig::vllm("a") };
    let sim = SimServer::start(config).await.unwrap();
    let gateway = Setup::new().sims([&sim]).pool(OFTEN).start().await;
    let _clients = others(&sim, 3).await;
    until("all is known", || signals(&gateway, "a").waiting == Some(1)).await;
    let said = signals(&gateway, "a");
    assert_eq!((said.slots, said.running), (None, Some(2)));
    let (kv_usage, exact) = (said.kv_usage.unwrap(), 0.5);
    assert!((exact..exact + 0.05).contains(&kv_usage), "two prompts of 640 tokens and a bit: {kv_usage}");
    let shown = gateway.metric("ingle_backend_kv_usage_ratio", &[("backend", "a")]).await;
    assert!((shown - f64::from(kv_usage)).abs() < 1e-6);
    assert_eq!((asked(&sim, "/props"), asked(&sim, "/slots")), (0, 0), "vLLM has neither");
}

#[tokio::test]
async fn the_old_name_of_vllms_kv_gauge_is_known_and_no_connection_is_kept() {
    let text = "vllm:num_requests_running{model_name=\"m\"} 3.0\nvllm:gpu_cache_usage_perc{model_name=\"m\"} 0.25\n";
    let a = Scripted::ok(text).await;
    let gateway = Setup::new().backend_with("a", &a.url(), "server: vllm").pool(OFTEN).start().await;
    until_signals(&gateway, "a", Signals { running: Some(3), kv_usage: Some(0.25), ..Signals::UNKNOWN }).await;
    until("it was asked again", || a.count() >= 3).await;
    let kept = |seen: &Seen| seen.reused > 0 || seen.header("Connection") != Some("close");
    assert!(!a.seen().iter().any(kept), "{:?}", a.seen());
    assert!(a.seen().iter().all(|seen| seen.head.starts_with("GET /metrics HTTP/1.1\r\n")));
}

#[tokio::test]
async fn without_its_metrics_a_llama_servers_slots_say_what_runs() {
    let config = SimConfig { slots: 3, prefill_rate: 1e9, metrics: false, ..SimConfig::llama_server("a") };
    let sim = SimServer::start(config).await.unwrap();
    let gateway = Setup::new().sims([&sim]).pool(OFTEN).start().await;
    let _clients = others(&sim, 2).await;
    until_signals(&gateway, "a", Signals { slots: Some(3), running: Some(2), ..Signals::UNKNOWN }).await;
    assert_eq!(asked(&sim, "/metrics"), 1);
}

#[tokio::test]
async fn a_missing_endpoint_is_asked_once_said_once_and_not_held_against_the_backend() {
    let bare = |name: &str| SimConfig { metrics: name != "a", slots_endpoint: name != "a", ..llama(name) };
    let sims = sims_of(2, bare).await;
    let process = Process::start(&Setup::new().sims(&sims).pool(OFTEN).yaml()).await;
    let about = |line: &Value, path: &str| line["backend"] == "a" && line["endpoint"] == path;
    let metrics = process.until_line(|line| about(line, "/metrics")).await;
    assert_eq!((&metrics["level"], &metrics["status"]), (&"INFO".into(), &501.into()));
    assert_eq!(metrics["what_to_do"], "start llama-server with --metrics");
    let slots = process.until_line(|line| about(line, "/slots")).await;
    assert_eq!(slots["what_to_do"], "start llama-server with --metrics, or with --slots");
    until_polled(&sims[1], 5).await;
    assert_eq!((asked(&sims[0], "/metrics"), asked(&sims[0], "/slots"), asked(&sims[0], "/props")), (1, 1, 1));
    assert_eq!(process.log().iter().filter(|line| !line["endpoint"].is_null()).count(), 2, "{:#?}", process.lines());
    assert!(!process.log().iter().any(|line| line["to"] == "unhealthy"));

    sims[0].kill().await;
    process.until_line(|line| line["backend"] == "a" && line["to"] == "unhealthy").await;
    sims[0].revive().await.unwrap();
    until("it is asked again after it was away", || asked(&sims[0], "/slots") == 2).await;
    until_polled(&sims[1], 3).await;
    assert_eq!((asked(&sims[0], "/metrics"), asked(&sims[0], "/slots"), asked(&sims[0], "/props")), (2, 2, 2));
}

#[tokio::test]
async fn an_endpoint_that_hangs_harms_nothing_and_what_it_said_before_is_forgotten() {
    let sims = sims(1).await;
    let gateway = Setup::new().sims(&sims).pool(OFTEN).start().await;
    let idle = Signals { slots: Some(4), running: Some(0), waiting: Some(0), kv_usage: None };
    until_signals(&gateway, "a", idle).await;
    sims[0].inject(Fault::Delay(Duration::from_secs(3600)).on(Scope::Path("/metrics")));
    until_signals(&gateway, "a", Signals { slots: Some(4), ..Signals::UNKNOWN }).await;
    let text = gateway.admin_get("/metrics").await.text();
    assert!(text.contains("ingle_backend_slots{") && !text.contains("ingle_backend_running_requests{"));
    let polls = asked(&sims[0], "/metrics");
    until("a poll is given up and the next one made", || asked(&sims[0], "/metrics") > polls + 1).await;
    let waiting = sims[0].stats().requests["/metrics"] - sims[0].disconnects().len();
    assert!(waiting > 0, "one of them is under way");
    assert_eq!(gateway.state("a"), "healthy");
    assert_eq!(gateway.send(&Req::chat("hello", 2, false).session("s")).await.outcome(), "a home 200");
    assert_eq!(gateway.backend("a").await["last_error"], Value::Null);
    sims[0].clear_faults();
    until_signals(&gateway, "a", idle).await;
}

#[tokio::test]
async fn answers_that_are_wrong_in_any_way_harm_nothing() {
    let long = b"vllm:num_requests_running 3\n# TYPE other gauge\n".to_vec();
    let steps: [Vec<Step>; 7] = [
        vec![Step::Close],
        vec![Step::Send(b"\x16\x03\x01 junk\r\n\r\n".to_vec()), Step::Close],
        vec![
            Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nvllm:num_requests_running 9\n".to_vec()),
            Step::Close,
        ],
        vec![Step::Send(answer(200, "", b"\xff\xfe{{{\"\n{} nan\n"))],
        vec![Step::Send(answer(500, "", b"vllm:num_requests_running 9\n"))],
        vec![Step::Reset],
        vec![
            Step::Send([&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..], &chunk(&long)].concat()),
            Step::Flood,
        ],
    ];
    let a = Scripted::start(move |seen| steps[seen.number.min(steps.len() - 1)].clone()).await;
    let gateway = Setup::new().backend_with("a", &a.url(), "server: vllm").pool(OFTEN).start().await;
    until("it says something at last", || signals(&gateway, "a") != Signals::UNKNOWN).await;
    assert_eq!(signals(&gateway, "a"), Signals { running: Some(3), ..Signals::UNKNOWN }, "the endless answer is cut");
    assert!(a.count() >= 7);
    assert_eq!(gateway.state("a"), "healthy");
    assert_eq!(gateway.metric("ingle_health_transitions_total", &[("to", "unhealthy")]).await, 0.0);
}

#[tokio::test]
async fn nobody_is_asked_for_what_nobody_wants() {
    let sims = sims(2).await;
    let gateway = Setup::new().sims(&sims).start().await;
    until("both were probed often", || sims.iter().all(|sim| asked(sim, "/health") > 10)).await;
    for sim in &sims {
        assert_eq!(sim.stats().requests.keys().collect::<Vec<_>>(), ["/health"]);
    }
    assert_eq!(gateway.backend("a").await["signals"], Value::Null);
}

#[tokio::test]
async fn slots_are_asked_for_at_the_start_and_after_each_return_if_the_config_relies_on_them() {
    let config = SimConfig { slots: 7, ..llama("a") };
    let sim = SimServer::start(config).await.unwrap();
    let gateway = Setup::new().sims([&sim]).pool(AUTO).start().await;
    let known = Signals { slots: Some(7), ..Signals::UNKNOWN };
    until_signals(&gateway, "a", known).await;
    sim.kill().await;
    gateway.until_state("a", "unhealthy").await;
    sim.revive().await.unwrap();
    until("they are asked for again", || asked(&sim, "/props") == 2).await;
    until_signals(&gateway, "a", known).await;
    assert_eq!((asked(&sim, "/metrics"), asked(&sim, "/slots")), (0, 0));
}

#[tokio::test]
async fn who_is_asked_and_how_often_follows_a_reload() {
    let (a, b) = (SimServer::start(llama("a")).await.unwrap(), SimServer::start(llama("b")).await.unwrap());
    let said = Signals { slots: llama("a").slots.try_into().ok(), running: Some(0), waiting: Some(0), kv_usage: None };
    let reload = async |gateway: &Gateway, setup: Setup| assert_eq!(gateway.reload(&setup).await.status, 200);
    let gateway = Setup::new().sims([&a]).pool("signals: { interval: 1h }").start().await;
    until_signals(&gateway, "a", said).await;

    reload(&gateway, Setup::new().sims([&a, &b]).pool(OFTEN)).await;
    until_polled(&a, 3).await;
    until_signals(&gateway, "b", said).await;
    assert_eq!(asked(&a, "/props"), 1, "what it said stays known");

    reload(&gateway, Setup::new().sims([&b]).pool(OFTEN)).await;
    let polls = asked(&a, "/metrics");
    until_polled(&b, 3).await;
    assert!(asked(&a, "/metrics") <= polls + 1, "at most one was under way");
    assert!(!gateway.admin_get("/metrics").await.text().contains("backend=\"a\""));

    reload(&gateway, Setup::new().sims([&b])).await;
    until_signals(&gateway, "b", Signals::UNKNOWN).await;
    let polls = asked(&b, "/metrics");
    let probes = asked(&b, "/health");
    until("it was probed again and again", || asked(&b, "/health") > probes + 5).await;
    assert_eq!(asked(&b, "/metrics"), polls);

    reload(&gateway, Setup::new().sims([&b]).pool(OFTEN)).await;
    until_signals(&gateway, "b", said).await;
}

fn llama(name: &str) -> SimConfig {
    SimConfig::llama_server(name).instant()
}
