//! From what is written to what is meant: pools and backends.

use super::at::At;
use super::check::{
    backend_name, balance_factor, name, not_zero, or_none, or_none_up_to, origin, path, positive, size, up_to, within,
};
use super::convert_access::{api_key_file, sent_in_the_clear};
use super::convert_tls;
use super::file::{
    BackendSection, DrainSection, HealthCheckSection, HoldSection, OverloadSection, PoolSection, RetrySection,
    SignalsSection, TimeoutsSection,
};
use super::headers::headers;
use super::lenient::Lenient;
use super::node::Step;
use super::overload::MOST_REQUESTS;
use super::units::Span;
use super::{Backend, Drain, HealthCheck, Hold, Origin, Overload, Pool, Retry, Signals, Timeouts};

/// Far more than a pool needs: placement looks at every backend for each request.
const MOST_BACKENDS: usize = 4096;

/// Exactly one.
pub(super) fn pools(file: Lenient<Vec<Lenient<PoolSection>>>, at: &mut At<'_>) -> Option<Vec<Pool>> {
    let pools = at.list("pools", file, 1024, pool)?;
    if pools.len() > 1 {
        at.error(
            &[Step::Key("pools".into()), Step::Index(1)],
            "several pools need `routes`, which are not yet supported: keep one pool".into(),
        );
        return None;
    }
    pools.into_iter().collect()
}

fn pool(file: PoolSection, at: &mut At<'_>) -> Option<Pool> {
    let name = at.key("name", file.name, name);
    let balance = at.key("balance", file.balance, Ok);
    let overload = at.section("overload", file.overload, overload);
    let slow_start = at.key("slow_start", file.slow_start, or_none_up_to((3600, "1h")));
    let signals = at.section("signals", file.signals, signals);
    let drain = at.section("drain", file.drain, drain);
    let fail_open = at.key("fail_open", file.fail_open, Ok);
    let hold = at.section("hold", file.hold, hold);
    let health_check = at.section("health_check", file.health_check, health_check);
    let timeouts = at.section("timeouts", file.timeouts, timeouts);
    let retry = at.section("retry", file.retry, retry);
    let upstream_tls = at.section("upstream_tls", file.upstream_tls, convert_tls::upstream);
    let backends = backends(file.backends, at);
    if let (Some(tls), Some(backends)) = (&upstream_tls, &backends) {
        convert_tls::has_authorities(tls, backends, at);
    }
    if let Some(backends) = &backends {
        sent_in_the_clear(backends, at);
    }
    Some(Pool {
        name: name?,
        balance: balance?,
        overload: overload?,
        slow_start: slow_start?,
        signals: signals?,
        drain: drain?,
        fail_open: fail_open?,
        hold: hold?,
        health_check: health_check?,
        timeouts: timeouts?,
        retry: retry?,
        upstream_tls: upstream_tls?,
        backends: backends?,
    })
}

fn overload(file: OverloadSection, at: &mut At<'_>) -> Option<Overload> {
    let max_in_flight = at.key("max_in_flight", file.max_in_flight, Ok);
    let balance_factor = at.key("balance_factor", file.balance_factor, balance_factor);
    let floor = not_zero(MOST_REQUESTS, "`balance_factor: 0` turns the bound off");
    let balance_floor = at.key("balance_floor", file.balance_floor, floor);
    let queue_wait = at.key("queue_wait", file.queue_wait, or_none_up_to((600, "10m")));
    let waiting = not_zero(MOST_REQUESTS, "`queue_wait: 0s` turns waiting off");
    let max_waiting = at.key("max_waiting", file.max_waiting, waiting);
    Some(Overload {
        max_in_flight: max_in_flight?,
        balance_factor: balance_factor?,
        balance_floor: balance_floor?,
        queue_wait: queue_wait?,
        max_waiting: max_waiting?,
    })
}

fn signals(file: SignalsSection, at: &mut At<'_>) -> Option<Signals> {
    let interval = at.key("interval", file.interval, |span| match span.0.as_millis() {
        1..100 => Err("is shorter than `100ms`; `0s` turns it off".into()),
        _ => or_none(span),
    });
    Some(Signals { interval: interval? })
}

fn drain(file: DrainSection, at: &mut At<'_>) -> Option<Drain> {
    let sessions = at.key("sessions", file.sessions, Ok);
    let deadline = at.key("deadline", file.deadline, or_none);
    Some(Drain { sessions: sessions?, deadline: deadline? })
}

fn hold(file: HoldSection, at: &mut At<'_>) -> Option<Hold> {
    let timeout = at.key("timeout", file.timeout, or_none_up_to((3600, "1h")));
    let most = not_zero(MOST_REQUESTS, "`timeout: 0s` turns waiting off");
    let max_requests = at.key("max_requests", file.max_requests, most);
    Some(Hold { timeout: timeout?, max_requests: max_requests? })
}

fn health_check(file: HealthCheckSection, at: &mut At<'_>) -> Option<HealthCheck> {
    let kind = at.key("type", file.kind, Ok);
    let path = at.key("path", file.path, path);
    let at_least_10ms = |Span(interval)| match interval.as_millis() {
        0..10 => Err("is shorter than `10ms`".into()),
        _ => Ok(interval),
    };
    let interval = at.key("interval", file.interval, at_least_10ms);
    let fast_interval = at.key("fast_interval", file.fast_interval, at_least_10ms);
    let timeout = at.key("timeout", file.timeout, positive);
    let healthy_threshold = at.key("healthy_threshold", file.healthy_threshold, within(1..=1000));
    let unhealthy_threshold = at.key("unhealthy_threshold", file.unhealthy_threshold, within(1..=1000));
    let error_threshold = at.key("error_threshold", file.error_threshold, within(1..=1000));
    Some(HealthCheck {
        kind: kind?,
        path: path?,
        interval: interval?,
        fast_interval: fast_interval?.min(interval?),
        timeout: timeout?,
        healthy_threshold: healthy_threshold?,
        unhealthy_threshold: unhealthy_threshold?,
        error_threshold: error_threshold?,
    })
}

fn timeouts(file: TimeoutsSection, at: &mut At<'_>) -> Option<Timeouts> {
    let connect = at.key("connect", file.connect, positive);
    let first_byte = at.key("first_byte", file.first_byte, or_none);
    let first_token = at.key("first_token", file.first_token, or_none);
    let idle = at.key("idle", file.idle, or_none);
    let total = at.key("total", file.total, or_none);
    let keep_alive = at.key("keep_alive", file.keep_alive, positive);
    Some(Timeouts {
        connect: connect?,
        first_byte: first_byte?,
        first_token: first_token?,
        idle: idle?,
        total: total?,
        keep_alive: keep_alive?,
    })
}

fn retry(file: RetrySection, at: &mut At<'_>) -> Option<Retry> {
    let max_attempts = at.key("max_attempts", file.max_attempts, within(1..=16));
    let max_body = at.key("max_body", file.max_body, size((0, "0B"), (1 << 30, "1GiB")));
    let budget = at.key("budget", file.budget, |share| Ok(share.0));
    let until = at.key("until", file.until, Ok);
    let hold_head = at.key("hold_head", file.hold_head, up_to((3600, "1h")));
    Some(Retry {
        max_attempts: max_attempts?,
        max_body: max_body?,
        budget: budget?,
        until: until?,
        hold_head: hold_head?,
    })
}

/// A backend as far as it could be converted: names are compared whatever else is wrong.
struct Entry {
    name: Option<String>,
    /// The name is in the file, not taken from the url.
    named: bool,
    backend: Option<Backend>,
}

fn backends(file: Lenient<Vec<Lenient<BackendSection>>>, at: &mut At<'_>) -> Option<Vec<Backend>> {
    let entries = at.list("backends", file, MOST_BACKENDS, |file, at| Some(entry(file, at)))?;
    distinct_names(&entries, at);
    entries.into_iter().map(|entry| entry?.backend).collect()
}

fn entry(file: BackendSection, at: &mut At<'_>) -> Entry {
    let written = at.optional("name", file.name, backend_name);
    let named = !matches!(written, Some(None));
    let origin = at.key("url", file.url, origin);
    let weight = at.key("weight", file.weight, |weight| match weight {
        0 => Err("0 is not a weight: to take a backend out of service, write `draining: true` or drain it on the admin listener".into()),
        _ => within(1..=1000)(weight),
    });
    let priority = at.key("priority", file.priority, within(0..=1000));
    let server = at.key("server", file.server, Ok);
    let draining = at.key("draining", file.draining, Ok);
    let api_key_file = api_key_file(file.api_key_file, at);
    let headers = at.section("headers", file.headers, headers);

    let name = match written {
        Some(None) => origin.as_ref().and_then(|origin| default_name(origin, at)),
        written => written.flatten(),
    };
    let backend = || {
        Some(Backend {
            name: name.clone()?,
            origin: origin?,
            weight: weight?,
            priority: priority?,
            server: server?,
            draining: draining?,
            api_key_file: api_key_file?,
            headers: headers?,
        })
    };
    Entry { backend: backend(), name, named }
}

fn default_name(origin: &Origin, at: &mut At<'_>) -> Option<String> {
    // A socket's file without its extension.
    let stem = origin.socket.as_ref().and_then(|path| Some(path.file_stem()?.to_string_lossy().into_owned()));
    match backend_name(stem.unwrap_or_else(|| origin.authority())) {
        Ok(name) => Some(name),
        Err(message) => at.note(format!("needs a `name`: the one from the url {message}")),
    }
}

fn distinct_names(entries: &[Option<Entry>], at: &mut At<'_>) {
    for (index, entry) in entries.iter().enumerate() {
        let Some(Entry { name: Some(name), named, .. }) = entry else { continue };
        let same = |other: &Option<Entry>| other.as_ref().is_some_and(|other| other.name.as_ref() == Some(name));
        let Some(first) = entries[..index].iter().position(same) else { continue };
        let (key, advice) =
            if *named { ("name", "names are identities") } else { ("url", "give one of them a `name`") };
        let path = [Step::Key("backends".into()), Step::Index(index), Step::Key(key.into())];
        at.error(&path, format!("`{name}` is the name of backends[{first}] already: {advice}"));
    }
}
