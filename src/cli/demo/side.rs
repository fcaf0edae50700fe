//! One of the two sides that are compared: three simulated GPUs, a gateway in front of them, and its traffic.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ingle_sim::SimServer;
use ingle_sim::load::LoadRun;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::figures::Figures;
use super::plan::{GPUS, Plan, VICTIM, WANTED_PREFILLS};
use crate::config::Config;
use crate::gateway::Gateway;
use crate::server::Server;

/// GPUs, gateway, traffic. It ends when it drops.
pub(super) struct Side {
    /// The gateway.
    pub(super) gateway: Arc<Gateway>,
    /// Where its status page is, if it has one.
    pub(super) admin: Option<SocketAddr>,
    gpus: Vec<SimServer>,
    url: String,
    load: Option<LoadRun>,
    /// Prompts that the GPU was computing when it was killed.
    stranded: usize,
    server: JoinSet<io::Result<()>>,
}

/// How a side treats sessions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// With affinity, and with a status page at this address.
    Affinity { admin: SocketAddr },
    /// The same gateway, but its session header is one that nobody sends.
    RoundRobin,
}

impl Side {
    /// Starts GPUs and gateway, and waits until the gateway is ready. The text says if the status page is elsewhere.
    pub(super) async fn start(kind: Kind, plan: &Plan) -> io::Result<(Side, Option<String>)> {
        let mut gpus = Vec::new();
        for name in GPUS {
            let gpu = SimServer::start(plan.gpu(name)).await?;
            gpu.set_loading(false);
            gpus.push(gpu);
        }
        let (server, note) = bind(config(kind, &gpus, plan)?)?;
        let address = *server.addresses()?.first().ok_or_else(|| io::Error::other("no listener"))?;
        let (gateway, admin) = (Arc::clone(server.gateway()), server.admin_address());
        let mut running = JoinSet::new();
        running.spawn(Box::pin(async { server.run(std::future::pending(), std::future::pending()).await.map(drop) }));
        let side =
            Side { gateway, admin, gpus, url: format!("http://{address}"), load: None, stranded: 0, server: running };
        side.ready().await?;
        Ok((side, note))
    }

    /// Starts the traffic.
    pub(super) fn load(&mut self, plan: &Plan) -> io::Result<()> {
        self.load = Some(LoadRun::start(plan.traffic(&self.url)).map_err(io::Error::other)?);
        Ok(())
    }

    /// What the clients have seen so far.
    pub(super) fn figures(&self) -> Figures {
        let figures = self.load.as_ref().map(|load| Figures::from(&load.snapshot())).unwrap_or_default();
        Figures { stranded: self.stranded as u64, ..figures }
    }

    /// Kills one GPU as a power cut does: its connections and its cache are lost. It waits for a moment at which the GPU
    /// computes prompts, so that there are streams with a head and without a token: for several of them, then for one.
    pub(super) async fn kill(&mut self, patience: Duration) {
        let (gpu, start) = (&self.gpus[VICTIM], Instant::now());
        self.stranded = loop {
            let (prefilling, waited) = (gpu.stats().prefilling, start.elapsed());
            let wanted = if waited < patience { WANTED_PREFILLS } else { 1 };
            if prefilling >= wanted || waited > 2 * patience {
                break prefilling;
            }
            sleep(Duration::from_millis(1)).await;
        };
        gpu.kill().await;
    }

    /// Starts it again, with an empty cache.
    pub(super) async fn revive(&self) -> io::Result<()> {
        self.gpus[VICTIM].revive().await
    }

    /// Returns when the gateway ends, which it should not.
    pub(super) async fn broken(&mut self) -> io::Error {
        match self.server.join_next().await {
            Some(Ok(Err(error))) => error,
            _ => io::Error::other("the gateway ended"),
        }
    }

    async fn ready(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.gateway.ready() {
            if Instant::now() > deadline {
                return Err(io::Error::other("the gateway did not get ready"));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

/// Binds the gateway; a status page whose port is taken gets any free one.
fn bind(mut config: Config) -> io::Result<(Server, Option<String>)> {
    let error = match Server::bind(config.clone()) {
        Ok(server) => return Ok((server, None)),
        Err(error) => error,
    };
    match &mut config.admin {
        Some(admin) if error.kind() == io::ErrorKind::AddrInUse => {
            let note = format!("({} is taken by another program: the status page has another port)", admin.address);
            admin.address.set_port(0);
            Ok((Server::bind(config)?, Some(note)))
        }
        _ => Err(error),
    }
}

fn config(kind: Kind, gpus: &[SimServer], plan: &Plan) -> io::Result<Config> {
    let mut text = String::from("listeners: [{ address: 127.0.0.1:0 }]\n");
    text += &match kind {
        Kind::Affinity { admin } => format!("admin: {{ address: {admin:?} }}\n"),
        Kind::RoundRobin => "affinity: { headers: [X-Nobody-Sends-This] }\n".to_owned(),
    };
    let (interval, timeout) = (plan.probe_interval().as_millis(), PROBE_TIMEOUT.as_millis());
    text += &format!(
        "pools:\n  - name: demo\n    health_check: {{ interval: {interval}ms, timeout: {timeout}ms }}\n    backends:\n"
    );
    for gpu in gpus {
        text += &format!("      - {{ name: {}, url: \"{}\" }}\n", gpu.name(), gpu.url());
    }
    Config::parse(&text, "the demo's config").map_err(io::Error::other)
}

/// A probe of a simulated GPU takes a millisecond; on a machine that is busy otherwise, more.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// For the gateway's first round of probes.
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_sides_are_the_same_gateway_but_for_the_session_header() {
        let plan = Plan::new(45, 36);
        let gpu = SimServer::start(plan.gpu("gpu0")).await.unwrap();
        let admin = SocketAddr::from(([127, 0, 0, 1], 9180));
        let with = config(Kind::Affinity { admin }, std::slice::from_ref(&gpu), &plan).unwrap();
        let without = config(Kind::RoundRobin, std::slice::from_ref(&gpu), &plan).unwrap();
        assert_eq!(with.admin.as_ref().map(|admin| admin.address), Some(admin));
        assert_eq!(with.affinity.headers[0].written, plan.traffic("http://a").session_header.unwrap());
        assert_ne!(with.affinity.headers, without.affinity.headers);
        assert_eq!(with.pools, without.pools);
    }

    #[tokio::test]
    async fn a_status_page_whose_port_is_taken_gets_another_one() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let plan = Plan::new(5, 3);
        let gpu = SimServer::start(plan.gpu("gpu0")).await.unwrap();
        let admin = taken.local_addr().unwrap();
        let (server, note) = bind(config(Kind::Affinity { admin }, &[gpu], &plan).unwrap()).unwrap();
        assert_ne!(server.admin_address(), Some(admin));
        assert!(note.unwrap().contains(&admin.to_string()));
    }
}
