//! The life of the process: bind, serve, reload, drain.

mod drain;
mod file;
mod inherited;
mod listeners;
mod reload;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

pub use drain::Drained;

use crate::config::Config;
use crate::gateway::{Gateway, Leaving, Order};
use crate::probe::Probes;
use crate::signals::Pollers;
use file::Watched;
use inherited::Inherited;
use listeners::{Listeners, Sockets};

/// A gateway with its listeners bound.
pub struct Server {
    gateway: Arc<Gateway>,
    sockets: Sockets,
    file: Option<Watched>,
}

impl Server {
    /// Binds all listeners of a config. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// The first address that can't be bound, by name.
    pub fn bind(config: Config) -> io::Result<Server> {
        let sockets = Sockets::bind(&config, &mut Inherited::default())?;
        Ok(Server { gateway: Gateway::new(config).map_err(io::Error::other)?, sockets, file: None })
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
        let mut running = Running {
            listeners: Listeners::serve(&gateway, self.sockets)?,
            probes: Probes::start(&gateway),
            pollers: Pollers::start(&gateway),
            gateway: Arc::clone(&gateway),
            file: self.file,
        };
        let sweeper = tokio::spawn(sweep(Arc::clone(&gateway)));
        let why = running.until(stop).await;
        gateway.leave(why);
        let drained = drain::drain(&gateway, &mut running.listeners, why, cut).await;
        running.listeners.stop_admin().await;
        sweeper.abort();
        Ok(drained)
    }
}

/// A gateway that serves.
struct Running {
    gateway: Arc<Gateway>,
    listeners: Listeners,
    probes: Probes,
    pollers: Pollers,
    file: Option<Watched>,
}

impl Running {
    /// Does what it is told, until `stop` resolves.
    async fn until(&mut self, stop: impl Future<Output = ()>) -> Leaving {
        let mut stop = std::pin::pin!(stop);
        let mut orders = self.gateway.orders.take();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let order = async {
                match &mut orders {
                    Some(orders) => orders.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut stop => return Leaving::Stopping,
                Some(order) = order => match order {
                    Order::Reload { max_moved, done } => {
                        // An error says that nobody wants to know any more.
                        let _ = done.send(self.reload(max_moved).await);
                    }
                    Order::Upgrade => {}
                },
                _ = look.tick() => if self.has_new_file().await {
                    self.reload(None).await;
                },
            }
        }
    }
}

/// Ends what is over its time, for as long as the process lives.
async fn sweep(gateway: Arc<Gateway>) {
    let mut tick = interval(SWEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        gateway.sweep();
    }
}

/// How often attempts are looked at for being over their time: the grain of all of `timeouts` but `connect`.
const SWEEP: Duration = Duration::from_millis(100);
/// How often the config file is looked at, with `reload.watch`.
const LOOK: Duration = Duration::from_secs(1);
