//! Hints that affinity does less than it could: in the metrics, the log and `/status` where they should be, and
//! nowhere else.

use std::time::Instant;

use ingle_sim::load::{LoadConfig, LoadRun};
use ingle_sim::{SimConfig, SimServer};
use serde_json::Value;

use crate::client::{CHAT, Client, Req};
use crate::harness::{Gateway, PATIENCE, Setup, sims, sims_of, sum};
use crate::process::Process;
use crate::scripted::{Scripted, Step, answer};

const HINTS: [&str; 6] =
    ["no_session", "single_use_ids", "hot_session", "sessions_move", "no_cached_figures", "low_reuse"];

/// Plays sessions against a gateway, all of them well.
async fn play(url: String, load: impl Fn(LoadConfig) -> LoadConfig) {
    let report = LoadRun::start(load(LoadConfig::new([url]))).unwrap().finish().await;
    assert_eq!(report.failed(), 0);
}

/// A gateway as a process, with all backends healthy.
async fn process(setup: Setup, backends: usize) -> Process {
    let process = Process::start(&setup.yaml()).await;
    for name in ["a", "b"].into_iter().take(backends) {
        process.until_line(|line| line["backend"] == name && line["to"] == "healthy").await;
    }
    process
}

/// Waits until the last request is over, and counted: that is after its client has the whole answer.
async fn settle(process: &Process) {
    let begun = Instant::now();
    while get(process, "/status").await.json()["requests_in_flight"] != 0 {
        assert!(begun.elapsed() < PATIENCE, "a request does not end");
    }
}

async fn get(process: &Process, path: &str) -> crate::client::Answer {
    Client::connect(process.admin).await.send(&Req::get(path)).await
}

/// Waits for a hint in the log; it must be in the metrics and in `/status` too, and no other one be anywhere.
async fn only(process: &Process, hint: &str) -> Value {
    let line = process.until_line(|line| line["hint"].is_string()).await;
    assert_eq!((&line["hint"], &line["level"], &line["pool"]), (&hint.into(), &"WARN".into(), &"main".into()));
    let metrics = get(process, "/metrics").await.text();
    for name in HINTS {
        let holds = sum(&metrics, "ingle_hint", &[("pool", "main"), ("hint", name)]);
        assert_eq!(holds, if name == hint { 1.0 } else { 0.0 }, "{name}");
    }
    let status = get(process, "/status").await.json();
    let hints = status["hints"].as_array().unwrap();
    assert_eq!(hints.len(), 1, "{hints:?}");
    assert_eq!((&hints[0]["hint"], &hints[0]["advice"]), (&line["hint"], &line["advice"]));
    assert!(hints[0]["for_seconds"].as_u64().unwrap() <= PATIENCE.as_secs());
    let said = process.log().iter().filter(|line| line["hint"].is_string()).count();
    assert_eq!(said, 1, "said once: {:#?}", process.lines());
    line
}

/// What the gateway finds as if it were later: `seconds` from now.
async fn found(gateway: &Gateway, seconds: u64) -> Vec<String> {
    gateway.until_idle().await;
    let snapshot = gateway.inner.snapshot.load_full();
    snapshot.sweep(gateway.inner.clock.now() + 1000 * seconds);
    let status = gateway.admin_get("/status").await.json();
    let hints: Vec<String> =
        status["hints"].as_array().unwrap().iter().map(|one| one["hint"].as_str().unwrap().to_owned()).collect();
    for name in HINTS {
        let holds = gateway.metric("ingle_hint", &[("hint", name)]).await == 1.0;
        assert_eq!(holds, hints.iter().any(|hint| hint == name), "{name}");
    }
    hints
}

#[tokio::test]
async fn healthy_traffic_gives_none() {
    let sims = sims(2).await;
    let gateway = Setup::new().unbounded().sims(&sims).start().await;
    play(gateway.url(), |load| LoadConfig { sessions: 80, turns: 4, sidecar_ratio: 0.7, ..load }).await;
    assert_eq!(found(&gateway, 100).await, [""; 0]);
    assert_eq!(gateway.metric("ingle_session_moves_total", &[]).await, 0.0);
}

/// With its flag, vLLM leaves the figure out where it is 0: of a first turn, and of a later one that found nothing. One
/// turn in three that found something is no silence, and a third of all tokens is no low reuse.
#[tokio::test]
async fn nor_does_a_vllm_that_leaves_the_figure_out_where_it_is_0() {
    let backend = Scripted::start(|seen| {
        let details = match seen.number {
            number if number >= 60 && number % 3 == 0 => r#"{"cached_tokens":900}"#,
            _ => "null",
        };
        let usage = format!(r#"{{"usage":{{"prompt_tokens":1000,"prompt_tokens_details":{details}}}}}"#);
        vec![Step::Send(answer(200, "Content-Type: application/json\r\n", usage.as_bytes()))]
    })
    .await;
    let gateway = Setup::new().backend("a", &backend.url()).start().await;
    let mut client = gateway.client().await;
    for number in 0..180 {
        client.send(&Req::post(CHAT, b"{}").session(&format!("chat-{}", number % 60))).await;
    }
    assert_eq!(found(&gateway, 2).await, [""; 0]);
    assert_eq!(gateway.metric("ingle_prompt_tokens_total", &[("cached", "true")]).await, 40.0 * 900.0);
}

#[tokio::test]
async fn chats_without_a_session() {
    let sims = sims(2).await;
    let process = process(Setup::new().sims(&sims), 2).await;
    play(format!("http://{}", process.address), |load| LoadConfig { sessions: 20, session_header: None, ..load }).await;
    let line = only(&process, "no_session").await;
    assert!(line["seen"].as_str().unwrap().ends_with(" chat requests (100 %) had no session, in the last 5 minutes"));
    assert!(line["advice"].as_str().unwrap().contains("affinity.headers"));
}

#[tokio::test]
async fn an_id_for_each_request() {
    let sims = sims(2).await;
    let gateway = Setup::new().sims(&sims).start().await;
    let mut client = gateway.client().await;
    for i in 0..220 {
        client.send(&Req::chat("hello", 1, false).session(&format!("request-{i}"))).await;
    }
    assert_eq!(found(&gateway, 2).await, [""; 0], "they might come again");
    assert_eq!(found(&gateway, 100).await, ["single_use_ids"]);
}

#[tokio::test]
async fn an_id_that_all_share() {
    let sims = sims(2).await;
    let process = process(Setup::new().sims(&sims), 2).await;
    let mut client = Client::connect(process.address).await;
    for i in 0..250 {
        let id = if i % 2 == 0 { "constant-0815".to_owned() } else { format!("chat-{}", i % 40) };
        client.send(&Req::chat("a short chat of somebody", 1, false).session(&id)).await;
    }
    let line = only(&process, "hot_session").await;
    let explained = get(&process, "/explain?session=constant-0815").await.json();
    let hash = explained["session_hash"].as_str().unwrap();
    assert!(line["seen"].as_str().unwrap().contains(hash), "{line}");
    assert!(process.lines().iter().all(|line| !line.contains("constant-0815")), "the id is a secret");
}

#[tokio::test]
async fn sessions_that_move_each_counted_with_its_reason() {
    let sims = sims(2).await;
    let process = process(Setup::new().pool("drain: { sessions: at_once }").sims(&sims), 2).await;
    let (mut client, mut admin) = (Client::connect(process.address).await, Client::connect(process.admin).await);
    let mut places = vec![String::new(); 20];
    let mut moves = 0;
    for turn in 0..4 {
        let (out, back) = if turn % 2 == 0 { ("a", "b") } else { ("b", "a") };
        admin.send(&Req::post(&format!("/backends/{back}/undrain"), b"")).await;
        admin.send(&Req::post(&format!("/backends/{out}/drain"), b"")).await;
        for (i, place) in places.iter_mut().enumerate() {
            let answer = client.send(&Req::chat("hello", 1, false).session(&format!("chat-{i}"))).await;
            moves += usize::from(!place.is_empty() && place != answer.backend());
            answer.backend().clone_into(place);
        }
        settle(&process).await;
    }
    assert_eq!(moves, 60);
    let line = only(&process, "sessions_move").await;
    assert!(line["seen"].as_str().unwrap().contains("turn before: draining "), "{line}");
    let metrics = get(&process, "/metrics").await.text();
    assert_eq!(sum(&metrics, "ingle_session_moves_total", &[("reason", "draining")]), 60.0);
    assert_eq!(sum(&metrics, "ingle_session_moves_total", &[]), 60.0);
}

#[tokio::test]
async fn a_session_that_fails_over_moves_once() {
    let mut sims = sims(2).await;
    let gateway = Setup::new().sims(&sims).start().await;
    let sessions = gateway.sessions_of("a", 3);
    for turn in 0..3 {
        if turn == 1 {
            drop(sims.remove(0));
        }
        for id in &sessions {
            assert_eq!(gateway.send(&Req::chat("hello", 1, false).session(id)).await.status, 200);
        }
    }
    gateway.until_idle().await;
    let moves = |reason| gateway.metric("ingle_session_moves_total", reason);
    let failed = moves(&[("reason", "tried")]).await + moves(&[("reason", "unhealthy")]).await;
    assert_eq!((failed, moves(&[]).await), (3.0, 3.0));
}

#[tokio::test]
async fn a_vllm_that_does_not_tell_what_was_cached() {
    let tells = SimServer::start(SimConfig::llama_server("a").instant()).await.unwrap();
    let silent = SimServer::start(SimConfig::vllm("b").instant()).await.unwrap();
    let process = process(Setup::new().sims([&tells, &silent]), 2).await;
    play(format!("http://{}", process.address), |load| LoadConfig { sessions: 40, turns: 3, ..load }).await;
    let line = only(&process, "no_cached_figures").await;
    assert!(line["seen"].as_str().unwrap().contains("what was cached: b, in the last"), "{line}");
}

#[tokio::test]
async fn a_cache_that_keeps_nothing() {
    let sims = sims_of(2, |name| SimConfig { cache_tokens: 0, ..SimConfig::llama_server(name).instant() }).await;
    let process = process(Setup::new().unbounded().sims(&sims), 2).await;
    play(format!("http://{}", process.address), |load| LoadConfig { sessions: 20, turns: 5, ..load }).await;
    let line = only(&process, "low_reuse").await;
    assert!(line["seen"].as_str().unwrap().starts_with("0 of "), "{line}");
}

/// What affinity saved is what requests with a session had cached, whatever became of their affinity.
#[tokio::test]
async fn what_was_saved_is_exact() {
    let sims = sims(2).await;
    let gateway = Setup::new().unbounded().sims(&sims).start().await;
    play(gateway.url(), |load| LoadConfig { sessions: 6, turns: 4, sidecar_ratio: 0.5, ..load }).await;
    gateway.send(&Req::post(CHAT, b"{}").session("a session")).await;
    gateway.until_idle().await;
    let tokens = |cached| gateway.metric("ingle_prompt_tokens_total", cached);
    let (home, all) = ([("affinity", "home"), ("cached", "true")], [("affinity", "home")]);
    let (cached, prompt) = (tokens(&home).await, tokens(&all).await);
    assert!(cached > 0.0 && prompt > cached && tokens(&[]).await > prompt, "{cached} of {prompt}");
    let saved = &gateway.admin_get("/status").await.json()["affinity_saved"];
    for part in ["last_5m", "since_start"] {
        assert_eq!(saved[part]["cached_prompt_tokens"].as_f64(), Some(cached), "{part}");
        assert_eq!(saved[part]["prompt_tokens"].as_f64(), Some(prompt), "{part}");
    }
    let later = gateway.inner.snapshot.load().watch.saved(gateway.inner.clock.now() + 300_000);
    assert_eq!((later.lately.prompt, later.ever.prompt as f64), (0, prompt));
}
