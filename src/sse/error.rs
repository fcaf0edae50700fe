//! Error events of inference servers.

use serde_json::{Map, Value};

use super::output::is_empty;
use super::reader::Event;

/// An error that a server sends in its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorEvent {
    /// What it means for another attempt.
    pub class: ErrorClass,
    /// Its message; may be empty.
    pub message: String,
}

/// What an error means for another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Too many requests: 429.
    RateLimited,
    /// Not now: loading, overloaded, unavailable, 502, 503, 529.
    Unavailable,
    /// The server failed: other 5xx codes and server error types. A dying engine reports itself that way.
    Failed,
    /// An answer to this request: 4xx, and errors without a code or type.
    Answer,
}

impl ErrorEvent {
    /// The error of an event, if it is one. `"error": null` is none.
    pub(super) fn find(event: &Event, data: &Map<String, Value>) -> Option<ErrorEvent> {
        let kind = data.get("type").and_then(Value::as_str).unwrap_or_default();
        let names = [kind.as_bytes(), &event.name];
        let is = |name: &str| names.contains(&name.as_bytes());
        if is("response.failed") {
            let response = data.get("response").and_then(Value::as_object);
            return Some(ErrorEvent::read(response.and_then(|response| response.get("error")), data));
        }
        let is_error =
            event.is_error || is("error") || is("response.error") || data.get("object") == Some(&"error".into());
        match data.get("error").filter(|error| !is_empty(Some(error))) {
            Some(error) => Some(ErrorEvent::read(Some(error), data)),
            // The code and the message are the event's own.
            None if is_error => Some(ErrorEvent::read(None, data)),
            None => None,
        }
    }

    /// An error that is no JSON.
    pub(super) fn from_text(text: &[u8]) -> ErrorEvent {
        ErrorEvent { class: ErrorClass::Answer, message: String::from_utf8_lossy(text).into_owned() }
    }

    /// Reads `{"code":..,"type":..,"message":..}`, or a message alone; `outer` is where it stands.
    fn read(error: Option<&Value>, outer: &Map<String, Value>) -> ErrorEvent {
        let fields = match error {
            Some(Value::Object(fields)) => fields,
            Some(Value::String(message)) => {
                return ErrorEvent { class: class(outer), message: message.clone() };
            }
            _ => outer,
        };
        let message = fields.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
        ErrorEvent { class: class(fields), message }
    }
}

fn class(fields: &Map<String, Value>) -> ErrorClass {
    let codes = ["code", "status", "type"].iter().filter_map(|name| fields.get(*name));
    codes.filter_map(class_of).next().unwrap_or(ErrorClass::Answer)
}

/// The class of a code or a type; `None` if it has no meaning here, such as the type `error` of all error events.
fn class_of(code: &Value) -> Option<ErrorClass> {
    let number = code.as_u64().or_else(|| code.as_str()?.parse().ok());
    match number {
        Some(429) => return Some(ErrorClass::RateLimited),
        Some(502 | 503 | 529) => return Some(ErrorClass::Unavailable),
        Some(500..600) => return Some(ErrorClass::Failed),
        Some(_) => return Some(ErrorClass::Answer),
        None => {}
    }
    // `overloaded_error`, `RateLimitError`, `rate limit exceeded`
    let letters: String = code.as_str()?.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| letters.contains(word));
    match () {
        () if has(&["ratelimit", "toomanyrequests"]) => Some(ErrorClass::RateLimited),
        () if has(&["overload", "unavailable", "loading"]) => Some(ErrorClass::Unavailable),
        () if has(&["servererror", "internal", "apierror", "timeout", "enginedead"]) => Some(ErrorClass::Failed),
        () if matches!(letters.as_str(), "" | "error" | "responsefailed" | "responseerror") => None,
        () => Some(ErrorClass::Answer),
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::{Kind, kind};
    use super::*;

    fn error(name: &str, data: &str) -> (ErrorClass, String) {
        match kind(&Event { name: name.into(), data: data.into(), is_error: false }) {
            Kind::Error(error) => (error.class, error.message),
            other => panic!("{name} {data}: {other:?}"),
        }
    }

    #[test]
    fn errors_are_classified_by_code_then_type() {
        use ErrorClass::{Answer, Failed, RateLimited, Unavailable};
        for (name, data, class) in [
            ("", r#"{"error":{"code":503,"message":"m","type":"unavailable_error"}}"#, Unavailable),
            ("", r#"{"error":{"code":"503","message":"m"}}"#, Unavailable),
            ("", r#"{"error":{"code":429,"message":"m"}}"#, RateLimited),
            ("", r#"{"error":{"code":500,"message":"m","type":"server_error"}}"#, Failed),
            ("", r#"{"error":{"code":400,"message":"m","type":"invalid_request_error"}}"#, Answer),
            ("", r#"{"error":{"message":"m","type":"InternalServerError","code":null}}"#, Failed),
            ("", r#"{"error":{"message":"m"}}"#, Answer),
            ("", r#"{"error":"m"}"#, Answer),
            ("", r#"{"object":"error","message":"m","type":"BadRequestError","code":400}"#, Answer),
            ("error", r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, Unavailable),
            ("error", r#"{"type":"error","error":{"type":"rate_limit_error","message":"m"}}"#, RateLimited),
            ("error", r#"{"type":"error","error":{"type":"api_error","message":"m"}}"#, Failed),
            ("error", r#"{"type":"error","error":{"type":"invalid_request_error","message":"m"}}"#, Answer),
            ("error", r#"{"type":"error","code":"server_error","message":"m"}"#, Failed),
            (
                "response.failed",
                r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"m"}}}"#,
                RateLimited,
            ),
            (
                "",
                r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"m"}}}"#,
                Failed,
            ),
            ("", r#"{"type":"response.error","code":"server_is_overloaded","message":"m"}"#, Unavailable),
        ] {
            assert_eq!(error(name, data), (class, "m".to_owned()), "{name} {data}");
        }
        assert_eq!(error("error", "out of memory"), (Answer, "out of memory".to_owned()));
    }
}
