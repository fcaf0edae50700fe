//! The admin listener: metrics, health, the backends, the status page. Never on the traffic port.

mod backends;
mod connections;
mod explain;
mod fan_out;
mod history;
mod login;
mod page;
mod reload;
mod status;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, Response, StatusCode, Version, header};
use pingora::apps::http_app::{HttpServer, ServeHttp};
use pingora::protocols::http::ServerSession;
use serde::Serialize;
use serde_json::json;

pub use connections::Connections;
pub use explain::{BackendView, Explained, Score, Seen, explain};

use crate::api::Kind;
use crate::core::Millis;
use crate::gateway::Gateway;
use crate::snapshot::Snapshot;

/// The application behind the admin listener.
pub struct Admin {
    gateway: Arc<Gateway>,
    /// When a refusal was logged last: whoever guesses keys must not fill the log.
    told: AtomicU64,
}

type Answer = Response<Vec<u8>>;

impl Admin {
    /// The application, ready to be served.
    #[must_use]
    pub fn app(gateway: &Arc<Gateway>) -> Connections {
        let admin = Arc::new(HttpServer::new_app(Admin { gateway: Arc::clone(gateway), told: AtomicU64::new(0) }));
        Connections::new(gateway, admin)
    }

    fn answer(&self, method: &Method, path: &str, query: &str, who: &str) -> Answer {
        let snapshot = self.gateway.snapshot.load();
        match (method.as_str(), path) {
            ("GET" | "HEAD", "/" | "/page.css" | "/page.js" | "/charts.js") => page::part(path),
            ("GET" | "HEAD", "/livez") => text(StatusCode::OK, "alive\n"),
            ("GET" | "HEAD", "/readyz") => self.ready(),
            ("GET" | "HEAD", "/metrics") => content(METRICS_TYPE, metrics(&self.gateway, &snapshot)),
            ("GET" | "HEAD", "/backends") => {
                as_json(StatusCode::OK, &backends::list(&self.gateway, &snapshot, self.gateway.clock.now()))
            }
            ("GET" | "HEAD", "/status") => as_json(StatusCode::OK, &status::of(&self.gateway, &snapshot)),
            ("GET" | "HEAD", "/history") => as_json(StatusCode::OK, &history::of(&self.gateway, &snapshot)),
            ("GET" | "HEAD", "/explain") => self.explain(query),
            ("POST", path) => match path.strip_prefix("/backends/").and_then(|rest| rest.rsplit_once('/')) {
                Some((name, "drain")) => self.set_draining(name, true, who),
                Some((name, "undrain")) => self.set_draining(name, false, who),
                _ => not_found(),
            },
            ("GET" | "HEAD", "/reload") => use_post(),
            ("GET" | "HEAD", path) if path.ends_with("/drain") || path.ends_with("/undrain") => use_post(),
            ("GET" | "HEAD", path) if changes_a_server("POST", path) => use_post(),
            ("GET" | "HEAD", _) => not_found(),
            _ => error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Only GET, HEAD and POST are served."),
        }
    }

    /// Counts who showed no key, and tells of it at most once a minute.
    fn refused(&self, session: &ServerSession) {
        self.gateway.metrics.limits.admin_key.inc();
        let (now, told) = (self.gateway.clock.now(), self.told.load(Ordering::Relaxed));
        if told == 0 || now.saturating_sub(told) >= TELL_AGAIN {
            self.told.store(now.max(1), Ordering::Relaxed);
            let client = session.client_addr().map(ToString::to_string);
            tracing::warn!(client, "refused on the admin listener: no key of admin.keys_file");
        }
    }

    fn ready(&self) -> Answer {
        match self.gateway.ready() {
            true => text(StatusCode::OK, "ready\n"),
            false if self.gateway.stopping() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "the first round of probes is not over\n"),
        }
    }

    fn explain(&self, query: &str) -> Answer {
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let Some(session) = value("session").map(percent_decode) else {
            return error(StatusCode::BAD_REQUEST, "no_session", "Ask with ?session=ID.");
        };
        let Ok(bytes) = value("bytes").map_or(Ok(0), str::parse) else {
            return error(
                StatusCode::BAD_REQUEST,
                "invalid_bytes",
                "bytes is the length of a request's body, a number.",
            );
        };
        let snapshot = self.gateway.snapshot.load();
        match explain(&snapshot, &session, bytes, self.gateway.clock.now()) {
            Some(explained) => as_json(StatusCode::OK, &explained),
            None => error(StatusCode::BAD_REQUEST, "invalid_session", "That is no valid session id."),
        }
    }

    fn set_draining(&self, name: &str, draining: bool, who: &str) -> Answer {
        let snapshot = self.gateway.snapshot.load();
        let name = percent_decode(name);
        let Some(link) = snapshot.links.iter().find(|link| link.backend.name() == name) else {
            return error(StatusCode::NOT_FOUND, "no_such_backend", "No backend has that name.");
        };
        let now = self.gateway.clock.now();
        link.backend.set_draining(draining, now);
        tracing::info!(backend = name, draining, who, "set by the admin listener");
        as_json(StatusCode::OK, &backends::describe(&snapshot, link, &snapshot.pool.sessions_at(now), now, false))
    }
}

/// What Prometheus gets, with what removed backends have left to do.
fn metrics(gateway: &Gateway, snapshot: &Snapshot) -> String {
    for (past, link) in backends::removed(gateway, snapshot) {
        gateway.metrics.look_at(&past.config.pool().name, &link.backend);
    }
    gateway.metrics.limits.memory(gateway.memory_parts());
    gateway.metrics.render(&snapshot.config.pool().name, &snapshot.pool, snapshot.held.get())
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Answer {
        if closes_by_default(session.req_header()) {
            session.set_keepalive(None);
        }
        let head = session.req_header();
        let is_safe = matches!(head.method, Method::GET | Method::HEAD);
        if !is_safe && from_another_site(head, self.gateway.access.admins().is_some()) {
            return error(StatusCode::FORBIDDEN, "another_site", "A page of another site may not do that.");
        }
        let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
        let who = match login::of(head, &self.gateway) {
            Ok(who) => who,
            Err(refusal) => {
                self.refused(session);
                return *refusal;
            }
        };
        let is_head = head.method == Method::HEAD;
        let mut answer = match (head.method.as_str(), path) {
            ("POST", "/reload") => {
                tracing::info!(%who, "reload asked for on the admin listener");
                reload::reload(&self.gateway, query).await
            }
            (method, _) if !is_safe && changes_a_server(method, path) => {
                fan_out::send(session, &self.gateway, &who).await
            }
            _ => self.answer(&head.method, path, query, &who),
        };
        if is_head {
            answer.body_mut().clear();
        }
        answer
    }
}

/// Whether a call would change the state of the server that receives it.
fn changes_a_server(method: &str, path: &str) -> bool {
    Method::from_bytes(method.as_bytes()).is_ok_and(|method| Kind::of(&method, path) == Kind::StateChange)
}

/// Whether an HTTP/1.0 client waits for the end of the connection. Pingora would keep it.
fn closes_by_default(head: &pingora::http::RequestHeader) -> bool {
    let keeps =
        head.headers.get(header::CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"keep-alive"));
    head.version == Version::HTTP_10 && !keeps
}

/// A browser says which site's page sent a POST. Another site's page must not drain backends through the browser of an
/// operator who can reach this listener; nor may one whose name was made to point here (DNS rebinding), so the name
/// must be an address, or `localhost`; but a browser gives such a page no key, so where keys are asked for any name will do.
fn from_another_site(head: &pingora::http::RequestHeader, has_keys: bool) -> bool {
    let header = |name: header::HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    match (header(header::ORIGIN), header(header::HOST)) {
        (None, _) => false,
        (Some(origin), Some(host)) => {
            origin.split_once("://").is_none_or(|(_, site)| site != host) || !(has_keys || is_literal(host))
        }
        (Some(_), None) => true,
    }
}

fn is_literal(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

fn content(kind: &'static str, body: String) -> Answer {
    response(StatusCode::OK, kind, body.into_bytes())
}

fn text(status: StatusCode, body: &str) -> Answer {
    response(status, "text/plain; charset=utf-8", body.as_bytes().to_vec())
}

fn as_json(status: StatusCode, body: &impl Serialize) -> Answer {
    response(status, "application/json", serde_json::to_vec(body).unwrap_or_default())
}

fn use_post() -> Answer {
    error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "That changes something: use POST.")
}

fn not_found() -> Answer {
    error(StatusCode::NOT_FOUND, "not_found", "See / for what there is.")
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    let kind = match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "server_error",
    };
    as_json(status, &json!({"error": {"message": message, "type": kind, "code": code}}))
}

fn response(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Answer {
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}

fn percent_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// For one request, from the end of the one before to its answer.
const REQUEST: Duration = Duration::from_secs(60);
/// Milliseconds.
const TELL_AGAIN: Millis = 60_000;
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
