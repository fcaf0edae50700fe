//! Names, labels and figures of `/metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use ingle_sim::load::{LoadConfig, LoadRun};

use crate::client::Req;
use crate::harness::{Setup, sims};

/// Every family with its type and the labels that it has from the start, in alphabetical order.
const FAMILIES: [(&str, &str, &[&str]); 36] = [
    ("ingle_backend_healthy", "gauge", &["backend", "pool"]),
    ("ingle_backend_kv_usage_ratio", "gauge", &[]),
    ("ingle_backend_running_requests", "gauge", &[]),
    ("ingle_backend_slots", "gauge", &[]),
    ("ingle_backend_state", "gauge", &["backend", "pool", "state"]),
    ("ingle_backend_waiting_requests", "gauge", &[]),
    ("ingle_build_info", "gauge", &["version"]),
    ("ingle_certificate_reloads_total", "counter", &["result"]),
    ("ingle_client_aborts_total", "counter", &["phase", "pool"]),
    ("ingle_config_reloads_total", "counter", &["result"]),
    ("ingle_demand_requests", "gauge", &["pool"]),
    ("ingle_displaced_sessions", "gauge", &["pool"]),
    ("ingle_health_transitions_total", "counter", &["backend", "cause", "pool", "to"]),
    ("ingle_held_requests", "gauge", &["pool"]),
    ("ingle_hint", "gauge", &["hint", "pool"]),
    ("ingle_in_flight_requests", "gauge", &["backend", "pool"]),
    ("ingle_key_in_flight_requests", "gauge", &["key"]),
    ("ingle_key_reloads_total", "counter", &["result"]),
    ("ingle_key_requests_total", "counter", &["key", "result"]),
    ("ingle_known_sessions", "gauge", &["pool"]),
    ("ingle_log_lines_dropped_total", "counter", &[]),
    ("ingle_memory_accounted_bytes", "gauge", &["of"]),
    ("ingle_prompt_tokens_total", "counter", &["affinity", "backend", "cached", "pool"]),
    ("ingle_queue_exits_total", "counter", &["backend", "pool", "result"]),
    ("ingle_queued_requests", "gauge", &["backend", "pool"]),
    ("ingle_refused_total", "counter", &["reason"]),
    ("ingle_request_duration_seconds", "histogram", &["backend", "pool"]),
    ("ingle_requests_total", "counter", &["affinity", "backend", "code", "pool"]),
    ("ingle_retries_total", "counter", &["pool", "reason"]),
    ("ingle_session_keys_total", "counter", &["source"]),
    ("ingle_session_moves_total", "counter", &["pool", "reason"]),
    ("ingle_spills_total", "counter", &["pool", "reason"]),
    ("ingle_streams_broken_total", "counter", &["backend", "cause", "pool"]),
    ("ingle_streams_resumed_total", "counter", &["pool"]),
    ("ingle_time_to_first_byte_seconds", "histogram", &["affinity", "backend", "pool"]),
    ("ingle_time_to_first_token_seconds", "histogram", &["affinity", "backend", "pool"]),
];

/// The values of each label of each family.
fn labels(text: &str) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let mut families: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else {
            families.entry(line.split(' ').next().unwrap().to_owned()).or_default();
            continue;
        };
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let family = families.entry(name.to_owned()).or_default();
        for pair in rest.rsplit_once('}').unwrap().0.split(',').filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once('=').unwrap();
            if label != "le" {
                family.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
            }
        }
    }
    families
}

#[tokio::test]
async fn every_family_is_there_from_the_start_with_its_labels_at_0() {
    let sims = sims(2).await;
    let gateway = Setup::new().one_probe().sims(&sims).start().await;
    let text = gateway.admin_get("/metrics").await.text();
    let mut types: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    types.sort_unstable();
    let expected: Vec<String> = FAMILIES.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
    assert_eq!(types, expected);
    let labels = labels(&text);
    for (name, _, expected) in FAMILIES {
        let found: Vec<&String> = labels.get(name).into_iter().flat_map(BTreeMap::keys).collect();
        assert_eq!(found, expected, "{name}");
    }

    let values = |family: &str, label: &str| labels[family][label].iter().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(values("ingle_requests_total", "code"), "2xx 3xx 499 4xx 5xx");
    assert_eq!(values("ingle_requests_total", "backend"), "a b none");
    let outcomes = "balanced fail_open failover home spilled stayed";
    assert_eq!(values("ingle_prompt_tokens_total", "affinity"), outcomes);
    assert_eq!(values("ingle_time_to_first_byte_seconds", "affinity"), outcomes);
    assert_eq!(values("ingle_requests_total", "affinity"), "balanced fail_open failover home none spilled stayed");
    assert_eq!(values("ingle_backend_state", "state"), "healthy probation unhealthy warming");
    assert_eq!(values("ingle_health_transitions_total", "to"), "healthy probation unhealthy warming");
    assert_eq!(
        values("ingle_retries_total", "reason"),
        "closed connect died_before_token error_event first_byte first_token stale status unhealthy"
    );
    assert_eq!(values("ingle_client_aborts_total", "phase"), "request streaming waiting");
    assert_eq!(values("ingle_session_keys_total", "source"), "X-Session-Id invalid none");
    assert_eq!(values("ingle_prompt_tokens_total", "cached"), "false true");
    let bounds = "address admin_key client_connections client_requests connections descriptors memory";
    assert_eq!(values("ingle_refused_total", "reason"), bounds);
    assert_eq!(values("ingle_memory_accounted_bytes", "of"), "bodies connections http2 requests tls");
    let hints = "hot_session low_reuse no_cached_figures no_session sessions_move single_use_ids";
    assert_eq!(values("ingle_hint", "hint"), hints);
    let reasons = "balance draining faster max_in_flight returned slow_start stalled tried unhealthy";
    assert_eq!(values("ingle_session_moves_total", "reason"), reasons);

    let not_0 = |line: &&str| !line.starts_with('#') && !line.ends_with(" 0");
    let not_0: Vec<&str> = text.lines().filter(not_0).map(|line| line.split('{').next().unwrap()).collect();
    let expected =
        ["ingle_backend_healthy", "ingle_backend_state", "ingle_build_info", "ingle_health_transitions_total"];
    assert_eq!(not_0.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(expected));
}

#[tokio::test]
async fn prometheus_accepts_them() {
    let sims = sims(2).await;
    let gateway = Setup::new().sims(&sims).start().await;
    gateway.send(&Req::chat("hello", 2, true).session("s")).await;
    let text = gateway.admin_get("/metrics").await.text();
    let promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = promtool else {
        println!("promtool is not installed: not checked");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn every_request_is_counted_once_and_timed_once() {
    let sims = sims(3).await;
    let gateway = Setup::new().unbounded().sims(&sims).start().await;
    let load = LoadConfig { sessions: 20, turns: 4, sidecar_ratio: 0.5, ..LoadConfig::new([gateway.url()]) };
    let report = LoadRun::start(load).unwrap().finish().await;
    gateway.until_idle().await;
    assert_eq!(report.failed(), 0);
    let total = report.requests as f64;
    assert_eq!(gateway.metric("ingle_requests_total", &[]).await, total);
    assert_eq!(gateway.metric("ingle_requests_total", &[("affinity", "home"), ("code", "2xx")]).await, 80.0);
    assert_eq!(gateway.metric("ingle_requests_total", &[("affinity", "balanced")]).await, report.sidecars as f64);
    assert_eq!(gateway.metric("ingle_request_duration_seconds_count", &[]).await, total);
    assert_eq!(gateway.metric("ingle_time_to_first_byte_seconds_count", &[]).await, total);
    assert_eq!(gateway.metric("ingle_session_keys_total", &[("source", "X-Session-Id")]).await, 80.0);
    assert_eq!(gateway.metric("ingle_session_keys_total", &[("source", "none")]).await, report.sidecars as f64);
    for (name, count) in &report.backends {
        assert_eq!(gateway.metric("ingle_requests_total", &[("backend", name)]).await, *count as f64);
    }
}

#[tokio::test]
async fn no_session_path_or_other_secret_is_in_them() {
    let sims = sims(1).await;
    let gateway = Setup::new().sims(&sims).start().await;
    let req = Req::get("/secret-path?secret-query").session("secret-session").header("Authorization", "secret-key");
    gateway.send(&req).await;
    for path in ["/metrics", "/backends", "/status", "/"] {
        assert!(!gateway.admin_get(path).await.text().contains("secret"), "{path}");
    }
}
