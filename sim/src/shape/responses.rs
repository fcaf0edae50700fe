//! OpenAI's Responses, as a llama.cpp of 2026-10 and a vLLM of 2026 answer them.
//!
//! vLLM announces the response with the head, before the prompt is computed, and numbers its events.

use super::{Completion, Frame, event, llama, quoted};
use crate::config::ServerKind;

pub(super) fn plain(server: ServerKind, c: &Completion, text: &str) -> String {
    let (created, model, item) = (c.created, quoted(&c.model), item(server, c, "completed", &part(server, text)));
    match server {
        ServerKind::LlamaServer => format!(
            r#"{{"completed_at":{created},"created_at":{created},"id":"{}","model":{model},"object":"response","output":[{item}],"status":"completed","usage":{}}}"#,
            id(c),
            usage(server, c)
        ),
        ServerKind::Vllm => response(c, "completed", &item, &usage(server, c)),
    }
}

/// `response.created` and `response.in_progress`.
pub(super) fn created(server: ServerKind, c: &Completion) -> String {
    let response = match server {
        ServerKind::LlamaServer => format!(r#"{{"id":"{}","object":"response","status":"in_progress"}}"#, id(c)),
        ServerKind::Vllm => response(c, "in_progress", "", "null"),
    };
    let fields = format!(r#""response":{response}"#);
    numbered(server, "response.created", &fields, 0) + &numbered(server, "response.in_progress", &fields, 1)
}

/// The announcements of the one item and of its one part.
pub(super) fn added(server: ServerKind, c: &Completion) -> String {
    let item = format!(r#""item":{}"#, item(server, c, "in_progress", ""));
    let part = match server {
        ServerKind::LlamaServer => {
            format!(r#""item_id":"{}","part":{{"type":"output_text","text":""}}"#, item_id(c))
        }
        ServerKind::Vllm => {
            format!(r#""content_index":0,"item_id":"{}","output_index":0,"part":{}"#, item_id(c), part(server, ""))
        }
    };
    let item = if server == ServerKind::Vllm { item + r#","output_index":0"# } else { item };
    numbered(server, "response.output_item.added", &item, 2)
        + &numbered(server, "response.content_part.added", &part, 3)
}

pub(super) fn token_frame(server: ServerKind, c: &Completion) -> Frame {
    let name = "response.output_text.delta";
    let start = format!("event: {name}\ndata: ");
    let item = item_id(c);
    match server {
        ServerKind::LlamaServer => Frame {
            before: format!(r#"{start}{{"type":"{name}","item_id":"{item}","delta":""#),
            after: "\"}\n\n".to_owned(),
            number: None,
        },
        ServerKind::Vllm => Frame {
            before: format!(r#"{start}{{"content_index":0,"delta":""#),
            after: format!(r#"","item_id":"{item}","logprobs":[],"output_index":0,"sequence_number":"#),
            number: Some((FIRST_TOKEN, format!(",\"type\":\"{name}\"}}\n\n"))),
        },
    }
}

pub(super) fn closing(server: ServerKind, c: &Completion, text: &str) -> Vec<String> {
    let (part, quoted_text) = (part(server, text), quoted(text));
    let item_of = item(server, c, "completed", &part);
    let place = match server {
        ServerKind::LlamaServer => format!(r#""item_id":"{}""#, item_id(c)),
        ServerKind::Vllm => format!(r#""content_index":0,"item_id":"{}","output_index":0"#, item_id(c)),
    };
    let response = match server {
        ServerKind::LlamaServer => format!(
            r#"{{"id":"{}","object":"response","created_at":{},"status":"completed","model":{},"output":[{item_of}],"usage":{}}},{}"#,
            id(c),
            c.created,
            quoted(&c.model),
            usage(server, c),
            llama::timings(c)
        ),
        ServerKind::Vllm => response(c, "completed", &item_of, &usage(server, c)),
    };
    let events = [
        ("response.output_text.done", format!(r#"{place},"text":{quoted_text}"#)),
        ("response.content_part.done", format!(r#"{place},"part":{part}"#)),
        ("response.output_item.done", format!(r#""item":{item_of}"#)),
        ("response.completed", format!(r#""response":{response}"#)),
    ];
    let first = FIRST_TOKEN + c.output_tokens;
    events.iter().zip(first..).map(|((name, fields), number)| numbered(server, name, fields, number)).collect()
}

/// `response.failed` of vLLM.
pub(super) fn failed(c: &Completion, code: &str, message: &str) -> String {
    let fields = format!(
        r#""response":{{"id":"{}","created_at":{},"error":{{"code":"{code}","message":{}}},"object":"response","output":[],"status":"failed","usage":null}}"#,
        id(c),
        c.created,
        quoted(message)
    );
    numbered(ServerKind::Vllm, "response.failed", &fields, FIRST_TOKEN)
}

/// An event: llama-server's has its type first, vLLM's has its number and its type last.
fn numbered(server: ServerKind, name: &str, fields: &str, number: usize) -> String {
    let json = match server {
        ServerKind::LlamaServer => format!(r#"{{"type":"{name}",{fields}}}"#),
        ServerKind::Vllm => format!(r#"{{{fields},"sequence_number":{number},"type":"{name}"}}"#),
    };
    event(name, &json)
}

/// vLLM's response.
fn response(c: &Completion, status: &str, output: &str, usage: &str) -> String {
    format!(
        r#"{{"id":"{}","created_at":{},"incomplete_details":null,"instructions":null,"metadata":null,"model":{},"object":"response","output":[{output}],"parallel_tool_calls":true,"status":"{status}","usage":{usage}}}"#,
        id(c),
        c.created,
        quoted(&c.model)
    )
}

fn item(server: ServerKind, c: &Completion, status: &str, content: &str) -> String {
    let id = item_id(c);
    match (server, status) {
        (ServerKind::LlamaServer, "completed") => {
            format!(r#"{{"type":"message","status":"{status}","id":"{id}","content":[{content}],"role":"assistant"}}"#)
        }
        (ServerKind::LlamaServer, _) => {
            format!(r#"{{"content":[{content}],"id":"{id}","role":"assistant","status":"{status}","type":"message"}}"#)
        }
        (ServerKind::Vllm, _) => {
            format!(r#"{{"id":"{id}","content":[{content}],"role":"assistant","status":"{status}","type":"message"}}"#)
        }
    }
}

fn part(server: ServerKind, text: &str) -> String {
    let text = quoted(text);
    match server {
        ServerKind::LlamaServer => format!(r#"{{"type":"output_text","annotations":[],"logprobs":[],"text":{text}}}"#),
        ServerKind::Vllm => format!(r#"{{"annotations":[],"text":{text},"type":"output_text","logprobs":[]}}"#),
    }
}

/// What was cached is part of the input.
fn usage(server: ServerKind, c: &Completion) -> String {
    let (input, output, cached) = (c.prompt_tokens, c.output_tokens, c.cached_tokens);
    let total = input + output;
    match server {
        ServerKind::LlamaServer => format!(
            r#"{{"input_tokens":{input},"output_tokens":{output},"total_tokens":{total},"input_tokens_details":{{"cached_tokens":{cached}}}}}"#
        ),
        ServerKind::Vllm => format!(
            r#"{{"input_tokens":{input},"input_tokens_details":{{"cached_tokens":{cached}}},"output_tokens":{output},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{total}}}"#
        ),
    }
}

fn id(c: &Completion) -> String {
    format!("resp_{}", c.name)
}

fn item_id(c: &Completion) -> String {
    format!("msg_{}", c.name)
}

/// The number of the first token's event: two announce the response, one the item, one the part.
const FIRST_TOKEN: usize = 4;
