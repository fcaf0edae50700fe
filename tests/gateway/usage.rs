//! Prompt tokens, exactly as the backends counted them.

use ingle_sim::load::{LoadConfig, LoadRun};
use ingle_sim::{SimConfig, SimServer};

use crate::client::{CHAT, Req};
use crate::harness::{Gateway, Setup, sims};
use crate::scripted::{Scripted, Step, answer, chunk, event_head};

async fn tokens(gateway: &Gateway, cached: &str) -> usize {
    tokens_of(gateway, &[("cached", cached)]).await
}

async fn tokens_of(gateway: &Gateway, labels: &[(&str, &str)]) -> usize {
    let tokens = gateway.metric("ingle_prompt_tokens_total", labels).await;
    format!("{tokens}").parse().expect("a whole number")
}

/// Plays sessions; what the gateway counted must be what the server counted.
async fn agree(config: SimConfig, stream: bool) -> (usize, usize) {
    let sim = SimServer::start(config).await.unwrap();
    let gateway = Setup::new().sims([&sim]).start().await;
    let load = LoadConfig { sessions: 6, turns: 4, stream, ..LoadConfig::new([gateway.url()]) };
    let report = LoadRun::start(load).unwrap().finish().await;
    assert_eq!((report.failed(), report.succeeded), (0, 24));
    gateway.until_idle().await;
    let stats = sim.stats();
    let (computed, cached) = (tokens(&gateway, "false").await, tokens(&gateway, "true").await);
    assert_eq!(computed + cached, stats.prompt_tokens);
    assert_eq!(tokens_of(&gateway, &[("affinity", "home")]).await, computed + cached);
    let backend = gateway.backend(sim.name()).await;
    assert_eq!(backend["prompt_tokens"], computed + cached);
    assert_eq!(backend["cached_prompt_tokens"], cached);
    (cached, stats.cached_tokens)
}

#[tokio::test]
async fn of_llama_server_in_json_and_streams() {
    for stream in [false, true] {
        let (counted, real) = agree(SimConfig::llama_server("a").instant(), stream).await;
        assert!(counted == real && real > 0, "{counted} of {real}, stream {stream}");
    }
}

#[tokio::test]
async fn of_vllm_in_json_and_streams() {
    for stream in [false, true] {
        let config = SimConfig { prompt_tokens_details: true, ..SimConfig::vllm("a").instant() };
        let (counted, real) = agree(config, stream).await;
        assert!(counted == real && real > 0, "{counted} of {real}, stream {stream}");
    }
}

#[tokio::test]
async fn of_a_vllm_that_does_not_tell_what_was_cached() {
    for stream in [false, true] {
        assert_eq!(agree(SimConfig::vllm("a").instant(), stream).await.0, 0);
    }
}

/// What a stream says without being asked for usage: llama-server its timings, vLLM nothing.
#[tokio::test]
async fn of_streams_that_were_not_asked_for_usage() {
    let vllm = SimConfig { prompt_tokens_details: true, ..SimConfig::vllm("a").instant() };
    for (config, tells) in [(SimConfig::llama_server("a").instant(), true), (vllm, false)] {
        let sim = SimServer::start(config).await.unwrap();
        let gateway = Setup::new().sims([&sim]).start().await;
        let mut chat = "some words that both turns begin with ".repeat(50);
        for _ in 0..2 {
            let text = format!(r#"{{"messages":[{{"role":"user","content":"{chat}"}}],"max_tokens":3,"stream":true}}"#);
            let req = Req::post(CHAT, text.as_bytes()).header("Content-Type", "application/json").session("s");
            assert!(gateway.send(&req).await.whole);
            chat += "and some more";
        }
        gateway.until_idle().await;
        let (stats, expected) = (sim.stats(), |tokens| if tells { tokens } else { 0 });
        assert!(stats.cached_tokens > 0);
        assert_eq!(tokens(&gateway, "true").await, expected(stats.cached_tokens));
        assert_eq!(tokens_of(&gateway, &[]).await, expected(stats.prompt_tokens));
    }
}

/// Each outcome and each backend has its own tokens: those of requests without a session are not mixed in.
#[tokio::test]
async fn by_backend_and_outcome() {
    let sims = sims(2).await;
    let gateway = Setup::new().unbounded().sims(&sims).start().await;
    let load = LoadConfig { sessions: 20, turns: 3, sidecar_ratio: 1.0, ..LoadConfig::new([gateway.url()]) };
    let report = LoadRun::start(load).unwrap().finish().await;
    assert_eq!((report.failed(), report.sidecars), (0, 60));
    gateway.until_idle().await;
    for sim in &sims {
        let of =
            async |labels: &[(&str, &str)]| tokens_of(&gateway, &[&[("backend", sim.name())], labels].concat()).await;
        let stats = sim.stats();
        assert_eq!(of(&[]).await, stats.prompt_tokens, "{}", sim.name());
        assert_eq!(of(&[("cached", "true")]).await, stats.cached_tokens, "{}", sim.name());
        let (home, balanced) = (of(&[("affinity", "home")]).await, of(&[("affinity", "balanced")]).await);
        assert!(home > balanced && balanced > 0, "{home} {balanced}");
        assert_eq!(home + balanced, stats.prompt_tokens);
    }
}

#[tokio::test]
async fn of_nothing_but_good_json_and_event_streams() {
    let usage = br#"{"usage":{"prompt_tokens":100,"prompt_tokens_details":{"cached_tokens":40}}}"#;
    let cases: [(u16, &str, usize); 6] = [
        (200, "Content-Type: application/json\r\n", 60),
        (200, "Content-Type: application/json; charset=utf-8\r\n", 60),
        (200, "Content-Type: text/plain\r\n", 0),
        (200, "Content-Type: application/json\r\nContent-Encoding: gzip\r\n", 0),
        (400, "Content-Type: application/json\r\n", 0),
        (200, "", 0),
    ];
    for (status, headers, expected) in cases {
        let a = Scripted::start(move |_| vec![Step::Send(answer(status, headers, usage))]).await;
        let gateway = Setup::new().backend("a", &a.url()).start().await;
        gateway.send(&Req::post("/", b"{}")).await;
        gateway.until_idle().await;
        assert_eq!(tokens(&gateway, "false").await, expected, "{status} {headers}");
        assert_eq!(tokens(&gateway, "true").await, expected * 2 / 3, "{status} {headers}");
    }
}

#[tokio::test]
async fn however_the_end_of_the_stream_is_cut_into_pieces() {
    let end = br#"data: {"choices":[],"usage":{"prompt_tokens":3020,"prompt_tokens_details":{"cached_tokens":2956}}}"#;
    for size in [1, 7, 64, 10_000] {
        let a = Scripted::start(move |_| {
            let mut steps = vec![Step::Send(event_head()), Step::Send(chunk(&[b'x'; 9000]))];
            steps.extend(end.chunks(size).map(|piece| Step::Send(chunk(piece))));
            steps.extend([Step::Send(chunk(b"\n\ndata: [DONE]\n\n")), Step::Send(chunk(b""))]);
            steps
        })
        .await;
        let gateway = Setup::new().backend("a", &a.url()).start().await;
        gateway.send(&Req::post("/", b"{}").session("s")).await;
        gateway.until_idle().await;
        assert_eq!((tokens(&gateway, "false").await, tokens(&gateway, "true").await), (64, 2956), "{size}");
    }
}

#[tokio::test]
async fn of_a_retried_request_once_at_the_backend_that_answered() {
    let a = Scripted::start(|_| vec![Step::Send(answer(503, "", b"{\"usage\":{\"prompt_tokens\":5}}"))]).await;
    let sim = SimServer::start(SimConfig::llama_server("b").instant()).await.unwrap();
    let gateway = Setup::new().backend("a", &a.url()).sims([&sim]).start().await;
    gateway.send(&Req::chat("hello there", 3, false).session(&gateway.session_of("a"))).await;
    gateway.until_idle().await;
    let labels = [("backend", "b"), ("affinity", "failover")];
    let counted = tokens_of(&gateway, &labels).await;
    assert_eq!(counted, sim.stats().prompt_tokens);
    assert_eq!(tokens_of(&gateway, &[]).await, counted);
}
