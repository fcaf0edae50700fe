//! The load client's report.

use std::time::Duration;

use ingle_sim::load::{ErrorKind, LoadConfig, LoadError, LoadRun, UrlChoice};
use ingle_sim::{Api, BeforeToken, Ending, Fault, SimConfig, SimServer};

use crate::raw::PATIENCE;

async fn server(config: SimConfig) -> SimServer {
    SimServer::start(config.instant()).await.unwrap()
}

#[tokio::test]
async fn report_agrees_with_the_backend() {
    let vllm = SimConfig { prompt_tokens_details: true, ..SimConfig::vllm("gpu0") };
    let llama = SimConfig::llama_server("gpu0");
    let apis = [(Api::Chat, &vllm), (Api::Messages, &llama), (Api::Responses, &vllm), (Api::Responses, &llama)];
    for ((api, config), stream) in apis.into_iter().flat_map(|case| [(case, true), (case, false)]) {
        let server = server(config.clone()).await;
        let load = LoadConfig {
            api,
            sidecar_ratio: 0.5,
            sessions: 6,
            shared_prompt_bytes: 400,
            stream,
            ..LoadConfig::new([server.url()])
        };
        let report = LoadRun::start(load).unwrap().finish().await;
        let stats = server.stats();
        assert_eq!((report.failed(), report.in_flight, report.without_usage), (0, 0, 0));
        assert_eq!(report.requests - report.sidecars, 30);
        assert_eq!(report.requests, stats.completed as u64);
        assert_eq!(report.sidecars, stats.sessionless as u64);
        assert!(report.sidecars > 0);
        assert_eq!((stats.sessions.len(), stats.sessions.get("s-0")), (6, Some(&5)));
        assert_eq!(report.tokens.prompt, stats.prompt_tokens as u64);
        assert_eq!(report.tokens.measured, report.tokens.prompt);
        assert_eq!(report.tokens.cached, stats.cached_tokens as u64);
        assert_eq!(report.tokens.output, 16 * report.requests);
        assert!(report.later_turns.reuse().unwrap() > 0.9, "{report}");
        assert!(report.tokens.reuse().unwrap() < report.later_turns.reuse().unwrap(), "{api:?}");
        assert_eq!((report.ttft.count, report.ttft_later_turns.count), (30, 24));
    }
}

#[tokio::test]
async fn conversations_follow_each_other_until_the_load_is_stopped() {
    let server = server(SimConfig::llama_server("gpu0")).await;
    let ramp = Duration::from_millis(20);
    let load = LoadConfig { successors: true, ramp, sessions: 2, turns: 3, ..LoadConfig::new([server.url()]) };
    let run = LoadRun::start(load).unwrap();
    server.wait_for(PATIENCE, |stats| stats.sessions.contains_key("s-6")).await.unwrap();
    run.stop();
    let report = run.finish().await;
    let stats = server.stats();
    assert_eq!((report.failed(), report.moved_sessions), (0, 0), "{report}");
    assert_eq!(stats.sessions.get("s-4"), Some(&3), "a successor is a session of its own, with all its turns");
    assert!(stats.sessions.values().all(|turns| *turns <= 3));
    // Each of them begins anew, so there is nothing to reuse in its first turn.
    assert!(report.tokens.reuse().unwrap() < report.later_turns.reuse().unwrap());
}

#[tokio::test]
async fn usage_that_is_not_told_is_unknown_not_zero() {
    let server = server(SimConfig::vllm("gpu0")).await;
    let report = LoadRun::start(LoadConfig::new([server.url()])).unwrap().finish().await;
    assert!(report.tokens.prompt > 0);
    assert_eq!((report.tokens.reuse(), report.later_turns.reuse()), (None, None));
}

#[tokio::test]
async fn the_same_seed_sends_the_same_requests() {
    let mut bodies = Vec::new();
    for seed in [7, 7, 8] {
        let server = server(SimConfig::llama_server("gpu0").recording(100)).await;
        let load = LoadConfig { seed, concurrency: 1, sessions: 2, turns: 3, ..LoadConfig::new([server.url()]) };
        let report = LoadRun::start(load).unwrap().finish().await;
        assert_eq!(report.succeeded, 6, "{report}");
        let mut sent: Vec<_> = server.recorded().into_iter().map(|request| request.body).collect();
        // Which session is first is a matter of scheduling.
        sent.sort();
        bodies.push(sent);
    }
    assert_eq!(bodies[0].len(), 6);
    assert_eq!(bodies[0], bodies[1]);
    assert_ne!(bodies[0], bodies[2]);
}

#[tokio::test]
async fn failure_is_counted_by_kind() {
    let before = |ending| Fault::BeforeToken(BeforeToken::new(ending));
    let skeleton = Fault::BeforeToken(BeforeToken { skeleton: true, ..BeforeToken::new(Ending::Reset) });
    // The last figure: how many of two requests had output before they failed.
    let cases = [
        (Fault::status(429), ErrorKind::Status(429), 0),
        (Fault::CloseAfterRequest, ErrorKind::NoAnswer, 0),
        (Fault::Junk, ErrorKind::NoAnswer, 0),
        (Fault::PrematureEof { after_events: 2 }, ErrorKind::Broken, 2),
        (Fault::ResetMidStream { after_events: 2 }, ErrorKind::Broken, 2),
        (Fault::BadChunk { after_events: 2 }, ErrorKind::Broken, 2),
        (Fault::Stall { after_events: 2 }, ErrorKind::Timeout, 2),
        (before(Ending::Close), ErrorKind::Broken, 0),
        (before(Ending::Stall), ErrorKind::Timeout, 0),
        (before(Ending::End), ErrorKind::Incomplete, 0),
        (before(Ending::Error(503)), ErrorKind::InBand, 0),
        (skeleton, ErrorKind::Broken, 0),
    ];
    for (fault, expected, after_output) in cases {
        let server = server(SimConfig::llama_server("gpu0")).await;
        server.inject(fault.clone());
        let mut load = LoadConfig { sessions: 1, turns: 2, ..LoadConfig::new([server.url()]) };
        if expected == ErrorKind::Timeout {
            load.timeout = Duration::from_millis(50);
        }
        let report = LoadRun::start(load).unwrap().finish().await;
        assert_eq!(report.errors.get(&expected), Some(&2), "{fault:?}: {report}");
        assert_eq!((report.requests, report.succeeded, report.tokens.prompt), (2, 0, 0));
        assert_eq!((report.failed_before_output(), report.failed_after_output), (2 - after_output, after_output));
    }
    let dead = server(SimConfig::llama_server("gpu0")).await;
    dead.kill().await;
    let load = LoadConfig { sessions: 1, turns: 2, ..LoadConfig::new([dead.url()]) };
    let report = LoadRun::start(load).unwrap().finish().await;
    assert_eq!(report.errors.get(&ErrorKind::Connect), Some(&2));
}

#[tokio::test]
async fn heads_and_pings_are_no_first_token() {
    for config in [SimConfig::llama_server("gpu0"), SimConfig::vllm("gpu0")] {
        // 2,000 tokens: a prefill of 0.1 s.
        let ping_interval = Some(Duration::from_millis(5));
        let server = SimServer::start(SimConfig { prefill_rate: 20_000.0, ping_interval, ..config }).await.unwrap();
        let load = LoadConfig { sessions: 1, turns: 1, max_tokens: 1, ..LoadConfig::new([server.url()]) };
        let report = LoadRun::start(load).unwrap().finish().await;
        assert_eq!(report.failed(), 0, "{report}");
        assert!(report.ttft.mean >= 0.1, "{report}");
    }
}

#[tokio::test]
async fn several_urls_are_used_per_session_or_per_request() {
    for (choice, sessions_at_each) in [(UrlChoice::PerSession, 2), (UrlChoice::PerRequest, 4)] {
        let (a, b) = (server(SimConfig::default()).await, server(SimConfig::default()).await);
        let load = LoadConfig { sessions: 4, turns: 4, url_choice: choice, ..LoadConfig::new([a.url(), b.url()]) };
        LoadRun::start(load).unwrap().finish().await;
        for server in [&a, &b] {
            assert_eq!(server.stats().sessions.len(), sessions_at_each, "{choice:?}");
            assert_eq!(server.stats().completions, 8);
        }
    }
}

#[tokio::test]
async fn without_a_header_no_session_is_sent() {
    let server = server(SimConfig::default().recording(1)).await;
    let load = LoadConfig { session_header: None, sessions: 1, turns: 1, ..LoadConfig::new([server.url()]) };
    LoadRun::start(load).unwrap().finish().await;
    assert_eq!(server.stats().sessionless, 1);
    assert_eq!(server.recorded()[0].header("x-session-id"), None);
}

#[tokio::test]
async fn a_load_can_be_watched_and_stopped() {
    let server = server(SimConfig::default()).await;
    let load = LoadConfig { turns: usize::MAX, sessions: 2, turn_bytes: 1, ..LoadConfig::new([server.url()]) };
    let run = LoadRun::start(load).unwrap();
    let progress = run.progress();
    server.wait_for(PATIENCE, |stats| stats.completed >= 10).await.unwrap();
    assert!(progress.snapshot().requests >= 10);
    run.stop();
    let report = run.finish().await;
    assert_eq!((report.requests, report.failed(), report.in_flight), (report.succeeded, 0, 0));
}

#[tokio::test]
async fn concurrency_is_a_bound() {
    let config = SimConfig { slots: 100, decode_rate: 0.001, ..SimConfig::default() };
    let server = SimServer::start(config).await.unwrap();
    let load = LoadConfig { sessions: 20, concurrency: 5, first_prompt_bytes: 10, ..LoadConfig::new([server.url()]) };
    let run = LoadRun::start(load).unwrap();
    server.wait_for(PATIENCE, |stats| stats.processing == 5).await.unwrap();
    assert_eq!((run.snapshot().in_flight, server.stats().completions), (5, 5));
    let report = run.finish_within(Duration::ZERO).await;
    assert_eq!(report.succeeded, 0);
    server.wait_for(PATIENCE, |stats| stats.in_flight == 0).await.unwrap();
}

#[tokio::test]
async fn what_cannot_work_is_refused() {
    let error = |load: LoadConfig| LoadRun::start(load).err();
    assert_eq!(error(LoadConfig::new([""; 0])), Some(LoadError::NoUrl));
    for url in ["ftp://x", "nonsense", "https://x"] {
        assert_eq!(error(LoadConfig::new([url])), Some(LoadError::BadUrl(url.into())));
    }
    let header = LoadConfig { session_header: Some("a b".into()), ..LoadConfig::new(["http://x"]) };
    assert_eq!(error(header), Some(LoadError::BadHeader("a b".into())));
}

#[tokio::test]
async fn connections_are_used_again_only_if_asked_for() {
    // Kept, the pool may still open a second one: it does not wait for the first to be handed back.
    for (keep_connections, expected) in [(true, 1..=2), (false, 5..=5)] {
        let server = server(SimConfig::vllm("gpu0")).await;
        let load = LoadConfig { keep_connections, sessions: 1, ..LoadConfig::new([server.url()]) };
        let report = LoadRun::start(load).unwrap().finish().await;
        assert_eq!(report.succeeded, 5);
        assert!(expected.contains(&server.stats().connections), "{}", server.stats().connections);
    }
}
