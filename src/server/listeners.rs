//! The sockets that listen, and what serves each of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::ServerApp;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::handover::{Kind, Passed};
use super::inherited::Inherited;
use crate::admin::Admin;
use crate::config::Config;
use crate::gateway::Gateway;
use crate::link::is_lack;
use crate::proxy::{ClientSocket, Connections};

/// A socket that listens and is not served yet.
pub(super) struct Bound {
    /// The address as the config has it, which may leave the port to the system.
    configured: SocketAddr,
    socket: std::net::TcpListener,
}

/// Sockets of both kinds.
pub(super) struct Sockets {
    traffic: Vec<Bound>,
    admin: Vec<Bound>,
}

impl Sockets {
    /// Binds all addresses of a config but those that were inherited.
    ///
    /// # Errors
    ///
    /// The first address that can't be bound, by name.
    pub(super) fn bind(config: &Config, inherited: &mut Inherited) -> io::Result<Sockets> {
        let mut bound = |kind, addresses: Vec<SocketAddr>| {
            let one = |address| match inherited.take(kind, address) {
                Some(socket) => Bound::new(address, socket),
                None => bind(address),
            };
            addresses.into_iter().map(one).collect::<io::Result<Vec<Bound>>>()
        };
        let traffic = bound(Kind::Traffic, traffic_addresses(config))?;
        let admin = bound(Kind::Admin, admin_addresses(config))?;
        Ok(Sockets { traffic, admin })
    }

    pub(super) fn traffic_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.traffic.iter().map(|bound| bound.socket.local_addr()).collect()
    }

    pub(super) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.first()?.socket.local_addr().ok()
    }
}

/// The sockets that are served.
pub(super) struct Listeners {
    gateway: Arc<Gateway>,
    connections: Connections,
    traffic: Vec<Served>,
    admin: Vec<Served>,
}

struct Served {
    bound: Bound,
    stops: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Listeners {
    /// Begins to serve.
    ///
    /// # Errors
    ///
    /// If a listener can't be served.
    pub(super) fn serve(gateway: &Arc<Gateway>, sockets: Sockets) -> io::Result<Listeners> {
        let mut listeners = Listeners {
            gateway: Arc::clone(gateway),
            connections: Connections::new(Arc::clone(gateway)),
            traffic: Vec::new(),
            admin: Vec::new(),
        };
        listeners.add(sockets)?;
        Ok(listeners)
    }

    /// Binds the addresses of a config that nobody listens on yet.
    ///
    /// # Errors
    ///
    /// The first address that can't be bound, by name; then nothing has changed.
    pub(super) fn bind_new(&self, config: &Config) -> io::Result<Sockets> {
        let new = |served: &[Served], wanted: Vec<SocketAddr>| {
            let mut unclaimed: Vec<SocketAddr> = served.iter().map(|served| served.bound.configured).collect();
            let is_new = |address: &SocketAddr| match unclaimed.iter().position(|other| other == address) {
                Some(at) => {
                    unclaimed.swap_remove(at);
                    false
                }
                None => true,
            };
            wanted.into_iter().filter(is_new).map(bind).collect::<io::Result<Vec<Bound>>>()
        };
        Ok(Sockets {
            traffic: new(&self.traffic, traffic_addresses(config))?,
            admin: new(&self.admin, admin_addresses(config))?,
        })
    }

    /// Serves new sockets and stops to listen where the config does not want it any more. Connections that came in there
    /// go on.
    ///
    /// # Errors
    ///
    /// If a listener can't be served.
    pub(super) fn apply(&mut self, config: &Config, new: Sockets) -> io::Result<()> {
        self.add(new)?;
        for (served, mut wanted) in
            [(&mut self.traffic, traffic_addresses(config)), (&mut self.admin, admin_addresses(config))]
        {
            served.retain(|served| match wanted.iter().position(|address| *address == served.bound.configured) {
                Some(at) => {
                    wanted.swap_remove(at);
                    true
                }
                None => {
                    served.stop();
                    false
                }
            });
        }
        Ok(())
    }

    /// The sockets, for another process.
    ///
    /// # Errors
    ///
    /// If there are no descriptors left.
    pub(super) fn duplicates(&self) -> io::Result<Vec<Passed>> {
        let traffic = self.traffic.iter().map(|served| (Kind::Traffic, served));
        let all = traffic.chain(self.admin.iter().map(|served| (Kind::Admin, served)));
        let passed = |(kind, served): (Kind, &Served)| {
            let socket = served.bound.socket.try_clone()?;
            Ok(Passed { kind: Some(kind), address: served.bound.configured, socket })
        };
        all.map(passed).collect()
    }

    /// Stops to accept clients. What runs goes on; over HTTP/2 clients are told to go elsewhere.
    pub(super) async fn stop_traffic(&mut self) {
        stop(std::mem::take(&mut self.traffic)).await;
    }

    /// Stops to accept admins.
    pub(super) async fn stop_admin(&mut self) {
        stop(std::mem::take(&mut self.admin)).await;
    }

    /// Closes HTTP/1.1 connections that have no request, those that come to have none too.
    pub(super) fn close_idle(&self) {
        self.gateway.client_connections.close_idle();
    }

    fn add(&mut self, sockets: Sockets) -> io::Result<()> {
        for bound in sockets.traffic {
            let connections = self.connections.on(bound.configured);
            self.traffic.push(bound.serve(connections)?);
        }
        for bound in sockets.admin {
            self.admin.push(bound.serve(Admin::app(&self.gateway))?);
        }
        Ok(())
    }
}

async fn stop(all: Vec<Served>) {
    all.iter().for_each(Served::stop);
    for served in all {
        let _ = served.task.await;
    }
}

impl Served {
    fn stop(&self) {
        // An error only says that it has already ended.
        let _ = self.stops.send(true);
    }
}

impl Bound {
    fn new(configured: SocketAddr, socket: std::net::TcpListener) -> io::Result<Bound> {
        socket.set_nonblocking(true)?;
        Ok(Bound { configured, socket })
    }

    /// Starts an application. It stops accepting when it is stopped; open connections go on.
    fn serve<A: ServerApp + Send + Sync + 'static>(self, app: A) -> io::Result<Served> {
        let listener = TcpListener::from_std(self.socket.try_clone()?)?;
        let (stops, stopped) = watch::channel(false);
        let task = tokio::spawn(accept(listener, Arc::new(app), stopped));
        Ok(Served { bound: self, stops, task })
    }
}

/// Accepts connections until the listener is stopped. Pingora's own loop gives the task of each connection room for a TLS
/// handshake, 9 KiB, and buffers to each stream.
async fn accept<A: ServerApp + Send + Sync + 'static>(
    listener: TcpListener,
    app: Arc<A>,
    shutdown: watch::Receiver<bool>,
) {
    let mut stopped = shutdown.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopped.changed() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                let (app, shutdown) = (Arc::clone(&app), shutdown.clone());
                tokio::spawn(async move {
                    // An error means that the client has left.
                    if let Ok(stream) = ClientSocket::new(socket, peer) {
                        drop(app.process_new(Box::new(stream), &shutdown).await);
                    }
                });
            }
            Err(error) if is_lack(&error) => {
                tracing::error!(%error, "accepting connections failed, pausing for a second");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => tracing::debug!(%error, "accepting a connection failed"),
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<Bound> {
    let bound = (|| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Bound::new(address, socket.listen(BACKLOG)?.into_std()?)
    })();
    bound.map_err(|error| io::Error::new(error.kind(), format!("can't listen on {address}: {error}")))
}

fn traffic_addresses(config: &Config) -> Vec<SocketAddr> {
    config.listeners.iter().map(|listener| listener.address).collect()
}

fn admin_addresses(config: &Config) -> Vec<SocketAddr> {
    config.admin.iter().map(|admin| admin.address).collect()
}

/// Connections that wait to be accepted; the kernel has a bound of its own, net.core.somaxconn (4096).
const BACKLOG: u32 = 4096;
/// How long accepting pauses when there is no descriptor or memory for a connection.
const PAUSE: Duration = Duration::from_secs(1);
