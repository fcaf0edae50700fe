//! The JSON of completions, field by field as the real servers write it.

pub(crate) mod llama;
pub(crate) mod vllm;

use std::time::Duration;

use crate::config::ServerKind;

/// The facts of a completion that its JSON tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Completion {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) fingerprint: String,
    pub(crate) chat: bool,
    /// `length` or `stop`.
    pub(crate) finish: &'static str,
    /// vLLM's `--enable-prompt-tokens-details`.
    pub(crate) tells_cached: bool,
    /// `stream_options.include_usage`.
    pub(crate) include_usage: bool,
    pub(crate) prompt_tokens: usize,
    pub(crate) cached_tokens: usize,
    pub(crate) output_tokens: usize,
    pub(crate) prompt_time: Duration,
    pub(crate) output_time: Duration,
}

/// What surrounds the text of a token event; the same for all tokens of a stream.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) before: String,
    pub(crate) after: String,
}

/// The JSON of one kind of server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) server: ServerKind,
}

impl Shape {
    pub(crate) fn of(server: ServerKind) -> Self {
        Self { server }
    }

    /// The body of a plain answer.
    pub(crate) fn plain(self, completion: &Completion, text: &str) -> String {
        match self.server {
            ServerKind::LlamaServer => llama::plain(completion, text),
            ServerKind::Vllm => vllm::plain(completion, text),
        }
    }

    /// The event that announces the role.
    pub(crate) fn first_event(self, completion: &Completion) -> Option<String> {
        completion.chat.then(|| match self.server {
            ServerKind::LlamaServer => llama::first_event(completion),
            ServerKind::Vllm => vllm::first_event(completion),
        })
    }

    pub(crate) fn token_frame(self, completion: &Completion) -> Frame {
        match self.server {
            ServerKind::LlamaServer => llama::token_frame(completion),
            ServerKind::Vllm => vllm::token_frame(completion),
        }
    }

    /// The events after the last token, without `[DONE]`.
    pub(crate) fn last_events(self, completion: &Completion) -> Vec<String> {
        match self.server {
            ServerKind::LlamaServer => llama::last_events(completion),
            ServerKind::Vllm => vllm::last_events(completion),
        }
    }

    pub(crate) fn stream_type(self) -> &'static str {
        match self.server {
            ServerKind::LlamaServer => "text/event-stream",
            ServerKind::Vllm => "text/event-stream; charset=utf-8",
        }
    }

    /// The body of a 400.
    pub(crate) fn bad_request(self, message: &str) -> String {
        let message = quoted(message);
        match self.server {
            ServerKind::LlamaServer => {
                format!(r#"{{"error":{{"code":400,"message":{message},"type":"invalid_request_error"}}}}"#)
            }
            ServerKind::Vllm => {
                format!(r#"{{"error":{{"message":{message},"type":"BadRequestError","param":null,"code":400}}}}"#)
            }
        }
    }
}

/// A JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
