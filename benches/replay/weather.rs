//! How busy the machine is, and with what.

use std::time::Instant;

use super::roles::Gateway;

/// Readings at one moment.
pub(crate) struct Weather {
    at: Instant,
    harness: f64,
    proxies: f64,
    idle: f64,
}

/// What happened since, in cores: 1 is one core all the time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shares {
    /// The backends and the client: one thread.
    pub(crate) harness: f64,
    /// The proxies of the role.
    pub(crate) proxies: f64,
    /// What was left, of all cores.
    pub(crate) idle: f64,
}

impl Weather {
    pub(crate) fn now(gateways: &[Gateway]) -> Self {
        Self {
            at: Instant::now(),
            harness: own_seconds(),
            proxies: gateways.iter().map(|gateway| gateway.process.cpu_micros() / 1e6).sum(),
            idle: idle_seconds(),
        }
    }

    pub(crate) fn since(&self, gateways: &[Gateway]) -> Shares {
        let (now, wall) = (Self::now(gateways), self.at.elapsed().as_secs_f64());
        Shares {
            harness: (now.harness - self.harness) / wall,
            proxies: (now.proxies - self.proxies) / wall,
            idle: (now.idle - self.idle) / wall,
        }
    }
}

impl Shares {
    /// Whether times to the first token are those of a machine that had no time: the harness's thread at its limit, or
    /// no idle core and requests that were sent too late (in milliseconds, mean).
    pub(crate) fn saturated(&self, late: f64) -> bool {
        self.harness > 0.7 || (self.idle < 0.1 && late > 2.0)
    }
}

/// All work of this process is done by its first thread.
fn own_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|nanos| nanos.parse::<f64>().ok()).map_or(0.0, |nanos| nanos / 1e9)
}

/// Idle time of all cores; hundredths of a second is what Linux counts in.
fn idle_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let all = stat.lines().next().unwrap_or_default();
    all.split_whitespace().skip(4).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
