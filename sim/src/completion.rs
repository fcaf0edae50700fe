//! One completion: queue, prefill, decode, answer.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep, sleep_until};

use crate::api::Api;
use crate::config::{ServerKind, SimConfig};
use crate::engine::Prefilled;
use crate::faults::{BeforeToken, Ending};
use crate::prompt::CompletionRequest;
use crate::request::Request;
use crate::routes::Answer;
use crate::server::Shared;
use crate::shape::{Completion, Frame, Shape};
use crate::tokens::{BYTES_PER_TOKEN, BlockChain, generated_token};
use crate::wire::{End, Wire};

/// A comment line: keeps a silent stream alive, is no event and no token.
const PING: &str = ":\n\n";

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Answers a request of an API.
pub(crate) async fn answer(shared: &Shared, request: &Request, api: Api, wire: &mut Wire<'_>) -> Result<(), End> {
    let shape = Shape::of(shared.config.server);
    let request = match CompletionRequest::parse(api, &request.body) {
        Ok(request) => request,
        Err(message) => return wire.whole(400, &[], shape.error(api, 400, &message).as_bytes()).await,
    };
    let prompt = request.prompt(api, shared.config.block_tokens);
    let limit = request.max_tokens();
    let job = Job {
        shape,
        output_tokens: limit.unwrap_or(shared.config.default_output_tokens.max(1)),
        completion: Completion {
            api,
            name: format!("{}-{}", shared.config.name, NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            model: shared.config.model.clone(),
            fingerprint: shared.config.name.clone(),
            is_cut: limit.is_some(),
            reports_cached: shared.config.prompt_tokens_details,
            include_usage: request.includes_usage(),
            ..Completion::default()
        },
        prompt,
    };
    // Whatever the request was, its text is not needed from here on.
    let streams = request.streams();
    drop(request);
    if streams { job.stream(shared, wire).await } else { job.plain(shared, wire).await }
}

/// Answers `/v1/messages/count_tokens`.
pub(crate) fn count_tokens(shared: &Shared, request: &Request) -> Answer {
    match CompletionRequest::parse(Api::Messages, &request.body) {
        Ok(request) => {
            let tokens = request.prompt(Api::Messages, shared.config.block_tokens).tokens();
            Answer::json(format!(r#"{{"input_tokens":{tokens}}}"#))
        }
        Err(message) => Answer::error(400, &Shape::of(shared.config.server).error(Api::Messages, 400, &message)),
    }
}

/// The text that every backend of this configuration generates for a request of this API: for clients that verify what
/// they get. As long as the request allows; a shorter limit gives a shorter start of the same text.
///
/// # Errors
/// When the body is no request of this API.
pub fn generated_text(config: &SimConfig, api: Api, body: &[u8]) -> Result<String, String> {
    let request = CompletionRequest::parse(api, body)?;
    let tokens = request.max_tokens().unwrap_or(config.default_output_tokens.max(1));
    Ok(text(request.prompt(api, config.block_tokens).fingerprint(), 0..tokens))
}

/// A completion in flight.
struct Job {
    shape: Shape,
    prompt: BlockChain,
    output_tokens: usize,
    completion: Completion,
}

impl Job {
    async fn plain(mut self, shared: &Shared, wire: &mut Wire<'_>) -> Result<(), End> {
        let slot = shared.engine.slot(&self.prompt).await;
        if let Some(failure) = wire.before_token() {
            return self.fail_plain(wire, failure).await;
        }
        let prefilled = shared.engine.prefill(slot, &self.prompt).await;
        self.prefilled(shared, &prefilled);
        let text = text(self.prompt.fingerprint(), 0..self.output_tokens);
        let end = prefilled.end + self.decode_time(shared, self.output_tokens.saturating_sub(1));
        wait_until(shared, end).await;
        self.decoded(shared);
        self.finished(shared, &text);
        wire.whole(200, &[], self.shape.plain(&self.completion, &text).as_bytes()).await?;
        shared.ledger.completed(self.output_tokens);
        Ok(())
    }

    async fn stream(mut self, shared: &Shared, wire: &mut Wire<'_>) -> Result<(), End> {
        // vLLM sends the head even while the request is queued, llama-server when it gets its slot.
        let early = shared.config.early_head;
        if early && self.shape.server == ServerKind::Vllm {
            self.send_head(wire).await?;
        }
        let slot = self.wait(shared, wire, shared.engine.slot(&self.prompt)).await?;
        if early && !wire.has_head() {
            self.send_head(wire).await?;
        }
        if let Some(failure) = wire.before_token() {
            return self.fail_stream(wire, failure).await;
        }
        let prefilled = self.wait(shared, wire, shared.engine.prefill(slot, &self.prompt)).await?;
        self.prefilled(shared, &prefilled);
        self.put_head(wire);
        wire.chunk(&[&self.shape.opening_events(&self.completion)]);
        let frame = self.shape.token_frame(&self.completion);
        self.tokens(shared, wire, &prefilled, &frame).await?;
        self.decoded(shared);
        let text = text(self.prompt.fingerprint(), 0..self.output_tokens);
        for event in self.shape.closing_events(&self.completion, &text) {
            wire.chunk(&[&event]);
        }
        self.finished(shared, &text);
        wire.finish_stream().await?;
        shared.ledger.completed(self.output_tokens);
        Ok(())
    }

    async fn send_head(&self, wire: &mut Wire<'_>) -> Result<(), End> {
        self.put_head(wire);
        wire.flush().await
    }

    /// The head, unless it was sent, and what comes with it.
    fn put_head(&self, wire: &mut Wire<'_>) {
        if !wire.has_head() {
            wire.stream_head(self.shape.stream_type());
            wire.chunk(&[&self.shape.early_events(&self.completion)]);
        }
    }

    /// Waits for something, with pings. Where the head does not come early, it comes with the first ping; a llama-server
    /// that sends it with the slot sends nothing before.
    async fn wait<T>(&self, shared: &Shared, wire: &mut Wire<'_>, until: impl Future<Output = T>) -> Result<T, End> {
        let mut until = pin!(until);
        let is_queued = shared.config.early_head && !wire.has_head();
        let Some(interval) = shared.config.ping_interval.filter(|_| !is_queued) else { return Ok(until.await) };
        loop {
            tokio::select! {
                biased;
                value = &mut until => return Ok(value),
                () = sleep(interval) => {
                    self.put_head(wire);
                    wire.chunk(&[PING]);
                    wire.flush().await?;
                }
            }
        }
    }

    /// Fails a stream before its first token.
    async fn fail_stream(&self, wire: &mut Wire<'_>, failure: BeforeToken) -> Result<(), End> {
        sleep(failure.after).await;
        if failure.skeleton {
            self.put_head(wire);
            wire.chunk(&[&self.shape.opening_events(&self.completion)]);
            wire.flush().await?;
        }
        match failure.ending {
            Ending::Close => Err(End::Close),
            Ending::Reset => Err(End::Reset),
            Ending::Stall => std::future::pending().await,
            Ending::End => {
                self.put_head(wire);
                wire.finish_stream().await
            }
            Ending::Error(code) => {
                self.put_head(wire);
                wire.chunk(&[&self.shape.error_event(&self.completion, code, &format!("simulated {code}"))]);
                wire.finish_stream().await
            }
        }
    }

    /// Fails an answer that is no stream before its first byte.
    async fn fail_plain(&self, wire: &mut Wire<'_>, failure: BeforeToken) -> Result<(), End> {
        sleep(failure.after).await;
        match failure.ending {
            Ending::Close | Ending::End => Err(End::Close),
            Ending::Reset => Err(End::Reset),
            Ending::Stall => std::future::pending().await,
            Ending::Error(code) => {
                let body = self.shape.error(self.completion.api, code, &format!("simulated {code}"));
                wire.whole(code, &[], body.as_bytes()).await
            }
        }
    }

    /// Token `i` is due `i / rate` after the prefill; those that are due together are written together.
    async fn tokens(
        &self,
        shared: &Shared,
        wire: &mut Wire<'_>,
        prefilled: &Prefilled<'_>,
        frame: &Frame,
    ) -> Result<(), End> {
        let seed = self.prompt.fingerprint();
        for index in 0..self.output_tokens {
            let due = prefilled.end + self.decode_time(shared, index);
            if shared.config.time_scale > 0.0 && due > Instant::now() {
                wire.flush().await?;
                sleep_until(due).await;
            }
            let word = generated_token(seed, index);
            let word = str::from_utf8(&word).unwrap_or_default();
            match &frame.number {
                None => wire.token_event(&[&frame.before, word, &frame.after]).await?,
                Some((first, rest)) => {
                    let number = (first + index).to_string();
                    wire.token_event(&[&frame.before, word, &frame.after, &number, rest]).await?;
                }
            }
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
