//! Checks of single values: each takes what was written and returns what is meant, or what to write instead.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::time::Duration;

use http::HeaderName;
use http::uri::{Authority, PathAndQuery};

use super::lenient::quote_text;
use super::units::{Size, Span};
use super::{Origin, SessionHeader};

/// The longest name of a pool or backend: it becomes a header value and a metric label.
const LONGEST_NAME: usize = 255;
/// What a hop rewrites or removes: never the same on both sides.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A whole number within bounds.
pub(super) fn within<T: TryFrom<u64>>(bounds: RangeInclusive<u64>) -> impl FnOnce(u64) -> Result<T, String> {
    move |value| {
        let message = || format!("{value} is not from {} to {}", bounds.start(), bounds.end());
        let fits = bounds.contains(&value).then(|| T::try_from(value).ok()).flatten();
        fits.ok_or_else(message)
    }
}

/// A size within bounds, which are `(bytes, as written)`.
pub(super) fn size<T: TryFrom<u64>>(least: (u64, &str), most: (u64, &str)) -> impl FnOnce(Size) -> Result<T, String> {
    let message = format!("must be from {} to {}", least.1, most.1);
    move |Size(bytes)| {
        let fits = (least.0..=most.0).contains(&bytes).then(|| T::try_from(bytes).ok()).flatten();
        fits.ok_or(message)
    }
}

/// A duration that may not be zero.
pub(super) fn positive(Span(duration): Span) -> Result<Duration, String> {
    if duration.is_zero() { Err("may not be zero".into()) } else { Ok(duration) }
}

/// A duration whose zero means `None`: off, or unlimited.
pub(super) fn or_none(Span(duration): Span) -> Result<Option<Duration>, String> {
    Ok((!duration.is_zero()).then_some(duration))
}

/// [`or_none`] up to a bound, which is `(seconds, as written)`.
pub(super) fn or_none_up_to((seconds, written): (u64, &str)) -> impl FnOnce(Span) -> Result<Option<Duration>, String> {
    move |span| up_to((seconds, written))(span).map(|length| (!length.is_zero()).then_some(length))
}

/// A duration up to a bound, which is `(seconds, as written)`.
pub(super) fn up_to((seconds, written): (u64, &str)) -> impl FnOnce(Span) -> Result<Duration, String> {
    move |Span(span)| {
        if span <= Duration::from_secs(seconds) { Ok(span) } else { Err(format!("is longer than `{written}`")) }
    }
}

/// [`within`] for a count whose zero would be taken for off; `advice` says what turns it off.
pub(super) fn not_zero<T: TryFrom<u64>>(most: u32, advice: &str) -> impl FnOnce(u64) -> Result<T, String> {
    move |count| match count {
        0 => Err(format!("may not be zero: {advice}")),
        _ => within(1..=most.into())(count),
    }
}

/// How far above its fair share a backend may be loaded; 0 is off.
pub(super) fn balance_factor(factor: f64) -> Result<Option<f64>, String> {
    match factor {
        0.0 => Ok(None),
        _ if factor > 1.0 && factor <= 100.0 => Ok(Some(factor)),
        _ => Err("must be over 1 and at most 100, such as `1.25`; `0` turns it off".into()),
    }
}

pub(super) fn address(text: String) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port =
            text.strip_prefix("localhost:").or_else(|| text.strip_prefix(':')).or_else(|| text.strip_prefix("*:"));
        let port = port.filter(|port| port.parse::<u16>().is_ok()).unwrap_or("8080");
        let host = if text.starts_with("localhost") { "127.0.0.1" } else { "0.0.0.0" };
        format!("{} is not an IP address and port, such as `{host}:{port}`", quote_text(&text))
    })
}

/// The name of a pool or backend.
pub(super) fn name(text: String) -> Result<String, String> {
    let wrong = text.chars().find(|c| !c.is_ascii_graphic() || "/?#%".contains(*c));
    match wrong {
        _ if text.is_empty() => Err("is empty".into()),
        Some(' ') => Err(format!("{} has a space: a name is a header value and a label", quote_text(&text))),
        Some(c) if c.is_ascii_graphic() => {
            Err(format!("{} has `{c}`: a name is a part of admin URLs, so none of `/ ? # %`", quote_text(&text)))
        }
        Some(_) => Err(format!("{} is not visible ASCII: a name is a header value and a label", quote_text(&text))),
        None if text.len() > LONGEST_NAME => Err(format!("is longer than {LONGEST_NAME} characters")),
        None => Ok(text),
    }
}

pub(super) fn backend_name(text: String) -> Result<String, String> {
    match text.as_str() {
        "none" => Err("`none` is reserved: in metrics it stands for requests that no backend answered".into()),
        _ => name(text),
    }
}

pub(super) fn session_header(text: String) -> Result<SessionHeader, String> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        format!("{} is not a header name: letters, digits and `-`, such as `X-Session-Id`", quote_text(&text))
    })?;
    if HOP_BY_HOP.contains(&name.as_str()) {
        return Err(format!("{} belongs to the connection: a session needs a header of its own", quote_text(&text)));
    }
    if ["none", "invalid"].contains(&text.as_str()) {
        return Err(format!("{} is reserved: in metrics it stands for requests without a session", quote_text(&text)));
    }
    Ok(SessionHeader { name, written: text })
}

/// Path and query of a probe.
pub(super) fn path(text: String) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("{} does not begin with `/`", quote_text(&text)));
    }
    let valid =
        text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') && text.parse::<PathAndQuery>().is_ok();
    if valid {
        Ok(text)
    } else {
        Err(format!("{} is not a path: percent-encode what is not visible ASCII", quote_text(&text)))
    }
}

/// `unix:/PATH`, also written `unix:///PATH`.
fn socket(path: &str) -> Result<Origin, String> {
    let path = path.strip_prefix("//").unwrap_or(path);
    let wrong = |what: &str| Err(format!("{} {what}", quote_text(path)));
    if !path.starts_with('/') || path.ends_with('/') {
        return wrong("is not the absolute path of a socket: write `unix:/run/llama.sock`");
    }
    if UnixAddr::from_pathname(path).is_err() {
        return wrong("is no path that a socket can have: at most 107 bytes");
    }
    Ok(Origin { tls: false, host: "localhost".into(), port: 80, socket: Some(path.into()) })
}

/// `http://HOST`, `http://HOST:PORT`, the same with `https`, with or without a `/` at the end; `unix:/PATH`.
pub(super) fn origin(text: String) -> Result<Origin, String> {
    let wrong = |what: &str| Err(format!("{} {what}", quote_text(&text)));
    if let Some(path) = text.strip_prefix("unix:") {
        return socket(path);
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return wrong("has no scheme: write `http://HOST:PORT`");
    };
    let (tls, default_port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (false, 80),
        "https" => (true, 443),
        _ => return wrong("is not an `http://` or `https://` URL"),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('@') {
        // Not quoted: it may hold a password.
        return Err("holds a user name: the key of a backend belongs in `api_key_file`".into());
    }
    if authority.contains(['?', '#']) {
        return wrong("has a query or fragment: write only `http://HOST:PORT`");
    }
    if authority.contains('/') {
        return wrong("has a path: requests keep the path that the client sent, so write only `http://HOST:PORT`");
    }
    let Ok(parsed) = authority.parse::<Authority>() else {
        return wrong("is not a URL: write `http://HOST:PORT`");
    };
    let Some(host) = host(parsed.host()) else {
        return wrong("has no valid host: write a name, an IPv4 address or an IPv6 address in brackets");
    };
    // `Authority` also accepts `host:` and ports that do not fit; u16 also reads `+80`.
    let port = match authority.strip_prefix(parsed.host()).unwrap_or_default() {
        "" => Some(default_port),
        rest => rest.strip_prefix(':').filter(|digits| !digits.starts_with('+')).and_then(|digits| digits.parse().ok()),
    };
    match port {
        Some(port) if port != 0 => Ok(Origin { tls, host, port, socket: None }),
        _ => wrong("has no valid port: 1 to 65535"),
    }
}

/// A DNS name (RFC 1123, `_` allowed), an IPv4 address, or an IPv6 address in brackets; returned in lower case without brackets.
fn host(text: &str) -> Option<String> {
    if let Some(inside) = text.strip_prefix('[') {
        let address: Ipv6Addr = inside.strip_suffix(']')?.parse().ok()?;
        return Some(address.to_string());
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    // A last label of digits makes it an address (WHATWG URL), so it must be a good one.
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    let valid = name.len() <= 253 && name.split('.').all(label) && (!numeric || text.parse::<Ipv4Addr>().is_ok());
    valid.then(|| text.to_ascii_lowercase())
}
