//! Reuse figures, eviction, slots.

use serde_json::{Value, json};

use ingle_sim::{SimConfig, SimServer, token_count};

use crate::raw::{CHAT, PATIENCE, Raw, chat};

async fn server(change: impl FnOnce(&mut SimConfig)) -> SimServer {
    let mut config = SimConfig::llama_server("gpu0").instant();
    change(&mut config);
    SimServer::start(config).await.unwrap()
}

fn cached(answer: &Value) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

/// Plays turns and returns (prompt tokens, cached tokens) of each.
async fn conversation(server: &SimServer, turns: usize) -> Vec<(u64, u64)> {
    let mut client = Raw::to(server).await;
    let mut messages = Vec::new();
    let mut figures = Vec::new();
    for turn in 0..turns {
        let text = format!("{turn} ").repeat(101);
        messages.push(json!({"role": "user", "content": text}));
        let answer = client.post(CHAT, &json!({"messages": messages, "max_tokens": 10})).await.json();
        figures.push((answer["usage"]["prompt_tokens"].as_u64().unwrap(), cached(&answer)));
        messages.push(answer["choices"][0]["message"].clone());
    }
    figures
}

#[tokio::test]
async fn each_turn_reuses_exactly_the_full_blocks_of_everything_before() {
    for (cache_output, block) in [(true, 16), (false, 16), (true, 1)] {
        let server = server(|c| (c.cache_output, c.block_tokens) = (cache_output, block)).await;
        let figures = conversation(&server, 5).await;
        // "user: " + 202 bytes + "\n", then "assistant: ", then an answer of 40 bytes + "\n".
        let prompt = |turn: usize| (turn + 1) * (6 + 202 + 1) + turn * (11 + 40 + 1) + 11;
        for (turn, figure) in figures.iter().enumerate() {
            let before = match turn.checked_sub(1) {
                None => 0,
                Some(last) => prompt(last) + if cache_output { 40 } else { 0 },
            };
            let reused = before / 4 / block * block;
            assert_eq!(*figure, (token_count(prompt(turn)) as u64, reused as u64), "turn {turn}");
        }
        let stats = server.stats();
        assert_eq!(stats.prompt_tokens as u64, figures.iter().map(|f| f.0).sum::<u64>());
        assert_eq!(stats.cached_tokens as u64, figures.iter().map(|f| f.1).sum::<u64>());
        assert_eq!((stats.completed, stats.output_tokens, stats.in_flight), (5, 50, 0));
    }
}

#[tokio::test]
async fn a_full_cache_forgets_the_session_that_was_silent_longest() {
    // Two conversations' prompts of 1,000 tokens fit, a third does not.
    let server = server(|c| (c.cache_tokens, c.cache_output) = (2048, false)).await;
    let mut client = Raw::to(&server).await;
    let prompts: Vec<Value> = ["a", "b", "c"].iter().map(|text| chat(&text.repeat(4000), 1, false)).collect();
    for (prompt, reused) in [(0, false), (1, false), (0, true), (2, false), (0, true), (1, false)] {
        let cached = cached(&client.post(CHAT, &prompts[prompt]).await.json());
        assert_eq!(cached > 900, reused, "prompt {prompt}: {cached} cached");
    }
}

#[tokio::test]
async fn requests_beyond_the_slots_queue_and_are_served() {
    let server = server(|c| (c.slots, c.time_scale, c.decode_rate) = (2, 1.0, 0.001)).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Raw::to(&server).await;
        client.send(&crate::raw::post(CHAT, &chat("hi", 2, true))).await;
        clients.push(client);
    }
    let stats = server.wait_for(PATIENCE, |s| s.processing == 2 && s.deferred == 1).await.unwrap();
    assert_eq!((stats.in_flight, stats.completions), (3, 3));
    let metrics = Raw::to(&server).await.get("/metrics").await.body;
    assert!(metrics.contains("llamacpp:requests_processing 2\n") && metrics.contains("llamacpp:requests_deferred 1\n"));
    let slots = Raw::to(&server).await.get("/slots").await.json();
    assert!(slots.as_array().unwrap().iter().all(|slot| slot["is_processing"] == true));
    // The two first are at their first token and would take long to their second.
    clients.remove(0);
    server.wait_for(PATIENCE, |s| s.processing == 2 && s.deferred == 0).await.unwrap();
}
