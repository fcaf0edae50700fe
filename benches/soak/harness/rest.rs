//! What the gateway holds while nobody wants anything.

use super::gateway::Gateway;
use super::process;

/// At rest, everything that is counted is 0; this is what is not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Rest {
    /// Waits until every count is 0 again, and descriptors are as few as they get.
    ///
    /// # Errors
    /// When a count does not return to 0.
    pub(crate) async fn of(gateway: &Gateway) -> Result<Rest, String> {
        let held = async || {
            let status = gateway.status().await?;
            let mut held: Vec<String> = TOTALS.map(|name| format!("{name}: {}", status[name])).into();
            for backend in status["backends"].as_array().into_iter().flatten() {
                held.extend(
                    ["in_flight", "queued"].map(|name| format!("{name} of {}: {}", backend["name"], backend[name])),
                );
            }
            let metrics = gateway.get("/metrics").await?;
            let gauges = metrics.lines().filter(|line| GAUGES.iter().any(|gauge| line.starts_with(gauge)));
            held.extend(
                gauges.filter_map(|line| line.rsplit_once(' ')).map(|(series, value)| format!("{series}: {value}")),
            );
            held.push(format!("connections of the kernel: {}", process::connections(gateway.address.port())));
            held.retain(|count| !count.ends_with(": 0"));
            Ok::<_, String>(held)
        };
        let empty = gateway.until("counts return to 0", async || Ok(held().await?.is_empty())).await;
        if let Err(why) = empty {
            return Err(format!("{why}: {:?}", held().await?));
        }
        // Connections to backends that nobody uses are closed after `keep_alive`.
        let quiet = tokio::time::Instant::now() + KEEP_ALIVE + SECOND;
        let mut rest = Rest { descriptors: usize::MAX, threads: 0 };
        while tokio::time::Instant::now() < quiet {
            let holds = process::holds(gateway.pid()).ok_or("the gateway is gone")?;
            rest = Rest { descriptors: rest.descriptors.min(holds.descriptors), threads: holds.threads };
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        Ok(rest)
    }
}

/// In `/status`.
const TOTALS: [&str; 3] = ["connections", "requests_in_flight", "held_body_bytes"];
/// In `/metrics`.
const GAUGES: [&str; 4] = [
    "ingle_in_flight_requests{",
    "ingle_queued_requests{",
    "ingle_key_in_flight_requests{",
    "ingle_memory_accounted_bytes{",
];
const SECOND: std::time::Duration = std::time::Duration::from_secs(1);
/// The default of `timeouts.keep_alive`.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(4);
