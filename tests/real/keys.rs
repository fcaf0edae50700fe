//! A llama-server that asks for an API key of its own.

use ingle::config::Digest;
use serde_json::Value;

use crate::client::{Client, Req};
use crate::harness::{Setup, file};
use crate::llama::Real;
use crate::{promtool, wait};

const OWN: &str = "sk-of-the-llama-server";
const CLIENTS: &str = "ik-of-the-client";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_gets_its_own_and_the_client_needs_another() {
    let Some(real) = Real::take("keys").await else { return };
    let server = real.launcher.start_with(0, 2, &[("LLAMA_API_KEY", OWN)]).ready().await;
    let secret = file(OWN);
    let keys = file(&format!("alice sha256:{}\n", Digest::of(CLIENTS.as_bytes()).to_hex()));
    let gateway = Setup::new()
        .backend_with("a", &server.url(), &format!("server: llama_server, api_key_file: {secret:?}"))
        .health("path: /v1/models, interval: 100ms, timeout: 10s")
        .pool("signals: { interval: 100ms }")
        .top(&format!("access: {{ keys_file: {keys:?} }}"))
        .start()
        .await;
    let chat = |key: &str| Req::chat("hello", 4, false).session("s").header("Authorization", &format!("Bearer {key}"));
    let direct = Client::connect(server.address).await.send(&chat(CLIENTS)).await;
    assert_eq!(direct.status, 401, "it knows its own key only: {}", direct.text());

    for _ in 0..2 {
        let answer = gateway.send(&chat(CLIENTS)).await;
        assert_eq!(answer.outcome(), "a home 200", "{}", answer.text());
    }
    let refused = gateway.send(&chat(OWN)).await;
    assert_eq!((refused.status, refused.code().as_str()), (401, "invalid_api_key"), "that one is not for clients");
    let cached = [("backend", "a"), ("cached", "true")];
    assert!(gateway.metric("ingle_prompt_tokens_total", &cached).await > 0.0, "the second was found in the cache");
    // llama-server shows its slots and its metrics to who has the key.
    let signals = async || gateway.backend("a").await["signals"].clone();
    wait::until("its signals are known", async || signals().await["slots"] == 2).await;
    wait::until("its metrics are read", async || signals().await["running"] != Value::Null).await;
    promtool::accepts(&gateway).await;
}
