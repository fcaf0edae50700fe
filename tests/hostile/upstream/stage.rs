//! A gateway in front of a hostile backend, and perhaps of a second one that is not.

use std::net::SocketAddr;
use std::sync::Arc;

use ingle::config::Config;
use ingle::gateway::Gateway;
use ingle::server::Server;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, sleep};

use super::origin::Origin;
use crate::cases::PATIENCE;

/// The gateway; it ends when this drops.
pub(crate) struct Stage {
    pub(crate) address: SocketAddr,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) origin: Origin,
    /// Serves what the hostile backend does not.
    pub(crate) fallback: Option<Origin>,
    _stop: oneshot::Sender<()>,
}

impl Stage {
    /// With the hostile backend alone.
    pub(crate) async fn start() -> Stage {
        Stage::with(TIMEOUTS).await
    }

    /// With a second backend.
    pub(crate) async fn with_fallback() -> Stage {
        Stage::of(Origin::start().await, Some(Origin::start().await), TIMEOUTS).await
    }

    /// With these `timeouts`.
    pub(crate) async fn with(timeouts: &str) -> Stage {
        Stage::of(Origin::start().await, None, timeouts).await
    }

    /// With little time for a client to send its request: `limits.header_timeout` is [`UPLOAD_MILLIS`].
    pub(crate) async fn with_little_upload_time() -> Stage {
        let text = CONFIG.replace("header_timeout: 10s", &format!("header_timeout: {UPLOAD_MILLIS}ms"));
        Stage::run(Origin::start().await, None, TIMEOUTS, &text).await
    }

    /// With the backend at this address.
    pub(crate) async fn before(address: SocketAddr) -> Stage {
        Stage::of(Origin::at(address), None, TIMEOUTS).await
    }

    async fn of(origin: Origin, fallback: Option<Origin>, timeouts: &str) -> Stage {
        Stage::run(origin, fallback, timeouts, CONFIG).await
    }

    async fn run(origin: Origin, fallback: Option<Origin>, timeouts: &str, config: &str) -> Stage {
        let second = fallback.as_ref().map_or(String::new(), |fallback| {
            format!("{{ name: fallback, url: 'http://{}', priority: 1 }}", fallback.address)
        });
        let text = config
            .replace("HOSTILE", &origin.address.to_string())
            .replace("FALLBACK", &second)
            .replace("TIMEOUTS", timeouts);
        let server = Server::bind(Config::parse(&text, "hostile.yaml").unwrap()).unwrap();
        let (address, gateway) = (server.addresses().unwrap()[0], Arc::clone(server.gateway()));
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(async move {
            // An error means that the stage has dropped, which is how it ends.
            let stop = async { drop(stopped.await) };
            server.run(stop, std::future::ready(())).await
        });
        let stage = Stage { address, gateway, origin, fallback, _stop: stop };
        stage.until("the first probes are over", |gateway| gateway.ready()).await.unwrap();
        stage
    }

    /// Waits for a condition.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Gateway) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.gateway) {
            if Instant::now() > deadline {
                return Err(format!("{what}: not after {PATIENCE:?}"));
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Waits until no request is in flight, at the gateway or at a backend.
    pub(crate) async fn until_quiet(&self) -> Result<(), String> {
        self.until("every request has ended", |gateway| {
            let snapshot = gateway.snapshot.load();
            let in_flight: usize = snapshot.pool.members().iter().map(|member| member.backend.in_flight()).sum();
            gateway.requests.get() == 0 && gateway.bodies.get() == 0 && in_flight == 0
        })
        .await
    }

    /// Waits until all client connections were given back as well.
    pub(crate) async fn until_empty(&self) -> Result<(), String> {
        self.until_quiet().await?;
        self.until("every connection has ended", |gateway| gateway.connections.get() == 0).await
    }
}

/// As short as a busy machine allows.
const TIMEOUTS: &str = "first_byte: 1s, idle: 1s";
pub(crate) const UPLOAD_MILLIS: usize = 1000;

/// Probes come once, and no number of failures makes a backend unhealthy: each case meets the same gateway.
const CONFIG: &str = "
listeners: [{ address: '127.0.0.1:0' }]
access_log: off
pools:
  - name: main
    health_check: { type: tcp, interval: 1h, unhealthy_threshold: 1000 }
    timeouts: { keep_alive: 1m, TIMEOUTS }
    retry: { max_body: 64KiB, budget: 100% }
    backends: [{ name: hostile, url: 'http://HOSTILE' }, FALLBACK]
limits: { header_timeout: 10s }
";
