//! The form of a request's head: what Pingora lets pass, and two servers might read in two ways.

use http::{Method, Version, header};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::http::authority::{RawTargetAuthority, is_http_family_scheme, raw_target_authority};
use pingora::proxy::Session;

use super::access;
use super::refusal::Refusal;

/// What a head says, of which more than one step wants to know. All headers are read once: looking one up costs as much
/// as passing five.
#[derive(Default)]
pub(super) struct Form {
    /// The declared length of the body, in bytes.
    pub(super) length: Option<u64>,
    /// Whether the body comes in chunks.
    pub(super) chunked: bool,
    /// Whether the client waits for a word before it sends the body (RFC 9110, section 10.1.1).
    pub(super) expects_continue: bool,
    /// Whether there is a header that is meant for us alone, and Pingora has something to strip.
    pub(super) hop_by_hop: bool,
    /// Whether somebody before us has said whom he forwards, and how.
    pub(super) forwarded: bool,
    /// Whether the client shows who it is.
    pub(super) credentials: bool,
    /// Whether the client named the request.
    pub(super) request_id: bool,
    bytes: usize,
    lengths: u32,
    codings: u32,
    has_host: bool,
    bad_host: bool,
    bad_value: bool,
    bad_framing: bool,
}

/// Reads a head of at most `max` bytes; refuses one that is not what every server would read in the same way.
pub(super) fn read(session: &Session, max: usize) -> Result<Form, Refusal> {
    let head = session.req_header();
    let form = Form::of(head);
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
    if form.bad_framing || form.lengths > 1 || form.codings > 1 || form.chunked && is_framed_twice(session) {
        return Err(Refusal::BAD_FRAMING);
    }
    Ok(form)
}

impl Form {
    fn of(head: &RequestHeader) -> Form {
        let mut form = Form { bytes: head.method.as_str().len() + head.raw_path().len(), ..Form::default() };
        for (name, value) in &head.headers {
            let value = value.as_bytes();
            form.bytes += name.as_str().len() + value.len() + 4;
            form.bad_value |= value.contains(&0);
            match *name {
                header::HOST => {
                    form.has_host = true;
                    form.bad_host |= !value.iter().copied().all(is_host);
                }
                header::CONTENT_LENGTH => form.declares_length(value),
                header::TRANSFER_ENCODING => form.declares_coding(value),
                header::EXPECT => form.expects_continue |= value.eq_ignore_ascii_case(b"100-continue"),
                header::CONNECTION | header::UPGRADE | header::TE | header::TRAILER => form.hop_by_hop = true,
                header::AUTHORIZATION => form.credentials = true,
                header::PROXY_AUTHENTICATE | header::PROXY_AUTHORIZATION => form.hop_by_hop = true,
                _ => match name.as_str() {
                    "keep-alive" | "proxy-connection" | "http2-settings" => form.hop_by_hop = true,
                    "x-request-id" => form.request_id = true,
                    "x-api-key" => form.credentials = true,
                    other => form.forwarded |= access::tells_of_client(other),
                },
            }
        }
        form
    }

    /// One length, in digits. Pingora has refused lengths that differ; it takes those that agree, such as `5, 5`, and
    /// passes them on as they are.
    fn declares_length(&mut self, value: &[u8]) {
        self.lengths += 1;
        self.bad_framing |= !value.iter().all(u8::is_ascii_digit);
        self.length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
    }

    /// Chunks, and nothing else: Pingora takes off every coding but passes on the body.
    fn declares_coding(&mut self, value: &[u8]) {
        self.codings += 1;
        self.bad_framing |= !value.eq_ignore_ascii_case(b"chunked");
        self.chunked = true;
        self.hop_by_hop = true;
    }
}

/// Whether a head with a coding declares a length, too. Pingora drops the length and goes by the coding, as RFC 9112,
/// section 6.3 allows; a proxy in front of us may have gone by the length.
fn is_framed_twice(session: &Session) -> bool {
    let raw = session.as_downstream().as_http1().map(|session| session.get_headers_raw_bytes());
    raw.is_some_and(|raw| raw.split(|byte| *byte == b'\n').any(is_length))
}

fn is_length(line: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length";
    line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME))
}

/// Turns a target in absolute form into the origin form that servers expect (RFC 9112, section 3.2).
pub(super) fn to_origin_form(head: &mut RequestHeader) -> Result<()> {
    let target = raw_target_authority(head.raw_path());
    let RawTargetAuthority::Absolute { path_and_query: path, .. } = target else { return Ok(()) };
    let path = if path.starts_with(b"/") { path.to_vec() } else { [b"/", path].concat() };
    head.set_raw_path(&path)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str) -> RequestHeader {
        RequestHeader::build(Method::GET, target.as_bytes(), None).unwrap()
    }

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
            let mut head = head(target);
            to_origin_form(&mut head).unwrap();
            assert_eq!(head.raw_path(), path.as_bytes(), "{target}");
        }
    }
}
