//! One conversation.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Context;
use super::config::{LoadConfig, UrlChoice};
use super::report::Call;
use crate::api::Api;

/// A conversation and its position.
#[derive(Debug)]
pub(crate) struct Session {
    context: Arc<Context>,
    index: usize,
    id: String,
    rng: fastrand::Rng,
    history: Vec<Message>,
}

#[derive(Debug, Serialize)]
struct Message {
    role: &'static str,
    content: String,
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    /// Of Messages, where it is no message.
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<&'a [Message]>,
    /// Of Responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a [Message]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<usize>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl Session {
    pub(crate) fn new(context: Arc<Context>, index: usize) -> Self {
        // A large odd factor keeps neighbouring seeds from sharing texts.
        let seed = context.config.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index as u64 + 1);
        let id = context.config.session_id(index);
        Self { context, index, id, rng: fastrand::Rng::with_seed(seed), history: Vec::new() }
    }

    /// Plays all turns, or until told to stop.
    pub(crate) async fn play(mut self, stop: &mut watch::Receiver<bool>) {
        let context = self.context.clone();
        let config = &context.config;
        for turn in 0..config.turns {
            let permit = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                permit = context.permits.acquire() => permit,
            };
            self.turn(turn).await;
            if self.rng.f64() < config.sidecar_ratio {
                self.sidecar().await;
            }
            drop(permit);
            if turn + 1 < config.turns && !config.think_time.is_zero() {
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    () = sleep(config.think_time) => {}
                }
            }
        }
    }

    async fn turn(&mut self, turn: usize) {
        let context = self.context.clone();
        let config = &context.config;
        if turn == 0 && config.shared_prompt_bytes > 0 {
            let mut shared = fastrand::Rng::with_seed(config.seed);
            self.history.push(Message { role: "system", content: text(&mut shared, config.shared_prompt_bytes) });
        }
        let bytes = if turn == 0 { config.first_prompt_bytes } else { config.turn_bytes };
        let content = text(&mut self.rng, bytes);
        self.history.push(Message { role: "user", content });
        let url = match config.url_choice {
            UrlChoice::PerSession => self.index,
            UrlChoice::PerRequest => self.index + turn,
        };
        let body = body(config, &self.history);
        context.recorder.lock().begin();
        let exchange = context.client.exchange(url, Some(&self.id), body).await;
        context.recorder.lock().end(Call::Turn { session: self.index, turn }, &exchange);
        if exchange.error.is_none() {
            self.history.push(Message { role: "assistant", content: exchange.reading.text });
        } else {
            // As if the user had never asked: the next turn continues what was answered.
            self.history.pop();
        }
    }

    /// A call beside the conversation, such as a title: its own prompt, no session.
    async fn sidecar(&mut self) {
        let context = self.context.clone();
        let content = text(&mut self.rng, context.config.sidecar_bytes);
        let body = body(&context.config, &[Message { role: "user", content }]);
        context.recorder.lock().begin();
        let exchange = context.client.exchange(self.index, None, body).await;
        context.recorder.lock().end(Call::Sidecar, &exchange);
    }
}

fn body(config: &LoadConfig, messages: &[Message]) -> String {
    let is_responses = config.api == Api::Responses;
    let (system, messages) = match messages.split_first() {
        Some((first, rest)) if first.role == "system" && config.api == Api::Messages => (Some(&*first.content), rest),
        _ => (None, messages),
    };
    let body = Body {
        model: &config.model,
        system,
        messages: (!is_responses).then_some(messages),
        input: is_responses.then_some(messages),
        max_tokens: (!is_responses).then_some(config.max_tokens),
        max_output_tokens: is_responses.then_some(config.max_tokens),
        stream: config.stream,
        stream_options: (config.stream && config.api == Api::Chat).then_some(StreamOptions { include_usage: true }),
    };
    // Strings and numbers only: this cannot fail.
    serde_json::to_string(&body).unwrap_or_default()
}

/// Random lower-case words of up to 8 letters, `bytes` long in all.
fn text(rng: &mut fastrand::Rng, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes);
    let mut word = rng.usize(2..=8);
    while text.len() < bytes {
        if word == 0 {
            text.push(' ');
            word = rng.usize(2..=8);
        } else {
            text.push(rng.lowercase());
            word -= 1;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_length_and_depend_on_the_seed() {
        let make = |seed| text(&mut fastrand::Rng::with_seed(seed), 1000);
        assert_eq!(make(1).len(), 1000);
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }
}
