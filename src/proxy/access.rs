//! Whether a request is admitted: room for it, the client's address as far as it can be trusted, and its API key.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use pingora::http::RequestHeader;

use super::client::Connection;
use super::ctx::Ctx;
use super::refusal::{Refusal, Refused};
use crate::access::{Admitted, Denied};
use crate::config::Networks;
use crate::core::clients::ClientId;
use crate::metrics::Shed;
use crate::snapshot::Snapshot;

/// Who asks.
#[derive(Default)]
pub(super) struct Asker {
    /// Where the client is: the peer, or who a trusted proxy says that it forwards. `None` only if the system does not know.
    pub(super) address: Option<IpAddr>,
    /// Whether what the peer says of the client is believed.
    pub(super) trusted: bool,
    /// Whose key it showed, if keys are asked for; until this drops, it counts as a request of his.
    pub(super) admitted: Option<Admitted>,
    /// Whether keys are required, but not of this request: it is a preflight.
    pub(super) needs_no_key: bool,
}

impl Asker {
    /// Where the client is.
    pub(super) fn of(head: &RequestHeader, connection: &Connection, snapshot: &Snapshot) -> Asker {
        let proxies = &snapshot.config.access.trusted_proxies;
        let peer = connection.peer;
        let trusted = !proxies.is_empty() && peer.is_some_and(|peer| proxies.contains(peer));
        let address = match peer {
            Some(peer) if trusted => Some(forwarded(&head.headers, proxies).unwrap_or(peer)),
            peer => peer,
        };
        Asker { address, trusted, admitted: None, needs_no_key: false }
    }
}

/// Whom the proxies forward: the last in their chain that is no proxy of ours, for whatever stands before it, he may
/// have written himself. Nobody if that is no address.
fn forwarded(headers: &HeaderMap, proxies: &Networks) -> Option<IpAddr> {
    let values: Vec<&[u8]> = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    let mut last = None;
    for link in values.iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b',')) {
        let Some(address) = std::str::from_utf8(link).ok().and_then(|text| address(text.trim())) else { break };
        last = Some(address);
        if !proxies.contains(address) {
            break;
        }
    }
    last
}

/// An address as proxies write it: some with a port, IPv6 with brackets or without.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// Refuses a request for which there is no room, or whose client sends too many.
pub(super) fn check_room(ctx: &mut Ctx) -> Result<(), Refused> {
    let Err((shed, refused)) = room(ctx) else { return Ok(()) };
    ctx.gateway().metrics.limits.shed(shed);
    Err(refused)
}

fn room(ctx: &Ctx) -> Result<(), (Shed, Refused)> {
    let gateway = ctx.gateway();
    gateway.admit(&ctx.snapshot).map_err(|shed| match shed {
        Shed::Descriptors => (shed, Refusal::NO_DESCRIPTORS.into()),
        _ => (shed, Refusal::NO_MEMORY.into()),
    })?;
    let (Some(rate), Some(client)) = (ctx.snapshot.client_rate, ctx.asker.address.map(id)) else { return Ok(()) };
    gateway
        .clients
        .ask(client, rate, ctx.now())
        .map_err(|wait| (Shed::ClientRequests, Refused::Later(Refusal::TOO_OFTEN, Duration::from_millis(wait))))
}

/// The client of `limits.per_client` that has this address.
pub(super) fn id(address: IpAddr) -> ClientId {
    match address.to_canonical() {
        IpAddr::V4(address) => ClientId::v4(address.into()),
        IpAddr::V6(address) => ClientId::v6(address.into()),
    }
}

/// Refuses whom the keys in force don't let in. A client can show several keys: some SDKs send a dummy in one header.
pub(super) fn check_key(head: &RequestHeader, ctx: &mut Ctx) -> Result<(), Refused> {
    let gateway = Arc::clone(ctx.gateway());
    let Some(keys) = gateway.access.clients() else { return Ok(()) };
    if ctx.is_preflight() {
        // A browser shows no key before it knows that it can.
        ctx.asker.needs_no_key = true;
        return Ok(());
    }
    let mut is_shown = false;
    for key in shown(&head.headers) {
        is_shown = true;
        let (holder, refused) = match keys.admit(key, ctx.kind.takes_slot(), ctx.now()) {
            Ok(admitted) => {
                ctx.record.holder(&admitted.name);
                ctx.asker.admitted = Some(admitted);
                return Ok(());
            }
            Err(Denied::Unknown) => continue,
            Err(Denied::TooMany(holder)) => (holder, Refusal::TOO_MANY_OF_KEY.into()),
            Err(Denied::TooOften(holder, wait)) => {
                (holder, Refused::Later(Refusal::RATE_OF_KEY, Duration::from_millis(wait)))
            }
        };
        ctx.record.holder(&holder);
        return Err(refused);
    }
    if is_shown {
        ctx.gateway().metrics.access.unknown_key();
        return Err(Refusal::UNKNOWN_KEY.into());
    }
    ctx.gateway().metrics.access.no_key();
    Err(Refusal::NO_KEY.into())
}

/// The keys that a client shows, at most one in each header: of one that comes twice, others may take the other.
fn shown(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let one = |name: &header::HeaderName| {
        let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let value = values.next().filter(|_| values.next().is_none())?;
        if *name == header::AUTHORIZATION { bearer(value) } else { Some(value) }
    };
    KEY_HEADERS.iter().filter_map(one).filter(|key| !key.is_empty())
}

/// The token of `Bearer TOKEN` (RFC 6750, section 2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let scheme = value.get(..SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| value[SCHEME.len()..].trim_ascii())
}

/// Whether a header says, or may be taken to say, where a request comes from. To some servers (CGI, WSGI) `_` is `-`.
pub(super) fn tells_of_client(name: &str) -> bool {
    const NAMES: [&str; 5] = ["forwarded", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"];
    const PREFIX: &str = "x-forwarded-";
    let same = |a: &str, b: &str| {
        a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(a, b)| a == b || a == b'_' && b == b'-')
    };
    name.get(..PREFIX.len()).is_some_and(|begin| same(begin, PREFIX)) || NAMES.iter().any(|other| same(name, other))
}

pub(super) const FORWARDED_FOR: header::HeaderName = header::HeaderName::from_static("x-forwarded-for");
/// Where clients have their keys: OpenAI's, Anthropic's (llama-server takes it, too), Azure's, Google's.
pub(super) static KEY_HEADERS: [header::HeaderName; 4] = [
    header::AUTHORIZATION,
    header::HeaderName::from_static("x-api-key"),
    header::HeaderName::from_static("api-key"),
    header::HeaderName::from_static("x-goog-api-key"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&str, &str)| {
            (
                header::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            )
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn key_is_shown_in_any_of_four_headers() {
        for (lines, expected) in [
            (&[("authorization", "Bearer k")][..], &["k"][..]),
            (&[("authorization", "bEARER  k ")], &["k"]),
            (&[("x-api-key", "k")], &["k"]),
            (&[("api-key", "k")], &["k"]),
            (&[("x-goog-api-key", "k")], &["k"]),
            (&[("x-api-key", "k"), ("authorization", "Bearer dummy")], &["dummy", "k"]),
            (&[("authorization", "Basic k"), ("x-api-key", "k")], &["k"]),
            (&[("authorization", "Bearer k"), ("authorization", "Bearer k")], &[]),
            (&[("authorization", "Bearer")], &[]),
            (&[("x-api-key", "k"), ("x-api-key", "k"), ("api-key", "l")], &["l"]),
            (&[("x-api-key", "")], &[]),
            (&[("authorization", "Bearer  ")], &[]),
            (&[], &[]),
        ] {
            let headers = headers(lines);
            let keys: Vec<_> = shown(&headers).map(|key| String::from_utf8(key.to_vec()).unwrap()).collect();
            assert_eq!(keys, expected, "{lines:?}");
        }
    }

    #[test]
    fn the_client_is_the_last_in_the_chain_that_is_no_proxy() {
        let config = "listeners: [{ address: 127.0.0.1:0 }]\naccess: { trusted_proxies: [10.0.0.0/8, '::1'] }\n\
                      pools: [{ name: p, backends: [{ url: http://a }] }]";
        let proxies = Config::parse(config, "test").unwrap().access.trusted_proxies;
        for (chain, expected) in [
            (&["203.0.113.7"][..], Some("203.0.113.7")),
            (&["1.2.3.4, 203.0.113.7"], Some("203.0.113.7")),
            (&["203.0.113.7, 10.0.0.9,10.0.0.8"], Some("203.0.113.7")),
            (&["203.0.113.7", "10.0.0.9"], Some("203.0.113.7")),
            (&["203.0.113.7:1234"], Some("203.0.113.7")),
            (&["[2001:db8::1]:1234"], Some("2001:db8::1")),
            (&["[2001:db8::1]"], Some("2001:db8::1")),
            (&["2001:db8::1"], Some("2001:db8::1")),
            (&["::ffff:203.0.113.7"], Some("203.0.113.7")),
            (&["10.0.0.1, 10.0.0.2"], Some("10.0.0.1")),
            (&["1.2.3.4, unknown, 10.0.0.2"], Some("10.0.0.2")),
            (&["1.2.3.4, unknown"], None),
            (&["1.2.3.4", "\u{ff}, 10.0.0.2"], Some("10.0.0.2")),
            (&["1.2.3.4", "\u{ff}, 203.0.113.7"], Some("203.0.113.7")),
            (&["1.2.3.4", "\u{ff}"], None),
            (&["1.2.3.4, "], None),
            (&[""], None),
            (&[], None),
        ] {
            let lines: Vec<(&str, &str)> = chain.iter().map(|value| ("x-forwarded-for", *value)).collect();
            let found = forwarded(&headers(&lines), &proxies).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{chain:?}");
        }
    }
}
