//! Errors in the shape of each server and API.

use super::{Completion, DONE, data, event as named, quoted, responses};
use crate::api::Api;
use crate::config::ServerKind;

/// The body of an error answer.
pub(super) fn body(server: ServerKind, api: Api, code: u16, message: &str) -> String {
    match (server, api) {
        (ServerKind::LlamaServer, _) => format!(r#"{{"error":{}}}"#, llama(code, message)),
        (ServerKind::Vllm, Api::Messages) => anthropic(code, message),
        (ServerKind::Vllm, _) => format!(r#"{{"error":{}}}"#, vllm(code, message)),
    }
}

/// An error in a stream, up to the end of the stream.
pub(super) fn event(server: ServerKind, c: &Completion, code: u16, message: &str) -> String {
    match (server, c.api) {
        (ServerKind::LlamaServer, Api::Messages) => named("error", &llama(code, message)),
        (ServerKind::LlamaServer, _) => data(&body(server, c.api, code, message)),
        (ServerKind::Vllm, Api::Messages) => named("error", &anthropic(code, message)) + &data(DONE),
        (ServerKind::Vllm, Api::Responses) => responses::failed(c, openai(code), message),
        (ServerKind::Vllm, _) => data(&body(server, c.api, code, message)) + &data(DONE),
    }
}

fn llama(code: u16, message: &str) -> String {
    let kind = match code {
        400 => "invalid_request_error",
        401 => "authentication_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        501 => "not_supported_error",
        503 => "unavailable_error",
        _ => "server_error",
    };
    format!(r#"{{"code":{code},"message":{},"type":"{kind}"}}"#, quoted(message))
}

fn vllm(code: u16, message: &str) -> String {
    let kind = match code {
        400 => "BadRequestError",
        401 => "AuthenticationError",
        404 => "NotFoundError",
        429 => "RateLimitError",
        503 => "ServiceUnavailableError",
        _ => "InternalServerError",
    };
    format!(r#"{{"message":{},"type":"{kind}","param":null,"code":{code}}}"#, quoted(message))
}

fn anthropic(code: u16, message: &str) -> String {
    let kind = match code {
        400 => "invalid_request_error",
        401 => "authentication_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    };
    format!(r#"{{"type":"error","error":{{"type":"{kind}","message":{}}}}}"#, quoted(message))
}

/// The code of an error of Responses.
fn openai(code: u16) -> &'static str {
    match code {
        400 => "invalid_prompt",
        429 => "rate_limit_exceeded",
        503 => "server_is_overloaded",
        _ => "server_error",
    }
}
