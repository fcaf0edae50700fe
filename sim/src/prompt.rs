//! The part of a completion request that matters to the simulation.

use serde::Deserialize;
use serde_json::Value;

use crate::tokens::BlockChain;

/// A chat or text completion request. Unknown fields are ignored, as real servers do.
#[derive(Debug, Deserialize)]
pub(crate) struct CompletionRequest {
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    tools: Value,
    #[serde(default)]
    prompt: Value,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    n_predict: Option<i64>,
    #[serde(default)]
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    role: String,
    #[serde(default)]
    content: Value,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

impl CompletionRequest {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|error| error.to_string())
    }

    pub(crate) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    pub(crate) fn includes_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }

    /// The asked length of the answer, at least 1; `None` without a limit.
    pub(crate) fn max_tokens(&self) -> Option<usize> {
        let asked = self.max_completion_tokens.or(self.max_tokens).or(self.n_predict)?;
        // -1 is llama-server's "no limit".
        usize::try_from(asked).ok().map(|tokens| tokens.max(1))
    }

    /// The prompt text: a small chat template (`role: content`, one line each, then `assistant: `) or the given text.
    pub(crate) fn prompt(&self, chat: bool, block_tokens: usize) -> BlockChain {
        let mut chain = BlockChain::new(block_tokens);
        if chat {
            self.push_chat(&mut chain);
        } else {
            push_value(&mut chain, &self.prompt);
        }
        chain
    }

    fn push_chat(&self, chain: &mut BlockChain) {
        if !self.tools.is_null() {
            chain.push(format!("tools: {}\n", self.tools).as_bytes());
        }
        for message in &self.messages {
            chain.push(message.role.as_bytes());
            chain.push(b": ");
            push_value(chain, &message.content);
            chain.push(b"\n");
        }
        chain.push(b"assistant: ");
    }
}

/// Text as it is; token ids as 4 bytes each; parts of a message by their text, others (images) by their JSON.
fn push_value(chain: &mut BlockChain, value: &Value) {
    match value {
        Value::Null => {}
        Value::String(text) => chain.push(text.as_bytes()),
        Value::Number(id) => {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or(u32::MAX);
            chain.push(&id.to_le_bytes());
        }
        Value::Array(parts) => parts.iter().for_each(|part| push_value(chain, part)),
        Value::Object(part) => match part.get("text") {
            Some(Value::String(text)) => chain.push(text.as_bytes()),
            _ => chain.push(value.to_string().as_bytes()),
        },
        Value::Bool(_) => chain.push(value.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(json: &str, chat: bool) -> usize {
        CompletionRequest::parse(json.as_bytes()).unwrap().prompt(chat, 1).tokens()
    }

    #[test]
    fn prompts_of_all_forms_have_their_tokens() {
        // "user: abcd\nassistant: " is 22 bytes.
        assert_eq!(tokens(r#"{"messages":[{"role":"user","content":"abcd"}]}"#, true), 6);
        let parts = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"abcd"}]}]}"#;
        assert_eq!(tokens(parts, true), 6);
        assert_eq!(tokens(r#"{"prompt":"abcdefgh"}"#, false), 2);
        assert_eq!(tokens(r#"{"prompt":[1,2,3]}"#, false), 3);
    }

    #[test]
    fn a_limit_is_taken_from_any_of_its_names() {
        let limit = |json: &str| CompletionRequest::parse(json.as_bytes()).unwrap().max_tokens();
        assert_eq!(limit(r#"{"max_tokens":7}"#), Some(7));
        assert_eq!(limit(r#"{"max_tokens":7,"max_completion_tokens":5}"#), Some(5));
        assert_eq!(limit(r#"{"n_predict":-1}"#), None);
        assert_eq!(limit(r#"{"max_tokens":0}"#), Some(1));
        assert_eq!(limit("{}"), None);
    }

    #[test]
    fn what_is_not_json_is_an_error() {
        assert!(CompletionRequest::parse(b"{bad").is_err());
    }
}
