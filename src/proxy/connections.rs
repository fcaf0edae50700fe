//! Client connections: their bound, and the time limits that Pingora has not.
//!
//! Pingora limits the time between two bytes of a head, not the head's, and between keep-alive requests not at all. So
//! an HTTP/1.1 connection has two tasks here. One serves it; every chunk of every stream wakes it, so there is nothing
//! in it but Pingora. The other one watches: its timer looks, each time it fires, since when the connection has been
//! idle, and ends the first one if that is too long. A request makes the connection busy by its
//! [`Ctx`](super::ctx::Ctx), so a handler may take as long as it likes.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::prelude::{sleep, timeout};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{HttpProxy, Session, http_proxy};
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;
use tokio::sync::Notify;

use super::{Proxy, handshake, http2, limits};
use crate::access;
use crate::certificates::{Meeting, NO_AUTHORITIES};
use crate::core::clients::ClientId;
use crate::gateway::{Gateway, Open};
use crate::gauge::Gauge;
use crate::metrics::Shed;

/// The application behind a traffic listener. Its clones share everything.
#[derive(Clone)]
pub struct Connections {
    gateway: Arc<Gateway>,
    /// The listener's address in the config, which may leave the port to the system.
    listener: SocketAddr,
    proxy: Arc<HttpProxy<Proxy>>,
    /// Connections that are just told that there is no room.
    turned_away: Gauge,
}

impl Connections {
    /// What the applications of all listeners share; [`Connections::on`] makes one of it.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Connections {
        let conf = ServerConf {
            max_retries: MAX_TRIES,
            upstream_keepalive_pool_size: idle_upstream(&gateway),
            ca_file: Some(NO_AUTHORITIES.to_owned()),
            ..ServerConf::default()
        };
        let proxy = http_proxy(&Arc::new(conf), Proxy::new(Arc::clone(&gateway)));
        let turned_away = Gauge::default();
        Connections { listener: SocketAddr::from(([0, 0, 0, 0], 0)), proxy: Arc::new(proxy), gateway, turned_away }
    }

    /// The application of the listener with this address in the config.
    #[must_use]
    pub fn on(&self, listener: SocketAddr) -> Connections {
        Connections { listener, ..self.clone() }
    }

    /// Whether who connected may come to this listener; who may not is told nothing. What the last connection of a
    /// listener that is gone would have been allowed, nobody knows any more.
    fn allows(&self, stream: &Stream) -> bool {
        let snapshot = self.gateway.snapshot.load();
        let listener = snapshot.config.listeners.iter().find(|listener| listener.address == self.listener);
        listener.is_some_and(|listener| access::may_come(listener.allow.as_ref(), stream))
    }

    /// Whose connection it is, to `limits.per_client`; nobody's, if a proxy brings it that has many clients.
    fn owner(&self, stream: &Stream) -> Option<ClientId> {
        let peer = access::peer(stream)?;
        let proxies = &self.gateway.snapshot.load().config.access.trusted_proxies;
        (proxies.is_empty() || !proxies.contains(peer)).then(|| limits::id(peer))
    }

    /// Turns a connection away, and tells its client why where that is cheap: over TLS it would cost a handshake.
    async fn refuse(&self, stream: Stream, meeting: &Meeting, shed: Shed) {
        self.gateway.metrics.limits.shed(shed);
        if let Meeting::Plain = meeting
            && let Some(_told) = self.turned_away.take(1, limits::MOST_TURNED_AWAY)
        {
            limits::turn_away(stream, shed).await;
        }
    }

    /// Closes HTTP/1.1 connections that have no request, those that come to have none too.
    pub async fn close_idle(&self) {
        self.proxy.http_cleanup().await;
    }
}

#[async_trait]
impl ServerApp for Connections {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        if !self.allows(&stream) {
            self.gateway.metrics.limits.address.inc();
            tracing::debug!(listener = %self.listener, client = ?access::peer(&stream), "closed: its address may not come here");
            return None;
        }
        let meeting = self.gateway.certificates.meeting(self.listener);
        let open = match self.gateway.connect(self.owner(&stream), matches!(meeting, Meeting::Tls(_))) {
            Ok(open) => open,
            Err(shed) => {
                self.refuse(stream, &meeting, shed).await;
                return None;
            }
        };
        let limits = self.gateway.snapshot.load().config.limits.clone();
        let connection = Arc::new(Connection::new(&self.gateway, open));
        let begun = handshake::begin(stream, meeting);
        let (stream, http2) = timeout(limits.header_timeout, begun).await.ok()??;
        if http2 {
            let _counted = self.gateway.http2.take(1, usize::MAX);
            if !self.gateway.has_memory(&limits) {
                self.gateway.metrics.limits.shed(Shed::Memory);
                return None;
            }
            http2::serve(Arc::clone(&self.proxy), stream, &limits, shutdown).await;
            return None;
        }
        let mut serving =
            tokio::spawn(serve(Arc::clone(&connection), Arc::clone(&self.proxy), stream, shutdown.clone()));
        tokio::select! {
            _ = &mut serving => {}
            () = connection.idle(limits.header_timeout) => {}
            () = connection.stuck() => {}
        }
        serving.abort();
        None
    }

    /// A listener of several may have ended: connections of the others go on.
    async fn cleanup(&self) {}
}

/// Serves the requests of an HTTP/1.1 connection, one after another, as Pingora's own loop does; but each is told whose
/// it is, with what Pingora has for that.
async fn serve(connection: Arc<Connection>, proxy: Arc<HttpProxy<Proxy>>, stream: Stream, shutdown: ShutdownWatch) {
    let mut session = ServerSession::new_http1(stream);
    session.set_keepalive((!*shutdown.borrow()).then_some(FIRST_HEAD));
    loop {
        session.set_connection_user_context(Some(Box::new(Arc::clone(&connection))));
        let Some(reused) = proxy.process_new_http(session, &shutdown).await else { return };
        let (stream, settings) = reused.consume();
        session = ServerSession::new_http1(stream);
        if let Some(settings) = settings {
            settings.apply_to_session(&mut session);
        }
    }
}

/// What requests of one HTTP/1.1 connection have in common.
struct Connection {
    gateway: Arc<Gateway>,
    /// The client's address, ready for `X-Forwarded-For`.
    client: OnceLock<HeaderValue>,
    /// Since when it has had no request: milliseconds of the gateway's clock; [`BUSY`] during a request.
    idle_since: AtomicU64,
    /// Told when the response under way was cut.
    cut: Arc<Notify>,
    _open: Open,
}

impl Connection {
    fn new(gateway: &Arc<Gateway>, open: Open) -> Connection {
        Connection {
            idle_since: AtomicU64::new(gateway.clock.now()),
            client: OnceLock::new(),
            cut: Arc::default(),
            gateway: Arc::clone(gateway),
            _open: open,
        }
    }

    /// Resolves when the response under way was cut and yet does not end: it waits for a client that reads no more.
    async fn stuck(&self) {
        loop {
            self.cut.notified().await;
            sleep(END_OF_A_CUT).await;
            if self.idle_since.load(Ordering::Relaxed) == BUSY {
                return;
            }
        }
    }

    /// Resolves once the connection has been idle for `limit`.
    async fn idle(&self, limit: Duration) {
        loop {
            let idle = match self.idle_since.load(Ordering::Relaxed) {
                BUSY => Duration::ZERO,
                since => Duration::from_millis(self.gateway.clock.now().saturating_sub(since)),
            };
            match limit.checked_sub(idle) {
                Some(rest) if !rest.is_zero() => sleep(rest).await,
                _ => return,
            }
        }
    }
}

/// The client's address as a header's value; over HTTP/1.1 written once for a connection.
pub(super) fn client(session: &Session, busy: &Busy) -> Option<HeaderValue> {
    let written = || {
        let address = session.client_addr()?.as_inet()?;
        Some(HeaderValue::from_str(&address.ip().to_string()).unwrap_or(HeaderValue::from_static("unknown")))
    };
    let Some(connection) = &busy.0 else { return written() };
    if connection.client.get().is_none() {
        // Another one can't have been faster: a connection has one request at a time.
        let _ = connection.client.set(written()?);
    }
    connection.client.get().cloned()
}

/// A request on an HTTP/1.1 connection; until it drops, the connection is not idle. Of HTTP/2, Pingora takes care.
#[derive(Default)]
pub(super) struct Busy(Option<Arc<Connection>>);

impl Busy {
    /// Begins with what [`serve`] tells each request.
    pub(super) fn begin(told: Box<dyn Any + Send + Sync>) -> Busy {
        let connection = told.downcast::<Arc<Connection>>().ok().map(|connection| *connection);
        if let Some(connection) = &connection {
            connection.idle_since.store(BUSY, Ordering::Relaxed);
        }
        Busy(connection)
    }

    /// What is told when the response is cut; nothing over HTTP/2.
    pub(super) fn cut(&self) -> Option<Arc<Notify>> {
        self.0.as_ref().map(|connection| Arc::clone(&connection.cut))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.idle_since.store(connection.gateway.clock.now(), Ordering::Relaxed);
        }
    }
}

/// Idle connections to backends that are kept, for each of Pingora's threads: few where there are few descriptors.
fn idle_upstream(gateway: &Gateway) -> usize {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    (gateway.snapshot.load().descriptors / IDLE_PART / threads).clamp(1, IDLE_UPSTREAM)
}

/// A request that was cut ends at once, or after its client was listened to for a second.
const END_OF_A_CUT: Duration = Duration::from_secs(2);
/// Seconds that Pingora gives the first head of a connection; ours are fewer.
const FIRST_HEAD: u64 = 60;
const BUSY: u64 = u64::MAX;
/// Of one request: every attempt may begin with a connection that turns out to be stale.
const MAX_TRIES: usize = 2 * crate::core::pool::MAX_ATTEMPTS;
/// One descriptor in so many; `snapshot/settings.rs` leaves room for them.
const IDLE_PART: usize = 16;
/// Enough for a fleet of backends, on each thread.
const IDLE_UPSTREAM: usize = 1024;
