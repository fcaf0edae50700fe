//! A client that leaves its stream frees the slot: nobody computes for nobody.
//!
//! llama-server (of 2026-10, with or without a gateway) looks after its client only when it writes to it: a stream ends
//! at its next tokens or, in a long prefill, at the latest with its first ones; a JSON answer is computed to its end.

use std::time::Instant;

use crate::client::Req;
use crate::llama::{Llama, Real, setup};
use crate::promtool;

/// A prompt of as many tokens: seconds of work.
const PROMPT: usize = 3000;
/// An answer of as many tokens: minutes of work.
const ANSWER: usize = 6000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_a_long_prefill_and_a_long_answer() {
    let Some(real) = Real::take("departures").await else { return };
    let a = real.server(1).await;
    let gateway = setup([&a.address]).start().await;

    let mut client = gateway.client().await;
    client.write(&Req::chat(&"prefill ".repeat(PROMPT / 8), ANSWER, true).session("s").bytes()).await;
    a.until_busy().await;
    drop(client);
    its_slot_is_free(&a, "a long prefill").await;

    let mut client = gateway.client().await;
    client.write(&Req::chat("hello", ANSWER, true).session("s").bytes()).await;
    client.until(r#""content":""#).await;
    drop(client);
    its_slot_is_free(&a, "a long answer").await;
    let generated = a.counter("tokens_predicted_total").await;
    assert!(generated < ANSWER as f64, "{generated} tokens for nobody");

    gateway.until_idle().await;
    assert_eq!(gateway.metric("ingle_client_aborts_total", &[]).await, 2.0);
    assert_eq!(gateway.metric("ingle_requests_total", &[("code", "499")]).await, 2.0);
    assert_eq!(gateway.metric("ingle_requests_total", &[]).await, 2.0);
    assert_eq!(gateway.backend("a").await["last_error"], serde_json::Value::Null, "not the server's fault");
    promtool::accepts(&gateway).await;
}

async fn its_slot_is_free(a: &Llama, during: &str) {
    let left = Instant::now();
    a.until_idle().await;
    println!("the client left during {during}: the slot is free {:?} later", left.elapsed());
}
