//! One completion: queue, prefill, decode, answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep, sleep_until};

use crate::config::{ServerKind, SimConfig};
use crate::engine::Prefilled;
use crate::prompt::CompletionRequest;
use crate::request::Request;
use crate::server::Shared;
use crate::shape::{Completion, Frame, Shape};
use crate::tokens::{BYTES_PER_TOKEN, BlockChain, generated_token};
use crate::wire::{End, Wire};

/// A comment line: keeps a silent stream alive, is no event and no token.
const PING: &str = ":\n\n";

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Answers `/v1/chat/completions` (`chat`) and `/v1/completions`.
pub(crate) async fn answer(shared: &Shared, request: &Request, chat: bool, wire: &mut Wire<'_>) -> Result<(), End> {
    let shape = Shape::of(shared.config.server);
    let asked = match CompletionRequest::parse(&request.body) {
        Ok(asked) => asked,
        Err(message) => return wire.whole(400, &[], shape.bad_request(&message).as_bytes()).await,
    };
    let prompt = asked.prompt(chat, shared.config.block_tokens);
    let limit = asked.max_tokens();
    let job = Job {
        shape,
        output_tokens: limit.unwrap_or(shared.config.default_output_tokens.max(1)),
        completion: Completion {
            id: format!("chatcmpl-{}-{}", shared.config.name, NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            model: shared.config.model.clone(),
            fingerprint: shared.config.name.clone(),
            chat,
            finish: if limit.is_some() { "length" } else { "stop" },
            tells_cached: shared.config.prompt_tokens_details,
            include_usage: asked.includes_usage(),
            ..Completion::default()
        },
        prompt,
    };
    // Whatever the request was, its text is not needed from here on.
    let streams = asked.streams();
    drop(asked);
    if streams { job.stream(shared, wire).await } else { job.plain(shared, wire).await }
}

/// The text that every backend of this configuration generates for a request to `/v1/chat/completions`: for clients that
/// verify what they get. As long as the request allows; a shorter limit gives a beginning of the same text.
///
/// # Errors
/// When the body is no completion request.
pub fn generated_text(config: &SimConfig, body: &[u8]) -> Result<String, String> {
    let asked = CompletionRequest::parse(body)?;
    let tokens = asked.max_tokens().unwrap_or(config.default_output_tokens.max(1));
    Ok(text(asked.prompt(true, config.block_tokens).fingerprint(), 0..tokens))
}

/// A completion under way.
struct Job {
    shape: Shape,
    prompt: BlockChain,
    output_tokens: usize,
    completion: Completion,
}

impl Job {
    async fn plain(mut self, shared: &Shared, wire: &mut Wire<'_>) -> Result<(), End> {
        let prefilled = shared.engine.prefill(&self.prompt).await;
        self.prefilled(shared, &prefilled);
        let seed = self.prompt.fingerprint();
        let text = text(seed, 0..self.output_tokens);
        let end = prefilled.end + self.decode_time(shared, self.output_tokens.saturating_sub(1));
        wait_until(shared, end).await;
        self.decoded(shared);
        self.finished(shared, &text);
        wire.whole(200, &[], self.shape.plain(&self.completion, &text).as_bytes()).await?;
        shared.ledger.completed(self.output_tokens);
        Ok(())
    }

    async fn stream(mut self, shared: &Shared, wire: &mut Wire<'_>) -> Result<(), End> {
        let prefilled = self.prefill_stream(shared, wire).await?;
        self.prefilled(shared, &prefilled);
        let frame = self.shape.token_frame(&self.completion);
        if let Some(first) = self.shape.first_event(&self.completion) {
            wire.chunk(&["data: ", &first, "\n\n"]);
        }
        let seed = self.prompt.fingerprint();
        self.tokens(shared, wire, &prefilled, seed, &frame).await?;
        self.decoded(shared);
        for event in self.shape.last_events(&self.completion) {
            wire.chunk(&["data: ", &event, "\n\n"]);
        }
        wire.chunk(&["data: [DONE]\n\n"]);
        let text = text(seed, 0..self.output_tokens);
        self.finished(shared, &text);
        wire.finish_stream().await?;
        shared.ledger.completed(self.output_tokens);
        Ok(())
    }

    /// vLLM sends its response head at once, llama-server with the first event or ping.
    async fn prefill_stream<'s>(&self, shared: &'s Shared, wire: &mut Wire<'_>) -> Result<Prefilled<'s>, End> {
        let mut head_sent = false;
        if self.shape.server == ServerKind::Vllm {
            wire.stream_head(self.shape.stream_type());
            wire.flush().await?;
            head_sent = true;
        }
        let mut prefill = std::pin::pin!(shared.engine.prefill(&self.prompt));
        let ping = shared.config.ping_interval;
        let prefilled = loop {
            tokio::select! {
                biased;
                prefilled = &mut prefill => break prefilled,
                () = sleep(ping.unwrap_or_default()), if ping.is_some() => {
                    if !std::mem::replace(&mut head_sent, true) {
                        wire.stream_head(self.shape.stream_type());
                    }
                    wire.chunk(&[PING]);
                    wire.flush().await?;
                }
            }
        };
        if !head_sent {
            wire.stream_head(self.shape.stream_type());
        }
        Ok(prefilled)
    }

    /// Token `i` is due `i / rate` after the prefill; those that are due together are written together.
    async fn tokens(
        &self,
        shared: &Shared,
        wire: &mut Wire<'_>,
        prefilled: &Prefilled<'_>,
        seed: u64,
        frame: &Frame,
    ) -> Result<(), End> {
        for index in 0..self.output_tokens {
            let due = prefilled.end + self.decode_time(shared, index);
            if shared.config.time_scale > 0.0 && due > Instant::now() {
                wire.flush().await?;
                sleep_until(due).await;
            }
            let word = generated_token(seed, index);
            let word = str::from_utf8(&word).unwrap_or_default();
            wire.token_event([&frame.before, word, &frame.after]).await?;
        }
        Ok(())
    }

    fn prefilled(&mut self, shared: &Shared, prefilled: &Prefilled<'_>) {
        self.completion.prompt_tokens = prefilled.prompt_tokens;
        self.completion.cached_tokens = prefilled.cached_tokens;
        self.completion.prompt_time = prefilled.time;
        shared.ledger.prefilled(prefilled.prompt_tokens, prefilled.cached_tokens);
    }

    fn decoded(&mut self, shared: &Shared) {
        self.completion.output_tokens = self.output_tokens;
        self.completion.output_time = self.decode_time(shared, self.output_tokens);
    }

    fn finished(&mut self, shared: &Shared, text: &str) {
        self.prompt.push(text.as_bytes());
        shared.engine.finished(&self.prompt, self.output_tokens, self.completion.output_time);
    }

    fn decode_time(&self, shared: &Shared, tokens: usize) -> Duration {
        shared.config.wall_time(tokens, shared.config.decode_rate)
    }
}

async fn wait_until(shared: &Shared, end: Instant) {
    if shared.config.time_scale > 0.0 {
        sleep_until(end).await;
    }
}

fn text(seed: u64, tokens: std::ops::Range<usize>) -> String {
    let mut text = String::with_capacity(tokens.len() * BYTES_PER_TOKEN);
    for index in tokens {
        text.extend(generated_token(seed, index).map(char::from));
    }
    text
}
