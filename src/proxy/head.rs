//! The request's head: what is refused, whose session it is, and what backends get of it.

use http::{HeaderValue, Method, Version, header};
use pingora::Result;
use pingora::http::{HeaderNameVariant, RequestHeader};

use super::access::{self, Asker};
use super::client::Connection;
use super::cors::Cors;
use super::ctx::Ctx;
use super::form::{self, Form};
use super::refusal::{Probe, Refusal, Refused};
use crate::api::{Api, Kind};
use crate::core::SessionKey;
use crate::core::session::Invalid;
use crate::http1::is_hop_by_hop;
use crate::link::Link;
use crate::snapshot::Snapshot;

/// A request's head as backends get it, written once. Only what differs between backends is added for each attempt.
#[derive(Default)]
pub(super) struct Head {
    /// The request line and the headers that every backend gets.
    common: Vec<u8>,
    /// The client's API keys, for backends without a key of their own.
    credentials: Vec<u8>,
    /// Fields that some backends get from the config instead.
    named: Vec<Named>,
    has_host: bool,
}

struct Named {
    name: Vec<u8>,
    line: Vec<u8>,
    is_key: bool,
}

/// How the body of a request is framed for a backend.
#[derive(Clone, Copy, Debug)]
pub(super) enum BodyFraming {
    /// There is no body.
    Absent,
    /// It has this length.
    Length(u64),
    /// It is sent in chunks.
    Chunked,
}

/// Refuses what no backend must get; prepares what they get otherwise. `raw` is the head as it came over HTTP/1.
pub(super) fn accept(head: &RequestHeader, raw: Option<&[u8]>, ctx: &mut Ctx) -> std::result::Result<(), Refused> {
    ctx.api = Api::of(head.uri.path());
    ctx.kind = Kind::of(&head.method, head.uri.path());
    ctx.record.request(head, ctx.kind, ctx.api == Api::Anthropic);
    ctx.asker = Asker::of(head, &ctx.connection, &ctx.snapshot);
    ctx.record.client(ctx.asker.address);
    let form = form::read(head, raw, ctx.snapshot.config.limits.max_header_bytes);
    if form.as_ref().map_or(true, |form| form.has_origin) {
        ctx.cors = Cors::of(head, form.as_ref().ok(), &ctx.connection, &ctx.snapshot);
    }
    ctx.form = form?;
    if let Some(probe) = probe(head, ctx) {
        return Err(Refused::Probe(probe));
    }
    if ctx.form.upgrades && ctx.kind == Kind::Query {
        // What a WebSocket carries is not known.
        ctx.kind = Kind::Other;
    }
    access::check_room(ctx)?;
    access::check_key(head, ctx)?;
    if ctx.kind == Kind::StateChange {
        return Err(Refusal::STATE_CHANGE.into());
    }
    let session = session_key(head, &ctx.snapshot);
    ctx.record.session(session);
    ctx.key = session.unwrap_or_default();
    if ctx.kind.takes_slot() {
        ctx.snapshot.budget.request(ctx.started);
    }
    ctx.head = Head::new(head, ctx).map_err(Refused::from)?;
    Ok(())
}

/// What a load balancer asks about the gateway, if the listener answers that.
fn probe(head: &RequestHeader, ctx: &Ctx) -> Option<Probe> {
    let is_ready = match head.uri.path() {
        "/livez" => false,
        "/readyz" => true,
        _ => return None,
    };
    let listener = ctx.snapshot.config.listener(ctx.connection.listener);
    if !listener.is_some_and(|listener| listener.answer_probes) || !matches!(head.method, Method::GET | Method::HEAD) {
        return None;
    }
    Some(match (is_ready, ctx.gateway().ready()) {
        (false, _) => Probe::Live,
        (true, true) => Probe::Ready,
        (true, false) => Probe::NotReady,
    })
}

impl Head {
    fn new(head: &RequestHeader, ctx: &mut Ctx) -> Result<Head> {
        let mut new = Head { common: Vec::with_capacity(ROOM), ..Head::default() };
        let [path, query] = form::origin_form(head.raw_path());
        for part in [head.method.as_str().as_bytes(), b" ", path, query, b" HTTP/1.1\r\n"] {
            new.common.extend_from_slice(part);
        }
        if head.version == Version::HTTP_2
            && let Some(authority) = head.uri.authority()
        {
            write_field(&mut new.common, b"Host", authority.as_str().as_bytes());
            new.has_host = true;
        }
        let names = &ctx.snapshot.header_names;
        let filter = Filter { form: &ctx.form, trusted: ctx.asker.trusted, skips_host: new.has_host, names };
        head.map(|name, value| {
            let name = name_of(&name);
            match filter.place(name) {
                Place::Nowhere => {}
                Place::Credentials => write_field(&mut new.credentials, name, value.as_bytes()),
                Place::Common => write_field(&mut new.common, name, value.as_bytes()),
                Place::Named { is_key } => {
                    let mut line = Vec::new();
                    write_field(&mut line, name, value.as_bytes());
                    new.named.push(Named { name: name.to_vec(), line, is_key });
                }
            }
            Ok(())
        })?;
        new.has_host |= head.headers.contains_key(header::HOST);
        if ctx.asker.admitted.is_some() || ctx.asker.needs_no_key {
            // They were meant for the gateway.
            new.credentials.clear();
            new.named.retain(|named| !named.is_key);
        }
        if ctx.form.upgrades {
            new.common.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        }
        new.add_origin(head, &ctx.form, &ctx.asker, &ctx.connection);
        if !ctx.form.request_id {
            write_field(&mut new.common, b"X-Request-Id", ctx.record.made_up_id().as_bytes());
        }
        Ok(new)
    }

    /// Adds where the request comes from. What is there already was sent by a trusted proxy.
    fn add_origin(&mut self, head: &RequestHeader, form: &Form, asker: &Asker, connection: &Connection) {
        let keeps = |name: &str| form.forwarded && asker.trusted && head.headers.contains_key(name);
        let peer = connection.peer_text.as_bytes();
        if form.forwarded && asker.trusted {
            let chain = head.headers.get_all(access::FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
            let chain: Vec<&[u8]> = chain.chain([peer]).collect();
            write_field(&mut self.common, b"X-Forwarded-For", &chain.join(&b", "[..]));
        } else {
            write_field(&mut self.common, b"X-Forwarded-For", peer);
        }
        if !keeps("x-forwarded-proto") {
            let scheme = if connection.is_tls { &b"https"[..] } else { b"http" };
            write_field(&mut self.common, b"X-Forwarded-Proto", scheme);
        }
        if let Some(host) = host(head).filter(|_| !keeps("x-forwarded-host")) {
            write_field(&mut self.common, b"X-Forwarded-Host", host);
        }
    }

    /// The headers that the config gives this backend, and the client's own of those that it gives others.
    fn write_named(&self, link: &Link, out: &mut Vec<u8>) {
        let own = link.headers.load();
        out.extend_from_slice(&own.lines);
        let has_key = link.authorization.load().is_some();
        for named in self.named.iter().filter(|named| !(own.has(&named.name) || named.is_key && has_key)) {
            out.extend_from_slice(&named.line);
        }
    }

    /// The head for one backend, with its end.
    pub(super) fn write(&self, link: &Link, framing: BodyFraming, expects_continue: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.common.len() + self.credentials.len() + ROOM_FOR_ATTEMPT);
        out.extend_from_slice(&self.common);
        if !self.has_host {
            // HTTP/1.0 and HTTP/2 can do without a host; HTTP/1.1, which the backend gets, can't.
            write_field(&mut out, b"Host", link.address.origin().authority().as_bytes());
        }
        match &*link.authorization.load() {
            Some(own) => write_field(&mut out, b"Authorization", own.as_bytes()),
            None => out.extend_from_slice(&self.credentials),
        }
        self.write_named(link, &mut out);
        match framing {
            BodyFraming::Absent => {}
            BodyFraming::Length(length) => {
                let mut digits = itoa::Buffer::new();
                write_field(&mut out, b"Content-Length", digits.format(length).as_bytes());
            }
            BodyFraming::Chunked => write_field(&mut out, b"Transfer-Encoding", b"chunked"),
        }
        if expects_continue {
            write_field(&mut out, b"Expect", b"100-continue");
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}

/// Decides which headers of a client go to backends.
struct Filter<'a> {
    form: &'a Form,
    trusted: bool,
    skips_host: bool,
    /// What some backends get from the config.
    names: &'a [String],
}

enum Place {
    Nowhere,
    Credentials,
    Common,
    Named { is_key: bool },
}

impl Filter<'_> {
    fn place(&self, name: &[u8]) -> Place {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        let dropped = match name.len() {
            4 => self.skips_host && is("host"),
            6 => self.form.expects_continue && is("expect"),
            7 => is("trailer"),
            14 => is("content-length"),
            15 => is("x-forwarded-for"),
            _ => false,
        };
        let untrusted = || self.form.forwarded && !self.trusted && tells_of_client(name);
        let nominated = || self.form.nominated.iter().any(|other| is(other.as_str()));
        if dropped || is_hop_by_hop(name) || untrusted() || nominated() {
            return Place::Nowhere;
        }
        let is_key = self.form.credentials && access::KEY_HEADERS.iter().any(|other| is(other.as_str()));
        if self.names.iter().any(|other| is(other)) {
            return Place::Named { is_key };
        }
        if is_key { Place::Credentials } else { Place::Common }
    }
}

fn tells_of_client(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| access::tells_of_client(&name.to_ascii_lowercase()))
}

fn name_of<'a>(name: &'a HeaderNameVariant<'a>) -> &'a [u8] {
    match name {
        HeaderNameVariant::Case(name) => name.as_slice(),
        HeaderNameVariant::Titled(name) => name.as_bytes(),
    }
}

/// Adds a field to a head.
pub(super) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// The host that the client asked for, if it named one.
fn host(head: &RequestHeader) -> Option<&[u8]> {
    let authority = head.uri.authority().filter(|_| head.version == Version::HTTP_2);
    authority.map(|host| host.as_str().as_bytes()).or_else(|| head.headers.get(header::HOST).map(HeaderValue::as_bytes))
}

/// The session in the first of the configured headers that has one; counts where it came from.
fn session_key(head: &RequestHeader, snapshot: &Snapshot) -> std::result::Result<Option<SessionKey>, Invalid> {
    let (affinity, metrics) = (&snapshot.config.affinity, &snapshot.metrics);
    let values =
        affinity.headers.iter().map(|header| head.headers.get_all(&header.name).iter().map(HeaderValue::as_bytes));
    match SessionKey::find(values, affinity.max_length, snapshot.pool.settings().seed) {
        Ok(Some((index, key))) => {
            metrics.session_header(index);
            Ok(Some(key))
        }
        Ok(None) => {
            metrics.session_none.inc();
            Ok(None)
        }
        Err(Invalid) => {
            metrics.session_invalid.inc();
            Err(Invalid)
        }
    }
}

/// Bytes for the head of most requests.
const ROOM: usize = 768;
const ROOM_FOR_ATTEMPT: usize = 64;
