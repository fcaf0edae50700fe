//! What the gateway is for: every turn finds its warm KV cache, on servers that nobody told how to count.

use std::time::Duration;

use ingle_sim::load::{LoadConfig, LoadReport, LoadRun, TokenFigures, UrlChoice};

use crate::harness::Gateway;
use crate::llama::{Llama, Real, setup};
use crate::promtool;

/// An odd number: with an even one, two servers and everybody's turns in order, round robin would send each session to
/// one and the same server by accident.
const SESSIONS: usize = 7;
/// As many as there are sessions per server when they are spread evenly.
const SLOTS: usize = 4;

/// Reuse may differ by this much between two ways to the same cache: answers are random, and how many of their tokens
/// are found again depends on where the text is cut into tokens.
const TOLERANCE: f64 = 0.03;
/// Round robin must lose at least this much. Seen: 18 to 28 points.
const LOSS: f64 = 0.10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_the_gateway_sessions_reuse_what_they_do_directly_and_round_robin_does_not() {
    let Some(real) = Real::take("reuse").await else { return };
    let direct = directly(&real).await;
    let with = through(&real, true).await;
    let without = through(&real, false).await;
    print_table(&[
        ("direct, each session pinned to a server", &direct),
        ("ingle", &with),
        ("ingle, no sessions", &without),
    ]);

    let [pinned, affine, scattered] = [&direct, &with, &without].map(|report| report.later_turns.reuse().unwrap());
    assert!(affine > pinned - TOLERANCE, "{affine} through the gateway, {pinned} directly");
    assert!(scattered < pinned - LOSS, "{scattered} without sessions, {pinned} directly");
    assert!(computed(without.tokens) > computed(with.tokens));
    assert_eq!(with.affinity.keys().collect::<Vec<_>>(), ["home"]);
    assert_eq!((with.moved_sessions, with.backends.len()), (0, 2));
    assert_eq!(without.affinity.keys().collect::<Vec<_>>(), ["balanced"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_answers_and_streams_count_the_same_for_servers_gateway_and_client() {
    let Some(real) = Real::take("usage").await else { return };
    let servers = real.pair(SLOTS).await;
    let gateway = setup(servers.iter().map(|server| &server.address)).start().await;
    let mut seen = TokenFigures::default();
    for stream in [false, true] {
        let load = LoadConfig {
            stream,
            session_prefix: format!("stream-{stream}"),
            seed: 2 + u64::from(stream),
            turns: 3,
            concurrency: 4,
            first_prompt_bytes: 300,
            turn_bytes: 100,
            sidecar_ratio: 0.3,
            ..load([gateway.url()])
        };
        let report = play(load).await;
        assert!(report.sidecars > 0 && report.tokens.cached > 0, "{report}");
        seen.measured += report.tokens.measured;
        seen.cached += report.tokens.cached;
        all_agree(&gateway, &servers, seen).await;
    }
    promtool::accepts(&gateway).await;
}

/// The fair baseline: no gateway, and each session has a server of its own choice.
async fn directly(real: &Real) -> LoadReport {
    let servers = real.pair(SLOTS).await;
    play(LoadConfig { url_choice: UrlChoice::PerSession, ..load(servers.iter().map(Llama::url)) }).await
}

/// The same requests through the gateway, to servers that have not seen any of them.
async fn through(real: &Real, sessions: bool) -> LoadReport {
    let servers = real.pair(SLOTS).await;
    let gateway = setup(servers.iter().map(|server| &server.address)).start().await;
    let session_header = sessions.then(|| "X-Session-Id".to_owned());
    let load =
        LoadConfig { session_header, session_prefix: even_prefix(&gateway, SESSIONS, "even"), ..load([gateway.url()]) };
    let report = play(load).await;
    all_agree(&gateway, &servers, report.tokens).await;
    promtool::accepts(&gateway).await;
    report
}

/// Ids of which half have their home on `a`, rounded up: of so few, chance could give one server nearly all, and the
/// comparison would be of luck.
pub(crate) fn even_prefix(gateway: &Gateway, sessions: usize, begin: &str) -> String {
    let on_a = |prefix: &str| (0..sessions).filter(|i| gateway.home(&format!("{prefix}-{i}")) == "a").count();
    (0..).map(|i| format!("{begin}{i}")).find(|prefix| on_a(prefix) == sessions.div_ceil(2)).unwrap()
}

fn load(urls: impl IntoIterator<Item = String>) -> LoadConfig {
    LoadConfig {
        sessions: SESSIONS,
        turns: 5,
        concurrency: 2,
        first_prompt_bytes: 700,
        turn_bytes: 450,
        max_tokens: 16,
        timeout: Duration::from_secs(120),
        ..LoadConfig::new(urls)
    }
}

async fn play(load: LoadConfig) -> LoadReport {
    let report = LoadRun::start(load).unwrap().finish().await;
    assert_eq!((report.failed(), report.without_usage), (0, 0), "{report}");
    assert_eq!(report.tokens.measured, report.tokens.prompt, "all answers say what was cached: {report}");
    report
}

/// Servers, gateway and client count the same prompt tokens, computed and cached ones.
async fn all_agree(gateway: &Gateway, servers: &[Llama], seen: TokenFigures) {
    gateway.until_idle().await;
    let figures =
        [("false", "prompt_tokens_total", computed(seen)), ("true", "prompt_tokens_cached_total", seen.cached)];
    for (cached, counter, client) in figures {
        let counted = gateway.metric("ingle_prompt_tokens_total", &[("cached", cached)]).await;
        let mut by_servers = 0.0;
        for server in servers {
            by_servers += server.counter(counter).await;
        }
        println!("prompt tokens, cached {cached}: client {client}, gateway {counted}, servers {by_servers}");
        assert_eq!([counted, by_servers], [client as f64; 2], "gateway and servers, cached {cached}: {client}");
    }
}

fn computed(tokens: TokenFigures) -> u64 {
    tokens.measured - tokens.cached
}

fn print_table(rows: &[(&str, &LoadReport)]) {
    println!("{SESSIONS} sessions of 5 turns, 2 at a time, two llama-servers:");
    println!(
        "| in front | prompt tokens reused on turns 2-5 | prompt tokens computed | time to first token p50 / p99 |"
    );
    println!("|---|---|---|---|");
    for (name, report) in rows {
        let reuse = 100.0 * report.later_turns.reuse().unwrap_or_default();
        let (computed, ttft) = (computed(report.tokens), report.ttft);
        println!("| {name} | {reuse:.0} % | {computed} | {:.2} s / {:.2} s |", ttft.p50, ttft.p99);
    }
}
