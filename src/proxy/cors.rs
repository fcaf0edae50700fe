//! Requests of web pages from other origins (CORS): preflights, and what a page needs to read the gateway's own errors.
//!
//! Answers of backends pass as they are. A browser sends no API key with a preflight, so a preflight passes without one.

use std::net::SocketAddr;

use http::{HeaderName, HeaderValue, Method, header};
use pingora::http::RequestHeader;

use super::client::Connection;
use super::form::Form;
use crate::config;
use crate::http1::{Field, ResponseHead};
use crate::snapshot::Snapshot;

/// The page that a request comes from.
pub(super) struct Cors {
    origin: HeaderValue,
    preflight: Option<Preflight>,
}

/// What a browser asks before it sends a request.
struct Preflight {
    method: HeaderValue,
    headers: Option<HeaderValue>,
}

impl Cors {
    /// The page, if the head names one and the listener serves pages of other origins. `form` is known of a valid head.
    pub(super) fn of(
        head: &RequestHeader,
        form: Option<&Form>,
        connection: &Connection,
        snapshot: &Snapshot,
    ) -> Option<Box<Cors>> {
        if !is_on(connection.listener, snapshot) {
            return None;
        }
        let only = |name: HeaderName| {
            let mut values = head.headers.get_all(name).iter();
            values.next().filter(|_| values.next().is_none()).cloned()
        };
        let origin = only(header::ORIGIN)?;
        let is_bare = |form: &Form| !form.chunked && form.length.unwrap_or(0) == 0 && !form.upgrades;
        let preflight = (head.method == Method::OPTIONS && form.is_some_and(is_bare))
            .then(|| only(header::ACCESS_CONTROL_REQUEST_METHOD))
            .flatten()
            .map(|method| Preflight { method, headers: only(header::ACCESS_CONTROL_REQUEST_HEADERS) });
        Some(Box::new(Cors { origin, preflight }))
    }

    /// The page that the start of a head names, which is too large to be read.
    pub(super) fn of_start(head: &[u8], connection: &Connection, snapshot: &Snapshot) -> Option<Box<Cors>> {
        let origin = origin(head).filter(|_| is_on(connection.listener, snapshot))?;
        Some(Box::new(Cors { origin: HeaderValue::from_str(&origin).ok()?, preflight: None }))
    }

    /// Whether the request is a preflight.
    pub(super) fn is_preflight(&self) -> bool {
        self.preflight.is_some()
    }

    /// Adds the fields with which the page can read an error.
    pub(super) fn add_to_error<'a>(&'a self, fields: &mut Vec<Field<'a>>) {
        fields.push(field("Access-Control-Allow-Origin", self.origin.as_bytes()));
        fields.push(field("Access-Control-Expose-Headers", b"Retry-After"));
        fields.push(field("Vary", b"Origin"));
    }

    /// The fields of an answer to a preflight that no backend can answer: the page can send its request, and read what
    /// comes of it.
    pub(super) fn allow(&self) -> Vec<Field<'_>> {
        let mut fields = vec![field("Access-Control-Allow-Origin", self.origin.as_bytes())];
        if let Some(Preflight { method, headers }) = &self.preflight {
            fields.push(field("Access-Control-Allow-Methods", method.as_bytes()));
            fields.extend(headers.iter().map(|names| field("Access-Control-Allow-Headers", names.as_bytes())));
        }
        fields.push(field("Access-Control-Max-Age", MAX_AGE));
        fields.push(field("Vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"));
        fields
    }
}

/// Whether a listener serves pages of other origins. One that is no longer in the config does.
pub(super) fn is_on(listener: SocketAddr, snapshot: &Snapshot) -> bool {
    snapshot.config.listener(listener).is_none_or(|listener| listener.cors == config::Cors::Pass)
}

/// The origin that the start of a head names, for a request that is not read.
pub(super) fn origin(head: &[u8]) -> Option<String> {
    const NAME: &str = "origin:";
    let head = String::from_utf8_lossy(head);
    let mut fields = head.split("\r\n").skip(1).take_while(|line| !line.is_empty());
    let is_name = |line: &&str| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME));
    let value = fields.find(is_name)?[NAME.len()..].trim();
    value.bytes().all(|byte| byte.is_ascii_graphic()).then(|| value.to_owned())
}

/// Whether a backend's answer to a preflight shows that the backend knows nothing of preflights, or fails.
pub(super) fn is_no_answer(head: &ResponseHead<'_, '_>) -> bool {
    let cannot = matches!(head.status, 401 | 404 | 405 | 501) || head.status >= 500;
    cannot && head.field("access-control-allow-origin").is_none()
}

fn field<'a>(name: &'a str, value: &'a [u8]) -> Field<'a> {
    Field { name, value }
}

/// Seconds for which a browser keeps the gateway's own answer: a backend may soon have another one.
const MAX_AGE: &[u8] = b"5";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_found_in_the_start_of_a_head() {
        let found = |head: &str| origin(head.as_bytes());
        assert_eq!(found("GET / HTTP/1.1\r\nHost: a\r\noRigin: https://b\r\n\r\n").as_deref(), Some("https://b"));
        assert_eq!(found("GET / HTTP/1.1\r\nOrigin: null\r\nHo").as_deref(), Some("null"));
        for head in ["", "Origin: a", "GET / HTTP/1.1\r\n\r\nOrigin: a\r\n", "GET / HTTP/1.1\r\nOrigin: a b\r\n"] {
            assert_eq!(found(head), None, "{head}");
        }
    }
}
