//! What is not inference takes no slot, moves no session and counts as no prompt.

use ingle_sim::SimServer;

use crate::client::{CHAT, Client, Req};
use crate::harness::{Gateway, Setup, until};
use crate::scripted::{Gate, Scripted, Step, answer};

/// Chats and slow requests wait for the gate; everything else is answered at once.
async fn gated(body: &'static str) -> (Scripted, Gate) {
    let gate = Gate::new();
    let wait = gate.clone();
    let backend = Scripted::start(move |seen| {
        let waits = seen.head.starts_with("POST /v1/chat/completions ") || seen.head.contains("slow");
        let answer = Step::Send(answer(200, "Content-Type: application/json\r\n", body.as_bytes()));
        if waits { vec![Step::Wait(wait.clone()), answer] } else { vec![answer] }
    });
    (backend.await, gate)
}

fn chat() -> Req {
    Req::post(CHAT, b"{}")
}

async fn begin(gateway: &Gateway, req: &Req) -> Client {
    let mut client = gateway.client().await;
    client.write(&req.bytes()).await;
    client
}

fn queries() -> Vec<Req> {
    let gets = ["/v1/models", "/v1/models/a", "/health", "/props", "/slots", "/metrics", "/version", "/unknown"];
    let posts = ["/tokenize", "/detokenize", "/apply-template", "/v1/messages/count_tokens", "/v1/responses/r/cancel"];
    let others = [Req::new("OPTIONS", CHAT, b""), Req::new("HEAD", "/v1/models", b""), Req::new("HEAD", CHAT, b"")];
    let gets = gets.into_iter().map(Req::get);
    gets.chain(posts.into_iter().map(|path| Req::post(path, b"{}"))).chain(others).collect()
}

#[tokio::test]
async fn full_pool_answers_queries_and_refuses_work() {
    let (a, gate) = gated("{}").await;
    let setup = Setup::new().backend("a", &a.url()).pool("overload: { max_in_flight: 1 }");
    let gateway = setup.start().await;
    let mut running = begin(&gateway, &chat()).await;
    until("the chat is there", || a.count() == 1).await;
    for req in queries() {
        for req in [req.clone(), req.session("s")] {
            assert_eq!(gateway.send(&req).await.status, 200, "{req:?}");
        }
    }
    for path in [CHAT, "/v1/embeddings", "/v1/rerank", "/v1/audio/speech", "/v1/messages", "/unknown"] {
        let refused = gateway.send(&Req::post(path, b"{}")).await;
        assert_eq!(refused.status, 503, "{path}");
    }
    gate.open();
    assert_eq!(running.answer().await.status, 200);
    gateway.until_idle().await;
}

#[tokio::test]
async fn full_pool_with_a_queue_answers_queries_at_once() {
    let (a, gate) = gated("{}").await;
    let setup = Setup::new().backend("a", &a.url()).pool("overload: { max_in_flight: 1, queue_wait: 60s }");
    let gateway = setup.start().await;
    let mut running = begin(&gateway, &chat().session("s")).await;
    until("the chat is there", || a.count() == 1).await;
    let mut waiting = begin(&gateway, &chat().session("s")).await;
    let queue = || gateway.inner.snapshot.load().links[0].queue.len();
    until("one waits", || queue() == 1).await;
    for req in queries() {
        assert_eq!(gateway.send(&req.session("s")).await.outcome(), "a home 200");
    }
    assert_eq!(queue(), 1);
    gate.open();
    gate.open();
    assert_eq!((running.answer().await.status, waiting.answer().await.status), (200, 200));
}

#[tokio::test]
async fn slow_query_takes_no_slot_of_a_chat() {
    let (a, gate) = gated("{}").await;
    let setup = Setup::new().backend("a", &a.url()).pool("overload: { max_in_flight: 1 }");
    let gateway = setup.start().await;
    let mut slow = begin(&gateway, &Req::get("/v1/models?slow")).await;
    until("the query is there", || a.count() == 1).await;
    assert_eq!(gateway.metric("ingle_in_flight_requests", &[]).await, 0.0);
    let mut running = begin(&gateway, &chat()).await;
    until("the chat is there, too", || a.count() == 2).await;
    gate.open();
    gate.open();
    assert_eq!((slow.answer().await.status, running.answer().await.status), (200, 200));
    gateway.until_idle().await;
}

#[tokio::test]
async fn queries_take_no_turn_of_the_chats() {
    for balance in ["round_robin", "least_requests"] {
        let (a, b) = (Scripted::ok("{}").await, Scripted::ok("{}").await);
        let setup = Setup::new().backend("a", &a.url()).backend("b", &b.url()).pool(&format!("balance: {balance}"));
        let gateway = setup.start().await;
        let mut chats = Vec::new();
        let mut lists = Vec::new();
        for _ in 0..4 {
            chats.push(gateway.send(&chat()).await.backend().to_owned());
            gateway.until_idle().await;
            lists.push(gateway.send(&Req::get("/v1/models")).await.backend().to_owned());
        }
        assert_eq!((&chats[0], &chats[1]), (&chats[2], &chats[3]), "{balance}: {chats:?}");
        assert_ne!(chats[0], chats[1], "{balance}: {chats:?}");
        assert_ne!(lists[0], lists[1], "{balance}: {lists:?}");
    }
}

/// What `/explain` reports as seen of a session at a backend.
async fn seen(gateway: &Gateway, session: &str, backend: &str) -> u64 {
    let explained = gateway.admin_get(&format!("/explain?session={session}&bytes=40000")).await.json();
    let members = explained["backends"].as_array().unwrap();
    let member = members.iter().find(|member| member["name"] == backend).unwrap();
    member["seen"]["bytes"].as_u64().unwrap_or(0)
}

#[tokio::test]
async fn only_longer_prompts_change_what_is_known_of_a_session() {
    let (a, b) = (Scripted::ok("{}").await, Scripted::ok("{}").await);
    let setup = Setup::new().backend("a", &a.url()).backend("b", &b.url()).top("affinity: { policy: least_ttft }");
    let gateway = setup.start().await;
    let session = gateway.session_of("a");
    let turn = |bytes: usize| Req::post(CHAT, &vec![b' '; bytes]).session(&session);
    assert_eq!(gateway.send(&turn(30_000)).await.outcome(), "a home 200");
    assert_eq!(seen(&gateway, &session, "a").await, 30_000);
    let mut calls: Vec<Req> = queries().into_iter().map(|req| req.session(&session)).collect();
    calls.extend(["/v1/embeddings", "/v1/rerank"].map(|path| Req::post(path, b"{}").session(&session)));
    calls.push(turn(85));
    for req in calls {
        assert_eq!(gateway.send(&req).await.status, 200, "{req:?}");
        assert_eq!(seen(&gateway, &session, "a").await, 30_000, "{req:?}");
    }
    assert_eq!(gateway.send(&turn(31_000)).await.outcome(), "a home 200");
    assert_eq!(seen(&gateway, &session, "a").await, 31_000);
}

#[tokio::test]
async fn title_that_spills_does_not_move_its_session() {
    let (a, gate) = gated("{}").await;
    let b = Scripted::ok("{}").await;
    let setup = Setup::new().backend("a", &a.url()).backend("b", &b.url()).pool("overload: { max_in_flight: 1 }");
    let gateway = setup.start().await;
    let ids = gateway.sessions_of("a", 2);
    let turn = |bytes: usize| Req::post(CHAT, &vec![b' '; bytes]).session(&ids[0]);
    gate.open();
    assert_eq!(gateway.send(&turn(30_000)).await.outcome(), "a home 200");
    gateway.until_idle().await;
    let mut other = begin(&gateway, &chat().session(&ids[1])).await;
    until("another chat is at the home", || a.count() == 2).await;
    assert_eq!(gateway.send(&turn(85)).await.outcome(), "b spilled 200");
    gate.open();
    assert_eq!(other.answer().await.status, 200);
    gateway.until_idle().await;
    gate.open();
    assert_eq!(gateway.send(&turn(31_000)).await.outcome(), "a home 200");
    assert_eq!(gateway.metric("ingle_displaced_sessions", &[]).await, 0.0);
}

#[tokio::test]
async fn only_generations_count_as_prompts_and_first_tokens() {
    let body = r#"{"usage":{"prompt_tokens":100,"prompt_tokens_details":{"cached_tokens":90}}}"#;
    let a =
        Scripted::start(move |_| vec![Step::Send(answer(200, "Content-Type: application/json\r\n", body.as_bytes()))]);
    let a = a.await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    for path in ["/v1/messages/count_tokens", "/v1/embeddings", "/v1/rerank", "/v1/score", "/tokenize", CHAT] {
        assert_eq!(gateway.send(&Req::post(path, b"{}").session("s")).await.status, 200);
    }
    gateway.send(&Req::get("/v1/models").session("s")).await;
    gateway.until_idle().await;
    assert_eq!(gateway.metric("ingle_prompt_tokens_total", &[]).await, 100.0);
    assert_eq!(gateway.metric("ingle_time_to_first_token_seconds_count", &[]).await, 1.0);
    assert_eq!(gateway.metric("ingle_time_to_first_byte_seconds_count", &[]).await, 4.0, "chats and other work");
}

#[tokio::test]
async fn gateway_in_front_sees_a_full_one_as_healthy() {
    let (a, gate) = gated("{}").await;
    let inner = Setup::new().backend("a", &a.url()).pool("overload: { max_in_flight: 1 }").start().await;
    let outer = Setup::new().backend("inner", &inner.url()).start().await;
    let mut running = begin(&outer, &chat()).await;
    until("the chat is there", || a.count() == 1).await;
    assert_eq!(outer.send(&chat()).await.status, 503, "the inner one is full");
    let probes = outer.inner.clock.now() + 300;
    until("some probes have passed", || outer.inner.clock.now() > probes).await;
    assert_eq!(outer.state("inner"), "healthy");
    gate.open();
    assert_eq!(running.answer().await.status, 200);
}

#[tokio::test]
async fn state_changes_are_refused_with_a_hint() {
    let a = Scripted::ok("{}").await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    for path in [
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/sleep?level=1",
        "/%73leep",
        "/wake_up/",
        "/reset_prefix_cache",
        "/reset_mm_cache",
        "/lora-adapters",
        "/slots/0?action=erase",
        "/pause",
        "/resume",
    ] {
        let refused = gateway.send(&Req::post(path, b"{}").session("s")).await;
        assert_eq!((refused.status, refused.code()), (403, "changes_one_server".to_owned()), "{path}");
        assert!(refused.text().contains("admin listener"), "{}", refused.text());
    }
    assert_eq!(a.count(), 0);
    assert_eq!(gateway.send(&Req::get("/lora-adapters")).await.status, 200);
}

#[tokio::test]
async fn probes_are_answered_where_the_listener_does_so() {
    let a = SimServer::start(ingle_sim::SimConfig::llama_server("a").instant()).await.unwrap();
    let keys = crate::access::keys(&["alice alice-key"]);
    let access = format!("access: {{ keys_file: {:?} }}", keys);
    let gateway = Setup::new().sims([&a]).listener("answer_probes: true").top(&access).start().await;
    for (path, body) in [("/livez", "alive\n"), ("/readyz", "ready\n")] {
        let answer = gateway.send(&Req::get(path)).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, body));
        let mut client = gateway.client().await;
        assert_eq!(client.send(&Req::new("HEAD", path, b"")).await.status, 200);
        assert_eq!(client.send(&Req::get(path)).await.text(), body, "the connection is kept");
        assert_eq!(gateway.send(&Req::post(path, b"")).await.status, 401);
    }
    assert_eq!(gateway.metric("ingle_requests_total", &[("code", "2xx")]).await, 0.0);
    let without = Setup::new().backend("a", &a.url()).start().await;
    assert_ne!(without.send(&Req::get("/livez")).await.text(), "alive\n", "off by default");
}

#[tokio::test]
async fn readyz_is_503_before_the_first_probes() {
    let frozen = Scripted::start(|_| vec![Step::Hang]).await;
    let setup = Setup::new().backend("a", &frozen.url()).listener("answer_probes: true");
    let gateway = setup.health("interval: 50ms, path: /hangs, timeout: 50s").start_cold().await;
    assert_eq!(gateway.send(&Req::get("/livez")).await.status, 200);
    assert_eq!(gateway.send(&Req::get("/readyz")).await.status, 503);
}
