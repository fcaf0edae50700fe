//! The form of a request's head: what Pingora lets pass, and two servers might read in two ways.

use http::{HeaderMap, Method, Version, header};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::http::authority::{RawTargetAuthority, is_http_family_scheme, raw_target_authority};
use pingora::proxy::Session;

use super::errors::Refusal;

/// Refuses a head that is not what every server would read in the same way.
pub(super) fn check(head: &RequestHeader) -> Result<(), Refusal> {
    let headers = &head.headers;
    match headers.get(header::HOST) {
        None if head.version == Version::HTTP_11 => return Err(Refusal::NO_HOST),
        Some(host) if !host.as_bytes().iter().copied().all(is_host) => return Err(Refusal::BAD_HOST),
        _ => {}
    }
    if !is_target(head) {
        return Err(Refusal::BAD_TARGET);
    }
    if headers.iter().any(|(_, value)| value.as_bytes().contains(&0)) {
        return Err(Refusal::BAD_HEADER);
    }
    if is_framed(headers) { Ok(()) } else { Err(Refusal::BAD_FRAMING) }
}

/// Whether a head declares a length and a coding. Pingora drops the length and goes by the coding, as RFC 9112, section
/// 6.3 allows; a proxy in front of us may have gone by the length.
pub(super) fn is_framed_twice(session: &Session) -> bool {
    let coded = session.req_header().headers.contains_key(header::TRANSFER_ENCODING);
    let raw = session.as_downstream().as_http1().filter(|_| coded).map(|session| session.get_headers_raw_bytes());
    raw.is_some_and(|raw| raw.split(|byte| *byte == b'\n').any(declares_length))
}

fn declares_length(line: &[u8]) -> bool {
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

/// One length, in digits, or chunks and nothing else. Pingora takes lengths that agree, such as `5, 5`, and passes
/// them on as they are; and it takes off every coding but passes on the body.
fn is_framed(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let length = lengths.next().is_none_or(|length| length.as_bytes().iter().all(u8::is_ascii_digit));
    let coding = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    length && coding && lengths.next().is_none() && codings.next().is_none()
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
