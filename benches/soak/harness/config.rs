//! The configs of a soak.

use fastrand::Rng;

use super::backends::Backend;
use super::keys::Keys;

/// The one to begin with: all backends but the last one.
pub(crate) fn first(backends: &[Backend], keys: &Keys) -> String {
    write(keys, "10s", backends.iter().take(backends.len() - 1).map(|backend| (backend, 1)))
}

/// Another one: the first few backends are always there, the others come and go, and weights change.
pub(crate) fn any(backends: &[Backend], keys: &Keys, rng: &mut Rng) -> String {
    // Heads of streams are held until the first token, or pass long before it.
    let hold_head = if rng.bool() { "10s" } else { "50ms" };
    let all: Vec<_> = backends.iter().enumerate().map(|(i, backend)| (i < ALWAYS || rng.bool(), backend)).collect();
    let chosen = all.into_iter().filter(|(there, _)| *there).map(|(_, backend)| (backend, rng.u32(1..4)));
    write(keys, hold_head, chosen)
}

/// Every table is small enough, and everything is forgotten soon enough, to be full long before the warm-up ends.
/// Port 0 in all of them: a listener keeps the socket that it has.
fn write<'a>(keys: &Keys, hold_head: &str, backends: impl Iterator<Item = (&'a Backend, u32)>) -> String {
    let mut yaml = format!("access: {{ keys_file: {:?} }}\n", keys.file);
    yaml += "listeners: [{ address: '127.0.0.1:0' }]\n\
         admin: { address: '127.0.0.1:0' }\n\
         access_log: json\n\
         limits: { per_client: { max_connections: 5000, requests: 100000/s } }\n\
         affinity: { idle_ttl: 20s, max_sessions: 4000, max_displaced: 500 }\n\
         pools:\n\
         - name: main\n  \
           signals: { interval: 1s }\n  \
           drain: { sessions: at_once }\n  \
           health_check: { interval: 500ms, timeout: 500ms }\n";
    yaml += &format!("  retry: {{ hold_head: {hold_head} }}\n  backends:\n");
    for (backend, weight) in backends {
        let Backend { name, server, address, .. } = backend;
        yaml += &format!("  - {{ name: {name}, url: 'http://{address}', server: {server}, weight: {weight} }}\n");
    }
    yaml
}

/// So many of the backends are in every config.
pub(crate) const ALWAYS: usize = 2;
