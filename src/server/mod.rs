//! The life of the process: bind, serve, reload, drain; and how another one takes its place.

mod drain;
mod file;
mod followed;
mod handover;
mod inherited;
mod listeners;
mod reload;
mod systemd;
mod upgrade;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pingora::prelude::sleep;
use tokio::time::{MissedTickBehavior, interval};

pub use drain::Drained;
pub use inherited::Inherited;

use crate::config::Config;
use crate::gateway::{Gateway, Leaving, Order};
use crate::probe::Probes;
use crate::signals::Pollers;
use file::Watched;
use handover::Estate;
use inherited::{Former, Predecessor};
use listeners::{Listeners, Sockets};

/// A gateway with its listeners bound.
pub struct Server {
    gateway: Arc<Gateway>,
    sockets: Sockets,
    predecessor: Option<Predecessor>,
    file: Option<Watched>,
}

impl Server {
    /// Binds all listeners of a config. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// The first address that can't be bound, by name.
    pub fn bind(config: Config) -> io::Result<Server> {
        Server::inherit(config, Inherited::default())
    }

    /// Binds all listeners of a config but those that were inherited. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// The first address that can't be bound, by name.
    pub fn inherit(config: Config, mut inherited: Inherited) -> io::Result<Server> {
        let sockets = Sockets::bind(&config, &mut inherited)?;
        inherited.close_rest();
        let gateway = Gateway::new(config)?;
        inherited.drain(&gateway);
        Ok(Server { gateway, sockets, predecessor: inherited.predecessor, file: None })
    }

    /// The file that the config was read from: without it there is no reloading.
    #[must_use]
    pub fn from_file(self, path: &Path) -> Server {
        Server { file: Some(Watched::new(path)), ..self }
    }

    /// What all parts share.
    #[must_use]
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// The addresses of the traffic listeners, with the ports that the system chose.
    ///
    /// # Errors
    ///
    /// If the system does not know a listener's address.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.traffic_addresses()
    }

    /// The address of the admin listener.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.sockets.admin_address()
    }

    /// Serves until `stop` resolves; then takes nothing new and waits for what runs, until `cut` resolves or the
    /// drain's time is over.
    ///
    /// # Errors
    ///
    /// If a listener can't be handed over.
    pub async fn run(self, stop: impl Future<Output = ()>, cut: impl Future<Output = ()>) -> io::Result<Drained> {
        let gateway = self.gateway;
        let mut stop = std::pin::pin!(stop);
        let probes = Probes::start(&gateway);
        let pollers = Pollers::start(&gateway);
        let sweeper = tokio::spawn(sweep(Arc::clone(&gateway)));
        let followed = tokio::spawn(followed::follow(Arc::clone(&gateway)));
        let former = match self.predecessor {
            Some(predecessor) => tokio::select! {
                former = succeed(&gateway, predecessor) => Some(former?),
                () = &mut stop => return Ok(Drained::All),
            },
            None => None,
        };
        let listeners = Listeners::serve(&gateway, self.sockets)?;
        match former {
            Some(former) => {
                systemd::replacing();
                former.serving().await;
                tracing::info!(pid = std::process::id(), "took over from the old process");
            }
            None => drop(tokio::spawn(tell_ready(Arc::clone(&gateway)))),
        }
        let mut running = Running { listeners, probes, pollers, gateway: Arc::clone(&gateway), file: self.file };
        let why = running.until(stop).await;
        gateway.leave(why);
        if why == Leaving::Stopping {
            systemd::stopping();
        }
        let drained = drain::drain(&gateway, &mut running.listeners, why, cut).await;
        running.listeners.stop_admin().await;
        sweeper.abort();
        followed.abort();
        Ok(drained)
    }
}

/// Waits until this process could serve, and the old one wants it to.
async fn succeed(gateway: &Gateway, predecessor: Predecessor) -> io::Result<Former> {
    drain::until(|| gateway.probed()).await;
    predecessor.ready().await
}

async fn tell_ready(gateway: Arc<Gateway>) {
    drain::until(|| gateway.probed()).await;
    systemd::ready();
}

/// Resolves to the id of the process that serves then, or to why there is none.
type Upgrade = Pin<Box<dyn Future<Output = Result<u32, String>> + Send>>;

/// A gateway that serves.
struct Running {
    gateway: Arc<Gateway>,
    listeners: Listeners,
    probes: Probes,
    pollers: Pollers,
    file: Option<Watched>,
}

impl Running {
    /// Does what it is told, until `stop` resolves or another process serves.
    async fn until(&mut self, mut stop: Pin<&mut impl Future<Output = ()>>) -> Leaving {
        let mut orders = self.gateway.orders.take();
        let mut upgrade: Option<Upgrade> = None;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let order = async {
                match &mut orders {
                    Some(orders) => orders.recv().await,
                    None => pending().await,
                }
            };
            let upgraded = async {
                match &mut upgrade {
                    Some(upgrade) => upgrade.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = &mut stop => return Leaving::Stopping,
                result = upgraded => match result {
                    Ok(pid) => {
                        tracing::info!(pid, "another process serves now");
                        return Leaving::Replaced;
                    }
                    Err(why) => {
                        tracing::error!("not upgraded, this process goes on: {why}");
                        upgrade = None;
                    }
                },
                Some(order) = order => match order {
                    // A file system that hangs does not keep the process from ending.
                    Order::Reload { max_moved, done } => tokio::select! {
                        // An error says that nobody wants to know any more.
                        outcome = self.reload(max_moved) => drop(done.send(outcome)),
                        () = &mut stop => return Leaving::Stopping,
                    },
                    Order::Upgrade if upgrade.is_some() => tracing::warn!("an upgrade is under way already"),
                    Order::Upgrade => upgrade = self.upgrade(),
                },
                _ = look.tick() => tokio::select! {
                    () = self.look_at_file() => {}
                    () = &mut stop => return Leaving::Stopping,
                },
            }
        }
    }

    /// Begins to hand over to another process.
    fn upgrade(&self) -> Option<Upgrade> {
        tracing::info!("starting the program again, to hand over to it");
        let sockets = match self.listeners.duplicates() {
            Ok(sockets) => sockets,
            Err(error) => {
                tracing::error!(%error, "not upgraded, this process goes on");
                return None;
            }
        };
        let snapshot = self.gateway.snapshot.load();
        let pool = snapshot.config.pool();
        let states =
            pool.backends.iter().zip(snapshot.pool.members()).map(|(config, member)| (config, &member.backend));
        let drains = states.filter(|(config, backend)| config.draining != backend.draining());
        let drains = drains.map(|(config, backend)| (config.name.clone(), backend.draining())).collect();
        let limit = pool.health_check.timeout + STARTS;
        Some(Box::pin(upgrade::upgrade(Estate { sockets, drains }, limit)))
    }
}

/// Ends what is over its time, for as long as the process lives.
async fn sweep(gateway: Arc<Gateway>) {
    loop {
        sleep(SWEEP).await;
        gateway.sweep();
    }
}

/// How often attempts are looked at for being over their time: the grain of all of `timeouts` but `connect`.
const SWEEP: Duration = Duration::from_millis(100);
/// How often the config file is looked at, with `reload.watch`.
const LOOK: Duration = Duration::from_secs(1);
/// For a new process to read its config and ask for all addresses, besides its first probes.
const STARTS: Duration = Duration::from_secs(30);
