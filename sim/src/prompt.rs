//! The part of a completion request that matters to the simulation.

use serde::Deserialize;
use serde_json::Value;

use crate::api::Api;
use crate::tokens::BlockChain;

/// A request of any [`Api`]. Unknown fields are ignored, as real servers do.
#[derive(Debug, Deserialize)]
pub(crate) struct CompletionRequest {
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    system: Value,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    instructions: Value,
    #[serde(default)]
    tools: Value,
    #[serde(default)]
    prompt: Value,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    max_output_tokens: Option<i64>,
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
    pub(crate) fn parse(api: Api, body: &[u8]) -> Result<Self, String> {
        let request: Self = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        match request.input.is_null() && api == Api::Responses {
            true => Err("'input' is required".to_owned()),
            false => Ok(request),
        }
    }

    pub(crate) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    pub(crate) fn includes_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }

    /// The longest answer that the request allows, in tokens, at least 1; `None` without a limit.
    pub(crate) fn max_tokens(&self) -> Option<usize> {
        let limits = [self.max_completion_tokens, self.max_output_tokens, self.max_tokens, self.n_predict];
        // -1 is llama-server's "no limit".
        let limit = usize::try_from(limits.into_iter().flatten().next()?).ok();
        limit.map(|tokens| tokens.max(1))
    }

    /// The prompt text: a small chat template (`role: content`, one line each, then `assistant: `) or the given text. The
    /// same conversation has the same prompt in every API that has roles.
    pub(crate) fn prompt(&self, api: Api, block_tokens: usize) -> BlockChain {
        let mut chain = BlockChain::new(block_tokens);
        if api == Api::Completions {
            push_value(&mut chain, &self.prompt);
            return chain;
        }
        if !self.tools.is_null() {
            chain.push(format!("tools: {}\n", self.tools).as_bytes());
        }
        let system = if api == Api::Responses { &self.instructions } else { &self.system };
        if api != Api::Chat && !system.is_null() {
            push_line(&mut chain, "system", system);
        }
        match (api, &self.input) {
            (Api::Responses, Value::Array(items)) => items.iter().for_each(|item| push_item(&mut chain, item)),
            (Api::Responses, input) => push_line(&mut chain, "user", input),
            _ => self.messages.iter().for_each(|message| push_line(&mut chain, &message.role, &message.content)),
        }
        chain.push(b"assistant: ");
        chain
    }
}

/// A line of the chat template.
fn push_line(chain: &mut BlockChain, role: &str, content: &Value) {
    chain.push(role.as_bytes());
    chain.push(b": ");
    push_value(chain, content);
    chain.push(b"\n");
}

/// An item of a Responses request: a message, or something else such as the output of a tool.
fn push_item(chain: &mut BlockChain, item: &Value) {
    match item.get("role").and_then(Value::as_str) {
        Some(role) => push_line(chain, role, item.get("content").unwrap_or(&Value::Null)),
        None => push_line(chain, "tool", item),
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

    fn chain(api: Api, json: &str) -> BlockChain {
        CompletionRequest::parse(api, json.as_bytes()).unwrap().prompt(api, 1)
    }

    #[test]
    fn prompts_of_all_forms_have_their_tokens() {
        // "user: abcd\nassistant: " is 22 bytes.
        assert_eq!(chain(Api::Chat, r#"{"messages":[{"role":"user","content":"abcd"}]}"#).tokens(), 6);
        let parts = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"abcd"}]}]}"#;
        assert_eq!(chain(Api::Chat, parts).tokens(), 6);
        assert_eq!(chain(Api::Completions, r#"{"prompt":"abcdefgh"}"#).tokens(), 2);
        assert_eq!(chain(Api::Completions, r#"{"prompt":[1,2,3]}"#).tokens(), 3);
    }

    #[test]
    fn conversation_has_one_prompt_in_all_apis() {
        let user = r#"{"role":"user","content":"abcd"}"#;
        let chat = chain(Api::Chat, &format!(r#"{{"messages":[{{"role":"system","content":"be"}},{user}]}}"#));
        let messages = format!(r#"{{"system":[{{"type":"text","text":"be"}}],"messages":[{user}]}}"#);
        let list = r#"{"instructions":"be","input":[{"role":"user","content":[{"type":"input_text","text":"abcd"}]}]}"#;
        for other in [
            chain(Api::Messages, &messages),
            chain(Api::Responses, r#"{"instructions":"be","input":"abcd"}"#),
            chain(Api::Responses, list),
        ] {
            assert_eq!(other.fingerprint(), chat.fingerprint());
        }
        let tool = r#"{"input":[{"type":"function_call_output","output":"4"}]}"#;
        assert!(chain(Api::Responses, tool).tokens() > 3);
    }

    #[test]
    fn limit_is_read_under_any_of_its_names() {
        let limit = |json: &str| CompletionRequest::parse(Api::Chat, json.as_bytes()).unwrap().max_tokens();
        assert_eq!(limit(r#"{"max_tokens":7}"#), Some(7));
        assert_eq!(limit(r#"{"max_tokens":7,"max_completion_tokens":5}"#), Some(5));
        assert_eq!(limit(r#"{"max_output_tokens":3}"#), Some(3));
        assert_eq!(limit(r#"{"n_predict":-1}"#), None);
        assert_eq!(limit(r#"{"max_tokens":0}"#), Some(1));
        assert_eq!(limit("{}"), None);
    }

    #[test]
    fn request_without_json_or_input_is_refused() {
        assert!(CompletionRequest::parse(Api::Chat, b"{bad").is_err());
        assert_eq!(CompletionRequest::parse(Api::Responses, b"{}").unwrap_err(), "'input' is required");
    }
}
