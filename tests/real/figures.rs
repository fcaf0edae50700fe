//! Prompt and cached tokens of all APIs, streaming and not, exactly as llama-server counts them itself.

use crate::harness::Gateway;
use crate::llama::{Llama, Real, setup};
use crate::promtool;
use crate::rng::Rng;
use crate::streams::{Api, Protocol, stream};

/// Turns of a mix; `make test-real` has 200.
fn turns() -> usize {
    std::env::var("INGLE_REAL_TURNS").map_or(30, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_equal_those_of_the_server() {
    let Some(real) = Real::take("figures").await else { return };
    let a = real.server(2).await;
    let gateway = setup([&a.address]).start().await;
    let (mut rng, mut left_out) = (Rng::new(11), (0.0, 0.0));
    let mut texts = vec!["You are a careful assistant. ".repeat(8); 6];
    for turn in 0..turns() {
        let api = [Api::Chat, Api::Messages, Api::Responses][turn % 3];
        let session = rng.below(6);
        texts[session] += &format!("turn {turn} ");
        let longest = if turn % 50 == 49 { 3000 } else { 8 + rng.below(32) };
        // A long answer in one piece can take longer than a client here waits for a byte.
        let streams = longest == 3000 || rng.below(2) == 0;
        let req = api.request(&texts[session], longest, streams).session(&format!("s{session}"));
        let protocol = if rng.below(2) == 0 { Protocol::Http1 } else { Protocol::Http2 };
        if streams {
            let before = own(&a).await;
            let got = stream(gateway.address, protocol, &req, || {}).await;
            assert!(got.whole, "{turn}");
            if api == Api::Messages && !got.body.contains("message_start") {
                // llama-server leaves its figures out if the first token is no whole character.
                let after = own(&a).await;
                left_out = (left_out.0 + after.0 - before.0, left_out.1 + after.1 - before.1);
            }
        } else {
            assert_eq!(gateway.send(&req).await.status, 200, "{turn}");
        }
    }
    judge(&gateway, &a, left_out).await;
    promtool::accepts(&gateway).await;
}

/// Computed and cached prompt tokens, as the server counts them.
async fn own(a: &Llama) -> (f64, f64) {
    (a.counter("prompt_tokens_total").await, a.counter("prompt_tokens_cached_total").await)
}

async fn judge(gateway: &Gateway, a: &Llama, left_out: (f64, f64)) {
    gateway.until_idle().await;
    let counted = async |cached| gateway.metric("ingle_prompt_tokens_total", &[("cached", cached)]).await;
    let (computed, cached) = (counted("false").await, counted("true").await);
    let own = own(a).await;
    let own = (own.0 - left_out.0, own.1 - left_out.1);
    println!("ingle counts {computed} computed and {cached} cached tokens, llama-server {} and {}", own.0, own.1);
    assert!(cached > computed, "the turns of a session reuse what was before");
    assert_eq!((computed, cached), own);
}

/// Messages have other figures than Chat Completions: they must not look like no reuse.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_with_good_reuse_give_no_hint() {
    let Some(real) = Real::take("figures: hints").await else { return };
    let a = real.server(2).await;
    let gateway = setup([&a.address]).start().await;
    let mut text = "A long system prompt that stays the same. ".repeat(10);
    for turn in 0..60 {
        text += &format!("turn {turn} ");
        let req = Api::Messages.request(&text, 4, turn % 2 == 0).session("s");
        assert_eq!(gateway.send(&req).await.status, 200);
    }
    gateway.until_idle().await;
    let judged = gateway.inner.clock.now() + 2500;
    crate::wait::until("hints were judged", async || gateway.inner.clock.now() > judged).await;
    for hint in ["low_reuse", "no_usage", "no_session"] {
        assert_eq!(gateway.metric("ingle_hint", &[("hint", hint)]).await, 0.0, "{hint}");
    }
}
