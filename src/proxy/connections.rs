//! The connections of clients: which are admitted, and what serves them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::prelude::timeout;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::access::id;
use super::client::Connection;
use super::cors;
use super::handshake::{self, Opened};
use super::refusal::Refusal;
use super::{http1, http2};
use crate::access;
use crate::api::{Api, ApiError};
use crate::certificates::Meeting;
use crate::core::clients::ClientId;
use crate::gateway::Gateway;
use crate::gauge::Gauge;
use crate::metrics::Shed;

/// The application behind a traffic listener. Its clones share everything.
#[derive(Clone)]
pub struct Connections {
    gateway: Arc<Gateway>,
    /// The listener's address in the config, which may leave the port to the system.
    listener: SocketAddr,
    /// Connections that are just told that there is no room.
    turned_away: Gauge,
}

impl Connections {
    /// What the applications of all listeners share; [`Connections::on`] makes one of it.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Connections {
        let turned_away = Gauge::default();
        Connections { listener: SocketAddr::from(([0, 0, 0, 0], 0)), gateway, turned_away }
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
        let listener = snapshot.config.listener(self.listener);
        listener.is_some_and(|listener| access::may_come(listener.allow.as_ref(), stream))
    }

    /// Whose connection it is, to `limits.per_client`; nobody's, if a proxy brings it that has many clients.
    fn owner(&self, stream: &Stream) -> Option<ClientId> {
        let peer = access::peer(stream)?;
        let proxies = &self.gateway.snapshot.load().config.access.trusted_proxies;
        (proxies.is_empty() || !proxies.contains(peer)).then(|| id(peer))
    }

    /// Turns a connection away, and tells its client why where that is cheap: over TLS it would cost a handshake.
    async fn refuse(&self, stream: Stream, meeting: &Meeting, shed: Shed) {
        self.gateway.metrics.limits.shed(shed);
        if let Meeting::Plain = meeting
            && let Some(_told) = self.turned_away.take(1, MAX_TURNED_AWAY)
        {
            let has_cors = cors::is_on(self.listener, &self.gateway.snapshot.load());
            turn_away(stream, shed, has_cors).await;
        }
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
        let _open = match self.gateway.connect(self.owner(&stream), matches!(meeting, Meeting::Tls(_))) {
            Ok(open) => open,
            Err(shed) => {
                self.refuse(stream, &meeting, shed).await;
                return None;
            }
        };
        let limits = self.gateway.snapshot.load().config.limits.clone();
        let entry = self.gateway.client_connections.enter(limits.header_timeout, self.gateway.clock.now());
        match handshake::open(stream, meeting, &entry).await? {
            Opened::Http1(stream, unread) => {
                let connection = Arc::new(Connection::new(&stream, self.listener, None));
                http1::serve(Arc::clone(&self.gateway), connection, entry, (stream, unread), shutdown).await;
            }
            Opened::Http2(stream) => {
                drop(entry);
                let _counted = self.gateway.http2.take(1, usize::MAX);
                if !self.gateway.has_memory(&limits) {
                    self.gateway.metrics.limits.shed(Shed::Memory);
                    return None;
                }
                http2::serve(Arc::clone(&self.gateway), self.listener, stream, &limits, shutdown).await;
            }
        }
        None
    }
}

/// Answers why, and closes. What the client has sent is read first: a connection that is closed with bytes unread is reset,
/// and a reset can overtake the answer.
async fn turn_away(mut stream: Stream, shed: Shed, has_cors: bool) {
    let answer = async {
        let mut seen = [0; 4096];
        let read = timeout(GLANCE, stream.read(&mut seen)).await.ok().and_then(Result::ok).unwrap_or(0);
        let origin = has_cors.then(|| cors::origin(&seen[..read])).flatten();
        stream.write_all(&answer_to(shed, origin.as_deref())).await
    };
    let _ = timeout(Duration::from_secs(1), answer).await;
}

fn answer_to(shed: Shed, origin: Option<&str>) -> Vec<u8> {
    let refusal = match shed {
        Shed::Connections => Refusal::TOO_MANY_CONNECTIONS,
        Shed::ClientConnections | Shed::ClientRequests => Refusal::TOO_MANY_OF_CLIENT,
        Shed::Descriptors => Refusal::NO_DESCRIPTORS,
        Shed::Memory => Refusal::NO_MEMORY,
    };
    // No request was read, so the API is not known.
    let body = Api::default().body(&ApiError {
        status: refusal.status.as_u16(),
        code: refusal.code,
        message: refusal.message,
        request_id: "",
    });
    let cors = origin.map_or_else(String::new, |origin| {
        let fields = "Access-Control-Expose-Headers: Retry-After\r\nVary: Origin\r\n";
        format!("Access-Control-Allow-Origin: {origin}\r\n{fields}")
    });
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: application/json\r\nRetry-After: 2\r\n{cors}Content-Length: {}\r\nConnection: close\r\n\r\n",
        refusal.status,
        body.len()
    );
    [head, body].concat().into()
}

/// How long a client that is turned away is read from.
pub(super) const GLANCE: Duration = Duration::from_millis(100);
/// How many are read from at once; further ones are closed without an answer. Each has a descriptor.
const MAX_TURNED_AWAY: usize = 16;
