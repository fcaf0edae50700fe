//! Errors in the shape of the API that was called, so that each client library can read them.

use serde_json::{Value, json};

/// Whose shape of errors a client expects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Api {
    /// Chat Completions, Completions, Embeddings and everything else.
    #[default]
    OpenAi,
    /// Responses, whose streams have typed events.
    Responses,
    /// Anthropic's Messages.
    Anthropic,
}

/// An error of the gateway.
#[derive(Clone, Copy, Debug)]
pub struct ApiError<'a> {
    /// The status; in a stream the one that it would have had.
    pub status: u16,
    /// A code for programs.
    pub code: &'a str,
    /// What is wrong, and what to do, in one sentence.
    pub message: &'a str,
    /// The id of the request.
    pub request_id: &'a str,
}

impl Api {
    /// The API that serves a path.
    #[must_use]
    pub fn of(path: &str) -> Api {
        match path {
            _ if path.contains("/v1/messages") => Api::Anthropic,
            _ if path.contains("/responses") => Api::Responses,
            _ => Api::OpenAi,
        }
    }

    /// The body of a JSON response.
    #[must_use]
    pub fn body(self, error: &ApiError<'_>) -> String {
        self.json(error).to_string()
    }

    /// An event of a stream.
    #[must_use]
    pub fn event(self, error: &ApiError<'_>) -> String {
        let mut data = self.json(error);
        match self {
            Api::OpenAi => format!("data: {data}\n\n"),
            Api::Anthropic => format!("event: error\ndata: {data}\n\n"),
            Api::Responses => {
                // The event's own fields beside the error, which client libraries look for in every stream.
                data["type"] = "error".into();
                data["code"] = error.code.into();
                data["message"] = error.message.into();
                data["param"] = Value::Null;
                format!("event: error\ndata: {data}\n\n")
            }
        }
    }

    fn json(self, error: &ApiError<'_>) -> Value {
        let (message, code) = (error.message, error.code);
        match self {
            Api::OpenAi | Api::Responses => {
                json!({"error": {"message": message, "type": openai_type(error.status), "code": code}})
            }
            Api::Anthropic => {
                let error_type = anthropic_type(error.status);
                json!({"type": "error", "error": {"type": error_type, "message": message}, "request_id": error.request_id})
            }
        }
    }
}

/// The message of an error that a server sent as JSON, in any of the shapes that servers use.
#[must_use]
pub fn message(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let places = [&body["error"]["message"], &body["error"], &body["message"], &body["detail"]];
    places.into_iter().find_map(Value::as_str).map(str::to_owned)
}

fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    }
}

/// By status, as Anthropic documents them (docs.anthropic.com/en/api/errors).
fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        408 | 504 => "timeout_error",
        503 | 529 => "overloaded_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERROR: ApiError<'_> = ApiError { status: 503, code: "overloaded", message: "Full.", request_id: "r" };

    #[test]
    fn body_has_the_shape_of_the_api() {
        let openai = r#"{"error":{"code":"overloaded","message":"Full.","type":"server_error"}}"#;
        for path in ["/v1/chat/completions", "/v1/responses", "/"] {
            assert_eq!(Api::of(path).body(&ERROR), openai, "{path}");
        }
        let anthropic = r#"{"error":{"message":"Full.","type":"overloaded_error"},"request_id":"r","type":"error"}"#;
        for path in ["/v1/messages", "/v1/messages/count_tokens", "/anthropic/v1/messages"] {
            assert_eq!(Api::of(path).body(&ERROR), anthropic, "{path}");
        }
    }

    #[test]
    fn message_is_found_in_all_shapes() {
        for body in [
            r#"{"error":{"code":400,"message":"m","type":"invalid_request_error"}}"#,
            r#"{"type":"error","error":{"type":"api_error","message":"m"}}"#,
            r#"{"object":"error","message":"m","code":400}"#,
            r#"{"error":"m"}"#,
            r#"{"detail":"m"}"#,
        ] {
            assert_eq!(message(body.as_bytes()).as_deref(), Some("m"), "{body}");
        }
        assert_eq!(message(b"<html>"), None);
        assert_eq!(message(br#"{"error":7}"#), None);
    }

    #[test]
    fn event_has_the_shape_of_the_api() {
        assert!(Api::OpenAi.event(&ERROR).starts_with("data: {\"error\":{"));
        assert!(Api::Anthropic.event(&ERROR).starts_with("event: error\ndata: {\"error\":{\"message\""));
        let responses = Api::Responses.event(&ERROR);
        assert!(
            responses.contains("\"type\":\"error\"") && responses.contains("\"code\":\"overloaded\""),
            "{responses}"
        );
    }
}
