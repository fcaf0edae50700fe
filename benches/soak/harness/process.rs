//! What the kernel says of a process.

use std::time::Duration;

use rustix::process::Pid;

/// What a process holds at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Holds {
    /// Resident memory, in MB.
    pub(crate) rss: f64,
    /// The most that it ever was.
    pub(crate) peak: f64,
    /// The part of it that is no file: heap and stacks.
    pub(crate) anonymous: f64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

/// `None` once it has ended.
pub(crate) fn holds(pid: Pid) -> Option<Holds> {
    let pid = pid.as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    Some(Holds {
        rss: number("VmRSS")? * KIB_IN_MB,
        peak: number("VmHWM")? * KIB_IN_MB,
        anonymous: number("RssAnon")? * KIB_IN_MB,
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
        threads: number("Threads")? as usize,
    })
}

/// CPU time so far. `schedstat` counts nanoseconds for each thread, and forgets those that have ended.
pub(crate) fn cpu(pid: Pid) -> Option<Duration> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).ok()?;
    let nanos = threads.flatten().filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Some(Duration::from_nanos(nanos.sum()))
}

/// Whether there is such a process, and it runs. One that nobody waits for is not running.
pub(crate) fn alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Connections to this port of 127.0.0.1 that are established, as the kernel sees them.
pub(crate) fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let local = format!("0100007F:{port:04X}");
    let established = |line: &&str| {
        let mut columns = line.split_whitespace().skip(1);
        columns.next().is_some_and(|address| address == local) && columns.nth(1) == Some("01")
    };
    table.lines().filter(established).count()
}

/// The processor, for a table.
pub(crate) fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores of {}", model.map_or("an unknown processor", |(_, name)| name))
}

/// As many descriptors as the system gives.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Who then has too few says so when a connection is opened.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The kernel counts in KiB, the limit of growth is in MB.
const KIB_IN_MB: f64 = 1024.0 / 1e6;
