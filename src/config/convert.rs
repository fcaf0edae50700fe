//! From what is written to what is meant: the file's top level. Every field is converted before the first error ends a section.

use std::net::SocketAddr;

use serde_yaml::Value;

use super::at::{At, Files};
use super::check::{address, positive, session_header, size, within};
use super::convert_access::{access, admin, in_the_clear};
use super::convert_pool::pools;
use super::convert_tls;
use super::errors::ConfigError;
use super::file::{
    AffinitySection, File, LimitsSection, ListenerSection, PerClientSection, ReloadSection, ShutdownSection, schema,
};
use super::keys::Keys;
use super::lenient::Lenient;
use super::memory::OF_CONNECTION;
use super::networks::networks;
use super::node::{Node, Step};
use super::units::{PerTime, Size};
use super::written::Written;
use super::{Admin, Affinity, Config, Limits, Listener, PerClient, Reload, SessionHeader, Shutdown};

const TIB: (u64, &str) = (1 << 40, "1024GiB");

/// `None`, or a value not to be used, after at least one problem.
pub(super) fn config(root: &Node, problems: &mut Vec<ConfigError>, files: Files<'_>) -> Option<Config> {
    let value = Keys::new(&schema(), problems).check(root);
    let file = read(value, root, problems)?;
    let written = Written::new(&file);
    let mut all = At::new(root, problems, files);
    let at = &mut all;

    let listeners = at.list("listeners", file.listeners, 64, listener);
    let admin = admin(file.admin, at);
    let affinity = at.section("affinity", file.affinity, affinity);
    let pools = pools(file.pools, at);
    let access = at.section("access", file.access, access);
    let limits = at.section("limits", file.limits, limits);
    let reload = at.section("reload", file.reload, reload);
    let shutdown = at.section("shutdown", file.shutdown, shutdown);
    let access_log = at.key("access_log", file.access_log, Ok);

    let listeners = listeners.unwrap_or_default();
    distinct_addresses(&listeners, at);
    apart(admin.as_ref().and_then(Option::as_ref), &listeners, at);
    let listeners: Option<Vec<Listener>> = listeners.into_iter().collect();
    if let (Some(access), Some(listeners)) = (&access, &listeners) {
        in_the_clear(access, listeners, at);
    }
    let warnings = all.into_warnings();
    Some(Config {
        listeners: listeners?,
        admin: admin?,
        affinity: affinity?,
        pools: pools?,
        access: access?,
        limits: limits?,
        reload: reload?,
        shutdown: shutdown?,
        access_log: access_log?,
        written,
        warnings,
    })
}

fn read(value: Value, root: &Node, problems: &mut Vec<ConfigError>) -> Option<File> {
    // `Keys` has removed what could fail here.
    serde_yaml::from_value(value).map_err(|error| problems.push(ConfigError::at(root.position, error.to_string()))).ok()
}

fn listener(file: ListenerSection, at: &mut At<'_>) -> Option<Listener> {
    let address = at.key("address", file.address, address);
    let tls = convert_tls::listener(file.tls, at);
    let allow = networks("allow", file.allow, at);
    let cors = at.key("cors", file.cors, Ok);
    let answer_probes = at.key("answer_probes", file.answer_probes, Ok);
    Some(Listener { address: address?, tls: tls?, allow: allow?, cors: cors?, answer_probes: answer_probes? })
}

/// No two listeners can be bound to overlapping addresses.
fn distinct_addresses(listeners: &[Option<Listener>], at: &mut At<'_>) {
    for (index, listener) in listeners.iter().enumerate() {
        let Some(Listener { address, .. }) = listener else { continue };
        if let Some(first) = taken_by(*address, &listeners[..index]) {
            let path = [Step::Key("listeners".into()), Step::Index(index), Step::Key("address".into())];
            at.error(&path, format!("`{address}` is taken by listeners[{first}]"));
        }
    }
}

fn apart(admin: Option<&Admin>, listeners: &[Option<Listener>], at: &mut At<'_>) {
    let Some(Admin { address, .. }) = admin else { return };
    if let Some(first) = taken_by(*address, listeners) {
        let message =
            format!("`{address}` is taken by listeners[{first}]: the admin listener needs an address of its own");
        at.error(&[Step::Key("admin".into()), Step::Key("address".into())], message);
    }
}

fn taken_by(address: SocketAddr, listeners: &[Option<Listener>]) -> Option<usize> {
    listeners.iter().position(|other| other.as_ref().is_some_and(|other| overlap(other.address, address)))
}

/// Whether binding one keeps the other from being bound. The system gives every port 0 another port.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_host =
        a.ip() == b.ip() || (a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified()));
    a.port() == b.port() && a.port() != 0 && same_host
}

fn affinity(file: AffinitySection, at: &mut At<'_>) -> Option<Affinity> {
    let headers = headers(file.headers, at);
    let max_length = at.key("max_length", file.max_length, within(1..=16384));
    let hash_seed = at.key("hash_seed", file.hash_seed, |seed| {
        if seed.len() > 1024 { Err("is longer than 1024 bytes".into()) } else { Ok(seed) }
    });
    let policy = at.key("policy", file.policy, Ok);
    let gateways = at.key("gateways", file.gateways, within(1..=1000));
    let max_sessions = at.key("max_sessions", file.max_sessions, within(1..=10_000_000));
    let return_home = at.key("return_home", file.return_home, Ok);
    let idle_ttl = at.key("idle_ttl", file.idle_ttl, positive);
    let max_displaced = at.key("max_displaced", file.max_displaced, within(1..=10_000_000));
    Some(Affinity {
        headers: headers?,
        max_length: max_length?,
        hash_seed: hash_seed?,
        policy: policy?,
        gateways: gateways?,
        max_sessions: max_sessions?,
        return_home: return_home?,
        idle_ttl: idle_ttl?,
        max_displaced: max_displaced?,
    })
}

fn headers(names: Lenient<Vec<Lenient<String>>>, at: &mut At<'_>) -> Option<Vec<SessionHeader>> {
    let headers =
        at.list("headers", names, 16, |name, at| session_header(name).map_or_else(|message| at.note(message), Some))?;
    for (index, header) in headers.iter().enumerate() {
        let Some(header) = header else { continue };
        let earlier =
            headers[..index].iter().position(|other| other.as_ref().is_some_and(|other| other.name == header.name));
        if let Some(first) = earlier {
            let message = format!("`{}` is headers[{first}] again: names are case-insensitive", header.written);
            at.error(&[Step::Key("headers".into()), Step::Index(index)], message);
        }
    }
    headers.into_iter().collect()
}

fn limits(file: LimitsSection, at: &mut At<'_>) -> Option<Limits> {
    let max_body = at.key("max_body", file.max_body, size((1, "1B"), TIB));
    let max_header_bytes =
        at.key("max_header_bytes", file.max_header_bytes, size((1 << 10, "1KiB"), (1 << 20, "1MiB")));
    let http2_streams = at.key("http2_streams", file.http2_streams, within(1..=1000));
    let memory_for_retry_bodies = at.key("memory_for_retry_bodies", file.memory_for_retry_bodies, size((0, "0B"), TIB));
    let max_connections = at.key("max_connections", file.max_connections, within(1..=1_000_000));
    let header_timeout = at.key("header_timeout", file.header_timeout, positive);
    let memory = at.key("memory", file.memory, memory);
    let per_client = at.section("per_client", file.per_client, per_client);
    if let (Some(Some(memory)), Some(connections)) = (memory, max_connections) {
        fits(memory, connections, at);
    }
    Some(Limits {
        max_body: max_body?,
        max_header_bytes: max_header_bytes?,
        http2_streams: http2_streams?,
        memory_for_retry_bodies: memory_for_retry_bodies?,
        max_connections: max_connections?,
        header_timeout: header_timeout?,
        memory: memory?,
        per_client: per_client?,
    })
}

/// A ceiling that lets nobody in is a mistake.
fn memory(Size(bytes): Size) -> Result<Option<usize>, String> {
    match bytes {
        0 => Ok(None),
        _ => size((1 << 20, "1MiB"), TIB)(Size(bytes))
            .map(Some)
            .map_err(|message| format!("{message}; `0B` turns it off")),
    }
}

/// Both bounds hold, but only the smaller one will ever be met.
fn fits(memory: usize, connections: usize, at: &mut At<'_>) {
    let most = memory / OF_CONNECTION;
    if connections > most {
        let message = format!("is more than `limits.memory` has room for: {most} connections without a request");
        at.warn(&[Step::Key("max_connections".into())], message);
    }
}

fn per_client(file: PerClientSection, at: &mut At<'_>) -> Option<PerClient> {
    let max_connections = at.key("max_connections", file.max_connections, |count| match count {
        0 => Ok(None),
        count => within(0..=1_000_000)(count).map(Some),
    });
    let requests = at.key("requests", file.requests, |PerTime(rate)| Ok(rate));
    Some(PerClient { max_connections: max_connections?, requests: requests? })
}

fn reload(file: ReloadSection, at: &mut At<'_>) -> Option<Reload> {
    let watch = at.key("watch", file.watch, Ok);
    let max_moved = at.key("max_moved", file.max_moved, |share| Ok(share.0));
    Some(Reload { watch: watch?, max_moved: max_moved? })
}

fn shutdown(file: ShutdownSection, at: &mut At<'_>) -> Option<Shutdown> {
    let delay = at.key("delay", file.delay, |span| Ok(span.0));
    let drain_timeout = at.key("drain_timeout", file.drain_timeout, |span| Ok(span.0));
    Some(Shutdown { delay: delay?, drain_timeout: drain_timeout? })
}
