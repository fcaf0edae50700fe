//! The config file: whatever it says, every mistake has its place, and what is valid keeps its promises.

use std::collections::HashSet;
use std::time::Duration;

use ingle::config::{Config, Errors, MaxInFlight};
use ingle::metrics::Metrics;
use ingle::snapshot::Snapshot;

pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Config::parse(text, FILE) {
        Ok(config) => {
            bounds_hold(&config);
            written_it_reads_the_same(&config);
            in_force(config);
        }
        Err(errors) => {
            mistakes_have_places(text, &errors);
            if !text.contains('\r') {
                line_ends_do_not_matter(text, &errors);
            }
        }
    }
}

const FILE: &str = "fuzz.yaml";

/// In the file, in file order, each on a line of its own.
fn mistakes_have_places(text: &str, errors: &Errors) {
    assert!(errors.count() > 0);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // YAML has more kinds of line breaks than Rust, and libyaml may report the end of the file one line further.
    let lines = text.matches(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() + 2;
    let mut last = None;
    for error in errors.iter() {
        let position = error.position.unwrap_or_else(|| panic!("no place: {errors}"));
        assert!((1..=lines).contains(&position.line) && position.column >= 1, "beyond the file: {errors}");
        assert!(position.column <= text.chars().count() + 1, "beyond the file: {errors}");
        assert!(last <= Some(position), "not in file order: {errors}");
        assert!(!error.message.is_empty() && error.path.len() <= text.len() + 100, "{errors}");
        last = Some(position);
    }
    let shown = errors.to_string();
    assert_eq!(shown.lines().count(), errors.count(), "more lines than mistakes: {shown:?}");
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "a terminal would obey: {shown:?}");
    assert!(shown.lines().all(|line| line.starts_with("fuzz.yaml:")), "{shown:?}");
}

/// A file of Windows has the same mistakes at the same places.
fn line_ends_do_not_matter(text: &str, errors: &Errors) {
    let places = |errors: &Errors| errors.iter().map(|error| error.position).collect::<Vec<_>>();
    let other = Config::parse(&text.replace('\n', "\r\n"), FILE);
    let other = other.expect_err("with other line ends there is no mistake");
    assert_eq!(places(errors), places(&other), "{errors}\n{other}");
}

/// The bounds that the documentation of [`Config`] states, checked anew.
fn bounds_hold(config: &Config) {
    let year = Duration::from_secs(365 * 24 * 3600);
    let addresses: HashSet<_> = config.listeners.iter().map(|listener| listener.address).collect();
    let fixed = config.listeners.iter().filter(|listener| listener.address.port() != 0).count();
    let fixed_once = addresses.iter().filter(|address| address.port() != 0).count();
    assert!((1..=64).contains(&config.listeners.len()) && fixed == fixed_once);
    if let Some(admin) = &config.admin {
        assert!(admin.address.port() == 0 || !addresses.contains(&admin.address));
        assert!(admin.keys_file.is_some() || admin.address.ip().to_canonical().is_loopback());
    }
    let affinity = &config.affinity;
    let headers: HashSet<_> = affinity.headers.iter().map(|header| &header.name).collect();
    assert!((1..=16).contains(&affinity.headers.len()) && headers.len() == affinity.headers.len());
    assert!((1..=16384).contains(&affinity.max_length) && affinity.hash_seed.len() <= 1024);
    assert!((1..=1000).contains(&affinity.gateways) && (1..=10_000_000).contains(&affinity.max_sessions));
    assert!((1..=10_000_000).contains(&affinity.max_displaced) && !affinity.idle_ttl.is_zero());
    assert!(affinity.idle_ttl <= year);

    assert_eq!(config.pools.len(), 1);
    let pool = config.pool();
    let names: HashSet<_> = pool.backends.iter().map(|backend| &backend.name).collect();
    assert!((1..=4096).contains(&pool.backends.len()) && names.len() == pool.backends.len());
    for backend in &pool.backends {
        let name = &backend.name;
        assert!((1..=255).contains(&name.len()) && name != "none" && name.bytes().all(|b| b.is_ascii_graphic()));
        assert!(!name.contains(['/', '?', '#', '%']));
        assert!((1..=1000).contains(&backend.weight) && backend.priority <= 1000 && backend.origin.port > 0);
        // What a resolver takes, and what becomes a Host header.
        assert!(backend.origin.authority().parse::<http::uri::Authority>().is_ok(), "{}", backend.origin);
        assert!(!backend.origin.host.is_empty() && backend.origin.host == backend.origin.host.to_ascii_lowercase());
    }
    let (check, retry) = (&pool.health_check, &pool.retry);
    assert!(check.path.starts_with('/') && check.path.parse::<http::uri::PathAndQuery>().is_ok());
    assert!(check.interval >= Duration::from_millis(10) && !check.timeout.is_zero());
    assert!((1..=1000).contains(&check.healthy_threshold) && (1..=1000).contains(&check.unhealthy_threshold));
    assert!((1..=16).contains(&retry.max_attempts) && retry.max_body <= 1 << 30 && (0.0..=1.0).contains(&retry.budget));
    assert!(!pool.timeouts.connect.is_zero() && !pool.timeouts.keep_alive.is_zero());
    assert!(pool.signals.interval.is_none_or(|interval| interval >= Duration::from_millis(100)));
    assert!(pool.slow_start.is_none_or(|slow_start| !slow_start.is_zero() && slow_start <= Duration::from_secs(3600)));
    let overload = &pool.overload;
    assert!(overload.balance_factor.is_none_or(|factor| factor > 1.0 && factor <= 100.0));
    assert!(overload.balance_floor >= 1 && overload.max_waiting >= 1);
    assert!(!matches!(overload.max_in_flight, MaxInFlight::Fixed(0)));
    let limits = &config.limits;
    assert!(limits.max_body >= 1 && (1 << 10..=1 << 20).contains(&limits.max_header_bytes));
    assert!((1..=1_000_000).contains(&limits.max_connections) && !limits.header_timeout.is_zero());
    assert!((1..=1000).contains(&limits.http2_streams));
    assert!(limits.memory.is_none_or(|most| most >= 1 << 20));
    assert!((0.0..=1.0).contains(&config.reload.max_moved));
}

/// What says every key with its value is the same config.
fn written_it_reads_the_same(config: &Config) {
    let text = serde_yaml::to_string(config.written.with_secrets()).unwrap();
    let read = Config::parse(&text, FILE).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    assert_eq!(config.written.changed(&read.written), [""; 0], "{text}");
    // Warnings have places, which are others now.
    let warnings = |config: &Config| config.warnings.iter().map(|warning| warning.path.clone()).collect::<Vec<_>>();
    assert_eq!(warnings(config), warnings(&read));
    let bare = |config: &Config| Config { warnings: Vec::new(), ..config.clone() };
    assert_eq!(bare(config), bare(&read), "{text}");
}

/// What is valid can be put in force.
fn in_force(config: Config) {
    if config.pool().backends.len() > 32 {
        return; // as any other, but slow
    }
    let metrics = Metrics::new().unwrap();
    let (names, pool) = (config.pool().backends.clone(), config.pool().name.clone());
    let snapshot = Snapshot::new(config, &metrics);
    let members: Vec<_> = snapshot.pool.members().iter().map(|member| member.backend.name()).collect();
    assert_eq!(members, names.iter().map(|backend| backend.name.as_str()).collect::<Vec<_>>());
    assert!(metrics.render(&pool, &snapshot.pool, 0).contains("ingle_requests_total"));
}
