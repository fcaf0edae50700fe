//! The life of the process: bind, serve, drain.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::listeners::TcpSocketOptions;
use pingora::prelude::sleep;
use pingora::protocols::TcpKeepalive;
use pingora::server::Fds;
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::config::Config;
use crate::gateway::Gateway;
use crate::probe;
use crate::proxy::Connections;
use crate::signals;

/// A gateway with its listeners bound.
pub struct Server {
    gateway: Arc<Gateway>,
    traffic: Vec<TcpListener>,
    admin: Option<TcpListener>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// The last request ended.
    All,
    /// The deadline came first, with this many requests under way.
    Cut(usize),
}

impl Server {
    /// Binds all listeners of a config. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// The first address that can't be bound, by name.
    pub fn bind(config: Config) -> io::Result<Server> {
        let traffic = config.listeners.iter().map(|listener| bind(listener.address)).collect::<io::Result<_>>()?;
        let admin = config.admin.as_ref().map(|admin| bind(admin.address)).transpose()?;
        Ok(Server { gateway: Gateway::new(config).map_err(io::Error::other)?, traffic, admin })
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
        self.traffic.iter().map(TcpListener::local_addr).collect()
    }

    /// The address of the admin listener.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.local_addr().ok()
    }

    /// Serves until `stop` resolves; then takes nothing new and waits for what runs, until `cut` resolves or the
    /// drain's time is over.
    ///
    /// # Errors
    ///
    /// If a listener can't be handed over.
    pub async fn run(self, stop: impl Future<Output = ()>, cut: impl Future<Output = ()>) -> io::Result<Drained> {
        let gateway = self.gateway;
        let (stop_traffic, traffic_stops) = watch::channel(false);
        let (stop_admin, admin_stops) = watch::channel(false);
        let idle = gateway.snapshot.load().config.limits.header_timeout;
        let connections = Connections::new(Arc::clone(&gateway), idle);
        let traffic = serve("traffic", connections, self.traffic, traffic_stops)?;
        let admin = match self.admin {
            Some(listener) => Some(serve("admin", Admin::app(&gateway), vec![listener], admin_stops)?),
            None => None,
        };
        let _probes = probe::spawn(&gateway, &gateway.snapshot.load_full());
        let _pollers = signals::spawn(&gateway.snapshot.load_full());
        let sweeper = tokio::spawn(sweep(Arc::clone(&gateway)));

        stop.await;
        gateway.set_stopping();
        // An error only says that the listener has already ended.
        let _ = stop_traffic.send(true);
        let _ = traffic.await;
        let timeout = gateway.snapshot.load().config.shutdown.drain_timeout;
        tracing::info!(requests = gateway.requests.get(), ?timeout, "draining");
        let drained = drain(&gateway, timeout, cut).await;

        let _ = stop_admin.send(true);
        if let Some(admin) = admin {
            let _ = admin.await;
        }
        sweeper.abort();
        Ok(drained)
    }
}

/// Starts an application on its listeners. It ends when `stops` says so; what runs goes on.
fn serve<A>(name: &str, app: A, listeners: Vec<TcpListener>, stops: watch::Receiver<bool>) -> io::Result<JoinHandle<()>>
where
    A: ServerApp + Send + Sync + 'static,
{
    let mut service = Service::new(name.to_owned(), app);
    // Pingora finds a listener that is already bound in its table of descriptors, under the address it was given.
    let mut bound = Fds::new();
    for listener in listeners {
        let address = listener.local_addr()?.to_string();
        let mut options = TcpSocketOptions::default();
        options.tcp_keepalive = Some(KEEPALIVE);
        service.add_tcp_with_settings(&address, options);
        bound.add(address, listener.into_raw_fd());
    }
    Ok(tokio::spawn(async move { service.start_service(Some(Arc::new(Mutex::new(bound))), stops, 1).await }))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = (|| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    })();
    bound.map_err(|error| io::Error::new(error.kind(), format!("can't listen on {address}: {error}")))
}

/// Waits until no request is under way, and no HTTP/2 connection has anything left to send.
async fn drain(gateway: &Gateway, timeout: Duration, cut: impl Future<Output = ()>) -> Drained {
    let empty = async {
        until(|| gateway.requests.get() == 0).await;
        let _ = tokio::time::timeout(FLUSH, until(|| gateway.http2.get() == 0)).await;
    };
    tokio::select! {
        () = empty => Drained::All,
        () = cut => Drained::Cut(gateway.requests.get()),
        () = tokio::time::sleep_until(Instant::now() + timeout) => Drained::Cut(gateway.requests.get()),
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Ends what is over its time, for as long as the process lives.
async fn sweep(gateway: Arc<Gateway>) {
    loop {
        sleep(SWEEP).await;
        gateway.snapshot.load().sweep(gateway.clock.now());
    }
}

/// How long HTTP/2 connections may take to send what is left after their last request. Some clients never close.
const FLUSH: Duration = Duration::from_secs(5);
/// How often attempts are looked at for being over their time: the grain of all of `timeouts` but `connect`.
const SWEEP: Duration = Duration::from_millis(100);
/// A client that vanishes without a FIN is noticed after about a minute and a half, and its backend's work ends.
const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    count: 3,
    user_timeout: Duration::ZERO,
};
/// Connections that wait to be accepted; the kernel has a bound of its own, net.core.somaxconn (4096).
const BACKLOG: u32 = 4096;
