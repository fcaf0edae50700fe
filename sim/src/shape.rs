//! What the servers send, field by field as the real ones write it.
//!
//! | file | what |
//! |---|---|
//! | `shape/llama.rs` | Chat Completions, Completions and the small endpoints of llama-server |
//! | `shape/vllm.rs` | the same of vLLM |
//! | `shape/messages.rs`, `shape/responses.rs` | these two APIs, of both servers |
//! | `shape/error.rs` | errors, as a body and as an event |

mod error;
pub(crate) mod llama;
mod messages;
mod responses;
pub(crate) mod vllm;

use std::time::Duration;

use crate::api::Api;
use crate::config::ServerKind;

/// The facts of a completion that its answer reports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Completion {
    pub(crate) api: Api,
    /// What is unique in the id of the answer.
    pub(crate) name: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) fingerprint: String,
    /// Whether the limit of the request ended the answer.
    pub(crate) is_cut: bool,
    /// vLLM's `--enable-prompt-tokens-details`.
    pub(crate) reports_cached: bool,
    /// `stream_options.include_usage`.
    pub(crate) include_usage: bool,
    pub(crate) prompt_tokens: usize,
    pub(crate) cached_tokens: usize,
    pub(crate) output_tokens: usize,
    pub(crate) prompt_time: Duration,
    pub(crate) output_time: Duration,
}

impl Completion {
    /// The id of all answers but those of Responses.
    pub(crate) fn id(&self) -> String {
        format!("chatcmpl-{}", self.name)
    }

    /// The reason for the end in OpenAI's first two APIs.
    pub(crate) fn finish(&self) -> &'static str {
        if self.is_cut { "length" } else { "stop" }
    }
}

/// What surrounds the text of a token's event; the same for all tokens of a stream.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) before: String,
    pub(crate) after: String,
    /// vLLM numbers the events of Responses: the number of the first token's event, and what follows the number.
    pub(crate) number: Option<(usize, String)>,
}

/// The answers of one kind of server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) server: ServerKind,
}

impl Shape {
    pub(crate) fn of(server: ServerKind) -> Self {
        Self { server }
    }

    /// The body of a plain answer.
    pub(crate) fn plain(self, c: &Completion, text: &str) -> String {
        match (c.api, self.server) {
            (Api::Messages, server) => messages::plain(server, c, text),
            (Api::Responses, server) => responses::plain(server, c, text),
            (_, ServerKind::LlamaServer) => llama::plain(c, text),
            (_, ServerKind::Vllm) => vllm::plain(c, text),
        }
    }

    /// The events that come with the head of a stream, before the prompt is computed.
    pub(crate) fn early_events(self, c: &Completion) -> String {
        match (c.api, self.server) {
            (Api::Responses, ServerKind::Vllm) => responses::created(ServerKind::Vllm, c),
            _ => String::new(),
        }
    }

    /// The events without output that come before the first token.
    pub(crate) fn opening_events(self, c: &Completion) -> String {
        match (c.api, self.server) {
            (Api::Chat, ServerKind::LlamaServer) => data(&llama::role_event(c)),
            (Api::Chat, ServerKind::Vllm) => data(&vllm::role_event(c)),
            (Api::Completions, _) => String::new(),
            (Api::Messages, server) => messages::opening(server, c),
            (Api::Responses, ServerKind::LlamaServer) => {
                responses::created(self.server, c) + &responses::added(self.server, c)
            }
            (Api::Responses, ServerKind::Vllm) => responses::added(self.server, c),
        }
    }

    pub(crate) fn token_frame(self, c: &Completion) -> Frame {
        match (c.api, self.server) {
            (Api::Messages, server) => messages::token_frame(server),
            (Api::Responses, server) => responses::token_frame(server, c),
            (_, ServerKind::LlamaServer) => llama::token_frame(c),
            (_, ServerKind::Vllm) => vllm::token_frame(c),
        }
    }

    /// The events after the last token, up to the end of the stream.
    pub(crate) fn closing_events(self, c: &Completion, text: &str) -> Vec<String> {
        let events = match (c.api, self.server) {
            (Api::Messages, server) => return messages::closing(server, c),
            (Api::Responses, server) => return responses::closing(server, c, text),
            (_, ServerKind::LlamaServer) => llama::last_events(c),
            (_, ServerKind::Vllm) => vllm::last_events(c),
        };
        events.iter().map(|event| data(event)).chain([data(DONE)]).collect()
    }

    /// The body of an error answer.
    pub(crate) fn error(self, api: Api, code: u16, message: &str) -> String {
        error::body(self.server, api, code, message)
    }

    /// An error in a stream, up to the end of the stream.
    pub(crate) fn error_event(self, c: &Completion, code: u16, message: &str) -> String {
        error::event(self.server, c, code, message)
    }

    pub(crate) fn stream_type(self) -> &'static str {
        match self.server {
            ServerKind::LlamaServer => "text/event-stream",
            ServerKind::Vllm => "text/event-stream; charset=utf-8",
        }
    }
}

/// A JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An event without a name.
fn data(data: &str) -> String {
    format!("data: {data}\n\n")
}

/// An event with a name.
fn event(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// The last event of Chat Completions and Completions.
const DONE: &str = "[DONE]";
