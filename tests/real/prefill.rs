//! A llama-server that is killed or frozen between the head of a stream and its first token.
//!
//! `INGLE_REAL_STREAMS` is how many streams each test loses (8); `make test-real` has 40.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::harness::{Gateway, Setup};
use crate::llama::{Llama, Real};
use crate::promtool;
use crate::rng::Rng;
use crate::streams::{Api, Got, KINDS, Protocol, stream};
use crate::wait;

/// Tokens of a prompt: seconds of work.
const PROMPT: usize = 3000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Freeze,
}

/// Where in its life a stream is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its head is held.
    Held,
    /// Its client has the head.
    HeadSent,
}

impl Stage {
    fn hold_head(self) -> &'static str {
        if self == Stage::Held { "10s" } else { "0s" }
    }

    /// Streams that are lost at the same time. llama-server reads one prompt after the other, and sends a head when it starts
    /// to, so only one at a time is between its head and its first token.
    fn together(self) -> usize {
        if self == Stage::Held { 4 } else { 1 }
    }

    /// The backend that the response names: that of the head.
    fn named(self) -> &'static str {
        if self == Stage::Held { "b" } else { "a" }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_during_prefills_no_stream_breaks() {
    lose(Fault::Kill, Stage::Held).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_during_prefills_no_stream_breaks() {
    lose(Fault::Freeze, Stage::Held).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_heads_streams_are_continued() {
    lose(Fault::Kill, Stage::HeadSent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_after_heads_streams_are_continued() {
    lose(Fault::Freeze, Stage::HeadSent).await;
}

async fn lose(fault: Fault, stage: Stage) {
    let Some(real) = Real::take(&format!("prefill: {fault:?}, {stage:?}")).await else { return };
    let streams = std::env::var("INGLE_REAL_STREAMS").map_or(8, |text| text.parse::<usize>().unwrap());
    let rounds = streams.div_ceil(stage.together());
    let b = server(&real, 0, stage).await;
    let mut a = server(&real, 0, stage).await;
    let (port, mut rng) = (a.address.port(), Rng::new(7));
    let gateway = gateway(&a, &b, stage).await;
    let mut moved_after = Vec::new();
    for round in 0..rounds {
        let sent = send(&gateway, stage, round);
        moved_after.push(strike(&gateway, &a, fault, stage, &sent.heads, &mut rng).await);
        for (api, protocol, got) in sent.streams.join_all().await {
            assert!(got.whole, "{api:?} over {protocol:?} broke: {got:?}");
            assert_eq!(got.backend, stage.named(), "{api:?} over {protocol:?}");
            api.judge(&got.body);
        }
        drop(a);
        a = server(&real, port, stage).await;
        gateway.until_state("a", "healthy").await;
    }
    moved_after.sort();
    let (p50, max) = (moved_after[moved_after.len() / 2], moved_after[moved_after.len() - 1]);
    let lost = gateway.metric("ingle_retries_total", &[]).await;
    println!("{lost} attempts lost, each with a whole stream elsewhere, after {p50:.2?} (median), {max:.2?} (longest)");
    assert_eq!(lost, (rounds * stage.together()) as f64);
    let resumed = gateway.metric("ingle_streams_resumed_total", &[]).await;
    assert_eq!(resumed, if stage == Stage::HeadSent { lost } else { 0.0 });
    assert_eq!(gateway.metric("ingle_time_to_first_token_seconds_count", &[("backend", "a")]).await, 0.0);
    gateway.until_idle().await;
    promtool::accepts(&gateway).await;
}

/// A server that shows its slots often.
async fn server(real: &Real, port: u16, stage: Stage) -> Llama {
    real.launcher.start_with(port, stage.together(), &[("LLAMA_BATCH", "128")]).ready().await
}

/// Probes as in the issue that asked for this: interval 1 s, timeout 1 s, two failures.
async fn gateway(a: &Llama, b: &Llama, stage: Stage) -> Gateway {
    let setup = Setup::new().health("interval: 1s, timeout: 1s, unhealthy_threshold: 2").unbounded();
    let retry = format!("retry: {{ hold_head: {} }}", stage.hold_head());
    let setup = setup.top("affinity: { return_home: immediately }").pool(&retry);
    let server = "server: llama_server";
    setup.backend_with("a", &a.url(), server).backend_with("b", &b.url(), server).start().await
}

fn kind(number: usize) -> (Api, Protocol) {
    KINDS[number % KINDS.len()]
}

/// Streams at home on `a`.
struct Sent {
    streams: JoinSet<(Api, Protocol, Got)>,
    /// Clients that have a head.
    heads: Arc<AtomicUsize>,
}

fn send(gateway: &Gateway, stage: Stage, round: usize) -> Sent {
    let (mut streams, heads) = (JoinSet::new(), Arc::<AtomicUsize>::default());
    for (index, session) in gateway.sessions_of("a", stage.together()).into_iter().enumerate() {
        let (api, protocol) = kind(round * stage.together() + index);
        let prompt = format!("{round}/{index} {}", "a word of the prompt ".repeat(PROMPT / 21));
        let (req, heads) = (api.request(&prompt, 12, true).session(&session), Arc::clone(&heads));
        let address = gateway.address;
        streams.spawn(async move {
            let got = stream(address, protocol, &req, || {
                heads.fetch_add(1, Ordering::Relaxed);
            });
            (api, protocol, got.await)
        });
    }
    Sent { streams, heads }
}

/// Waits until all prompts are being read, and a moment that differs; then kills or freezes the server. Returns how long it
/// took until all requests had left it.
async fn strike(
    gateway: &Gateway,
    a: &Llama,
    fault: Fault,
    stage: Stage,
    heads: &AtomicUsize,
    rng: &mut Rng,
) -> Duration {
    if stage == Stage::HeadSent {
        wait::until("the clients have their heads", async || heads.load(Ordering::Relaxed) == stage.together()).await;
    } else {
        wait::until("all slots are at work", async || a.busy_slots().await == stage.together()).await;
        assert_eq!(heads.load(Ordering::Relaxed), 0, "heads are held");
    }
    // A random moment of the prefill, which is what this is about, and of the time between two probes.
    tokio::time::sleep(Duration::from_millis(rng.below(700) as u64)).await;
    let retries = gateway.metric("ingle_retries_total", &[]).await;
    a.signal(if fault == Fault::Kill { Signal::KILL } else { Signal::STOP });
    let begun = Instant::now();
    let moved = async || gateway.metric("ingle_retries_total", &[]).await == retries + stage.together() as f64;
    wait::until("all requests have left", moved).await;
    begun.elapsed()
}
