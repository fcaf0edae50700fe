//! File descriptors: the idle workload needs more of them than a shell grants.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process's limit, and that of its children, to `wanted` or to as much as the system allows.
/// Returns the limit.
pub(crate) fn raise_descriptors(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // No limit at all is `None`.
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    let hard = limit.maximum.unwrap_or(u64::MAX);
    // Only root can raise the hard limit.
    for next in [wanted, hard.min(wanted)] {
        let raised = Rlimit { current: Some(next), maximum: Some(hard.max(next)) };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            return next;
        }
    }
    current
}

/// How many of `wanted` connections a limit on descriptors leaves room for: half of it, because proxies keep some for
/// connections to backends.
pub(crate) fn connections(wanted: usize, descriptors: u64) -> usize {
    wanted.min(usize::try_from(descriptors / 2).unwrap_or(usize::MAX))
}

/// Descriptors for 10,000 connections, and what HAProxy asks for: two for each.
pub(crate) const WANTED_FDS: u64 = 65_536;
