//! The form of a request's head: what Pingora lets pass, and two servers could read in different ways.

use http::{HeaderName, Method, Version, header};
use pingora::http::RequestHeader;
use pingora::http::authority::{RawTargetAuthority, is_http_family_scheme, raw_target_authority};

use super::access;
use super::refusal::Refusal;
use crate::http1::is_token;

/// What a head says that more than one step needs. All headers are read once: to look one up costs as much as to pass
/// five.
#[derive(Default)]
pub(super) struct Form {
    /// Whether the head was read and is valid.
    pub(super) is_valid: bool,
    /// The declared length of the body, in bytes.
    pub(super) length: Option<u64>,
    /// Whether the body comes in chunks.
    pub(super) chunked: bool,
    /// Whether the client waits for an interim response before it sends the body (RFC 9110, section 10.1.1).
    pub(super) expects_continue: bool,
    /// Whether the method is HEAD, whose response has no body.
    pub(super) is_head: bool,
    /// Whether the client keeps its connection after the response.
    pub(super) keeps: bool,
    /// Whether the client asks for a WebSocket.
    pub(super) upgrades: bool,
    /// Whether there is a header about where the request comes from.
    pub(super) forwarded: bool,
    /// Whether there is a header with an API key.
    pub(super) credentials: bool,
    /// Whether a page of another origin sent it, or can have.
    pub(super) has_origin: bool,
    /// Whether the client sent a request id.
    pub(super) request_id: bool,
    /// Whether there is a `Connection` header.
    pub(super) has_connection: bool,
    /// The headers that `Connection` names: they are for this connection only.
    pub(super) nominated: Vec<HeaderName>,
    bytes: usize,
    lengths: u32,
    codings: u32,
    has_host: bool,
    bad_host: bool,
    bad_value: bool,
    bad_framing: bool,
    bad_nomination: bool,
    close: bool,
    keep_alive: bool,
    wants_upgrade: bool,
    wants_websocket: bool,
}

/// Reads a head of at most `max` bytes; refuses one that not every server would read in the same way. `raw` is the head
/// as it came over HTTP/1.
pub(super) fn read(head: &RequestHeader, raw: Option<&[u8]>, max: usize) -> Result<Form, Refusal> {
    let mut form = Form::of(head);
    if head.method == Method::CONNECT {
        return Err(Refusal::NO_CONNECT);
    }
    if form.bytes > max {
        return Err(Refusal::HEAD_TOO_LARGE);
    }
    if !form.has_host && head.version == Version::HTTP_11 {
        return Err(Refusal::NO_HOST);
    }
    if form.bad_host {
        return Err(Refusal::BAD_HOST);
    }
    if !is_target(head) {
        return Err(Refusal::BAD_TARGET);
    }
    if form.bad_value {
        return Err(Refusal::BAD_HEADER);
    }
    if form.bad_nomination {
        return Err(Refusal::BAD_CONNECTION);
    }
    if form.bad_framing || form.lengths > 1 || form.codings > 1 || form.chunked && raw.is_some_and(is_framed_twice) {
        return Err(Refusal::BAD_FRAMING);
    }
    form.is_valid = true;
    Ok(form)
}

impl Form {
    fn of(head: &RequestHeader) -> Form {
        let mut form = Form {
            bytes: head.method.as_str().len() + head.raw_path().len(),
            is_head: head.method == Method::HEAD,
            ..Form::default()
        };
        for (name, value) in &head.headers {
            let value = value.as_bytes();
            form.bytes += name.as_str().len() + value.len() + 4;
            form.bad_value |= value.contains(&0);
            match *name {
                header::HOST => {
                    form.has_host = true;
                    form.bad_host |= !value.iter().copied().all(is_host);
                }
                header::CONTENT_LENGTH => form.note_length(value),
                header::TRANSFER_ENCODING => form.note_coding(value),
                header::CONNECTION => form.note_connection(value),
                header::EXPECT => form.expects_continue |= value.eq_ignore_ascii_case(b"100-continue"),
                header::UPGRADE => form.wants_websocket |= value.eq_ignore_ascii_case(b"websocket"),
                header::AUTHORIZATION => form.credentials = true,
                header::ORIGIN => form.has_origin = true,
                _ => match name.as_str() {
                    "x-request-id" => form.request_id = true,
                    "x-api-key" | "api-key" | "x-goog-api-key" => form.credentials = true,
                    other => form.forwarded |= access::tells_of_client(other),
                },
            }
        }
        let is_http11 = head.version == Version::HTTP_11;
        form.keeps = if is_http11 { !form.close } else { form.keep_alive && !form.close };
        form.upgrades = is_http11 && form.wants_upgrade && form.wants_websocket;
        form.expects_continue &= is_http11;
        form
    }

    /// One length, in digits. Pingora has refused lengths that differ; it takes those that agree, such as `5, 5`, and
    /// passes them on as they are.
    fn note_length(&mut self, value: &[u8]) {
        self.lengths += 1;
        self.bad_framing |= !value.iter().all(u8::is_ascii_digit);
        self.length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
    }

    /// Chunks, and nothing else: other codings would change the body.
    fn note_coding(&mut self, value: &[u8]) {
        self.codings += 1;
        self.bad_framing |= !value.eq_ignore_ascii_case(b"chunked");
        self.chunked = true;
    }

    /// Options of the connection, and names of headers that are for it alone. A client must not name headers that tell the
    /// backend where the request comes from.
    fn note_connection(&mut self, value: &[u8]) {
        self.has_connection = true;
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty()) {
            match token {
                _ if token.eq_ignore_ascii_case(b"close") => self.close = true,
                _ if token.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                _ if token.eq_ignore_ascii_case(b"upgrade") => self.wants_upgrade = true,
                _ => match HeaderName::from_bytes(token).ok().filter(|_| token.iter().all(|byte| is_token(*byte))) {
                    Some(name) => {
                        self.bad_nomination |= PROTECTED.contains(&name.as_str());
                        self.nominated.push(name);
                    }
                    None => self.bad_nomination = true,
                },
            }
            self.bad_nomination |= self.nominated.len() >= MAX_NOMINATIONS;
        }
    }
}

/// Whether a head with a coding declares a length, too. Pingora drops the length and goes by the coding, as RFC 9112,
/// section 6.3 allows; a proxy in front of us may have gone by the length.
fn is_framed_twice(raw: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length";
    let is_length = |line: &[u8]| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME));
    raw.split(|byte| *byte == b'\n').any(is_length)
}

/// The target in the origin form that servers expect (RFC 9112, section 3.2), in two parts.
pub(super) fn origin_form(target: &[u8]) -> [&[u8]; 2] {
    match raw_target_authority(target) {
        RawTargetAuthority::Absolute { path_and_query: path, .. } if path.starts_with(b"/") => [path, b""],
        RawTargetAuthority::Absolute { path_and_query: path, .. } => [b"/", path],
        _ => [target, b""],
    }
}

/// Origin form, absolute form, or the asterisk of OPTIONS. A target without its slash is what is left of a request
/// line with one blank too many.
fn is_target(head: &RequestHeader) -> bool {
    match head.raw_path() {
        [b'/', ..] => true,
        b"*" => head.method == Method::OPTIONS,
        raw => {
            matches!(raw_target_authority(raw), RawTargetAuthority::Absolute { scheme, .. } if is_http_family_scheme(scheme))
        }
    }
}

/// What a host, a literal address or a port is made of. A comma, which a name might have, would be a list to some.
fn is_host(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(&b)
}

/// Headers that `Connection` must not name.
const PROTECTED: [&str; 4] = ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
/// Envoy and Pingora have the same bound.
const MAX_NOMINATIONS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_form_becomes_origin_form() {
        for (target, path) in [
            ("http://a/b?c", "/b?c"),
            ("http://a", "/"),
            ("http://a?b", "/?b"),
            ("http://a:1//b", "//b"),
            ("/b?http://a/c", "/b?http://a/c"),
            ("*", "*"),
        ] {
            assert_eq!(origin_form(target.as_bytes()).concat(), path.as_bytes(), "{target}");
        }
    }
}
