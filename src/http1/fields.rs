//! Header and trailer fields.

use memchr::memchr_iter;

use super::Malformed;

/// A header or trailer field: a name, and a value of bytes.
pub type Field<'a> = httparse::Header<'a>;

/// Fields that a head may have; Pingora has the same bound for requests.
pub const MAX_FIELDS: usize = 256;

/// Whether a field belongs to one connection only and is not forwarded (RFC 9110, section 7.6.1). `Trailer` is
/// forwarded with the trailers that it announces.
#[must_use]
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    match name.len() {
        2 => is("te"),
        7 => is("upgrade"),
        10 => is("connection") || is("keep-alive"),
        14 => is("http2-settings"),
        16 => is("proxy-connection"),
        17 => is("transfer-encoding"),
        18 => is("proxy-authenticate"),
        19 => is("proxy-authorization"),
        _ => false,
    }
}

/// Whether a trailer field is forwarded: not if it frames the message, routes it, or describes its connection (RFC 9110,
/// section 6.5.1).
pub(super) fn is_allowed_trailer(name: &[u8]) -> bool {
    const REFUSED: [&str; 6] =
        ["content-length", "content-encoding", "content-range", "content-type", "host", "trailer"];
    !is_hop_by_hop(name) && !REFUSED.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

/// Whether a byte can be in a token, such as a field name (RFC 9110, section 5.6.2).
#[must_use]
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The tokens of a list, such as the value of `Connection`.
pub(super) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Refuses lines that end with LF alone. `httparse` accepts them, as RFC 9112, section 2.2 allows; other clients do not.
pub(super) fn check_line_ends(head: &[u8]) -> Result<(), Malformed> {
    let bare = memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r');
    if bare { Err(Malformed("a line ends without CR")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_crlf() {
        for (head, ok) in [("a\r\nb\r\n", true), ("", true), ("a\nb\r\n", false), ("\n", false), ("a\r\n\n", false)] {
            assert_eq!(check_line_ends(head.as_bytes()).is_ok(), ok, "{head:?}");
        }
    }

    #[test]
    fn names_are_compared_without_case() {
        assert!(is_hop_by_hop(b"Keep-Alive") && is_hop_by_hop(b"CONNECTION") && !is_hop_by_hop(b"Trailer"));
        assert!(is_allowed_trailer(b"X-Sum") && !is_allowed_trailer(b"Content-Length") && !is_allowed_trailer(b"TE"));
    }
}
