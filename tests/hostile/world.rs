//! A gateway with one recording backend, all in this process.

use std::net::SocketAddr;
use std::sync::Arc;

use ingle::config::Config;
use ingle::gateway::Gateway;
use ingle::server::Server;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, sleep};

use crate::backend::Backend;
use crate::client::{self, PATIENCE};
use crate::strict::Request;

/// The gateway; it ends when this drops.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) backend: Backend,
    _stop: oneshot::Sender<()>,
}

impl World {
    /// `header_timeout` as in the config file.
    pub(crate) async fn start(header_timeout: &str) -> World {
        let backend = Backend::start().await;
        let text = CONFIG.replace("BACKEND", &backend.address.to_string()).replace("TIMEOUT", header_timeout);
        let server = Server::bind(Config::parse(&text, "hostile.yaml").unwrap()).unwrap();
        let (address, gateway) = (server.addresses().unwrap()[0], Arc::clone(server.gateway()));
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(async move {
            // An error says that the world has dropped, which is how it ends.
            let stop = async { drop(stopped.await) };
            server.run(stop, std::future::ready(())).await
        });
        let world = World { address, gateway, backend, _stop: stop };
        world.until("the first probes are over", |gateway| gateway.ready()).await;
        world
    }

    /// Waits for a condition; panics if it takes too long.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Gateway) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.gateway) {
            assert!(Instant::now() < deadline, "{what}: not after {PATIENCE:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The gateway still serves, every connection and request has been given back, and nothing but well-formed
    /// requests reached the backend. Returns the summaries of those requests, without this one, and whether others
    /// had begun.
    pub(crate) async fn aftermath(&self) -> Result<(Vec<String>, bool), String> {
        client::control(self.address, CONTROL).await?;
        self.until("everything is given back", |gateway| {
            gateway.connections.get() == 0 && gateway.requests.get() == 0 && gateway.bodies.get() == 0
        })
        .await;
        assert_eq!(self.gateway.snapshot.load().pool.members()[0].backend.in_flight(), 0);
        let log = self.backend.take().await;
        if let Some(broken) = log.broken.first() {
            return Err(format!("the backend got: {broken}"));
        }
        let reached = log.requests.iter().filter(|request| request.target != CONTROL).map(Request::summary).collect();
        Ok((reached, !log.unfinished.is_empty()))
    }

    /// Requests counted with an invalid session.
    pub(crate) fn invalid_sessions(&self) -> u64 {
        self.gateway.snapshot.load().metrics.session_invalid.get()
    }

    /// Requests counted with a valid session.
    pub(crate) fn sessions(&self) -> u64 {
        self.gateway.snapshot.load().metrics.sessions()
    }
}

pub(crate) const CONTROL: &str = "/control";

/// Probes come once: the backend shall see nothing but what clients sent.
const CONFIG: &str = "
listeners: [{ address: '127.0.0.1:0' }]
access_log: off
pools:
  - name: main
    health_check: { type: tcp, interval: 1h }
    backends: [{ name: recorder, url: 'http://BACKEND' }]
limits: { header_timeout: TIMEOUT, max_body: 1MiB }
";
