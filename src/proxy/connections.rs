//! Client connections: their bound, and the time limits that Pingora has not.
//!
//! Pingora limits the time between two bytes of a head, not the head's, and between keep-alive requests not at all.
//! Here one timer per connection looks, each time it fires, since when the connection has been idle. A request makes it
//! busy by its [`Ctx`](super::ctx::Ctx), so a handler may take as long as it likes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::proxy::{HttpProxy, Session, http_proxy};
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::Proxy;
use crate::gateway::Gateway;

/// The application behind a traffic listener. Its clones share everything.
#[derive(Clone)]
pub struct Connections {
    gateway: Arc<Gateway>,
    http1: Arc<Http>,
    http2: Arc<Http>,
}

/// Pingora's HTTP application, told which protocol the connection speaks.
struct Http {
    proxy: Arc<HttpProxy<Proxy>>,
    options: HttpServerOptions,
}

impl Connections {
    /// The application for the gateway's listeners; all of them may share it.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, idle: Duration) -> Connections {
        let conf =
            ServerConf { max_retries: MAX_TRIES, upstream_keepalive_pool_size: IDLE_UPSTREAM, ..ServerConf::default() };
        let proxy = Arc::new(http_proxy(&Arc::new(conf), Proxy::new(Arc::clone(&gateway))));
        let http = |h2c: bool| {
            let mut options = HttpServerOptions::default();
            options.h2c = h2c;
            options.h2_idle_timeout = Some(idle);
            Arc::new(Http { proxy: Arc::clone(&proxy), options })
        };
        Connections { http1: http(false), http2: http(true), gateway }
    }

    /// Closes HTTP/1.1 connections that have no request, those that come to have none too.
    pub async fn close_idle(&self) {
        self.http1.proxy.http_cleanup().await;
    }
}

#[async_trait]
impl ServerApp for Connections {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let limits = self.gateway.snapshot.load().config.limits.clone();
        let Some(_open) = self.gateway.connections.take(1, limits.max_connections) else {
            return turn_away(stream).await;
        };
        let idle = Arc::new(Idle::new(&self.gateway));
        let (stream, http2) = tokio::time::timeout(limits.header_timeout, peek(stream)).await.ok()??;
        if http2 {
            let _open = self.gateway.http2.take(1, usize::MAX);
            return self.http2.process_new(stream, shutdown).await;
        }
        let serve = IDLE.scope(Arc::clone(&idle), self.http1.process_new(stream, shutdown));
        tokio::select! {
            biased;
            done = serve => done,
            () = idle.over(limits.header_timeout) => None,
            () = idle.stuck() => None,
        }
    }

    /// A listener of several may have ended: connections of the others go on.
    async fn cleanup(&self) {}
}

#[async_trait]
impl HttpServerApp for Http {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.proxy.process_new_http(session, shutdown).await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

/// Since when a connection has had no request, and whose it is.
struct Idle {
    gateway: Arc<Gateway>,
    /// The client's address, ready for `X-Forwarded-For`.
    client: OnceLock<HeaderValue>,
    /// Milliseconds of the gateway's clock; [`BUSY`] during a request.
    since: AtomicU64,
    /// Told when the response under way was cut.
    cut: Arc<Notify>,
}

impl Idle {
    fn new(gateway: &Arc<Gateway>) -> Idle {
        Idle {
            since: AtomicU64::new(gateway.clock.now()),
            client: OnceLock::new(),
            cut: Arc::default(),
            gateway: Arc::clone(gateway),
        }
    }

    /// Resolves when the response under way was cut and yet does not end: it waits for a client that reads no more.
    async fn stuck(&self) {
        loop {
            self.cut.notified().await;
            tokio::time::sleep(END_OF_A_CUT).await;
            if self.since.load(Ordering::Relaxed) == BUSY {
                return;
            }
        }
    }

    /// Resolves once the connection has been idle for `limit`.
    async fn over(&self, limit: Duration) {
        let mut wait = limit;
        loop {
            tokio::time::sleep(wait).await;
            let since = self.since.load(Ordering::Relaxed);
            if since == BUSY {
                wait = limit;
                continue;
            }
            let idle = Duration::from_millis(self.gateway.clock.now().saturating_sub(since));
            match limit.checked_sub(idle) {
                Some(rest) if !rest.is_zero() => wait = rest,
                _ => return,
            }
        }
    }
}

/// The client's address as a header's value; written once for a connection.
pub(super) fn client(session: &Session) -> Option<HeaderValue> {
    let address = session.client_addr()?.as_inet()?;
    let written = || HeaderValue::from_str(&address.ip().to_string()).unwrap_or(HeaderValue::from_static("unknown"));
    Some(IDLE.try_with(|idle| idle.client.get_or_init(written).clone()).unwrap_or_else(|_| written()))
}

/// A request on this task's connection; until it drops, the connection is not idle.
pub(super) struct Busy(Option<Arc<Idle>>);

impl Busy {
    /// What is told when the response is cut; nothing over HTTP/2.
    pub(super) fn cut(&self) -> Option<Arc<Notify>> {
        self.0.as_ref().map(|idle| Arc::clone(&idle.cut))
    }

    pub(super) fn begin() -> Busy {
        let idle = IDLE.try_with(Arc::clone).ok();
        if let Some(idle) = &idle {
            idle.since.store(BUSY, Ordering::Relaxed);
        }
        Busy(idle)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(idle) = &self.0 {
            idle.since.store(idle.gateway.clock.now(), Ordering::Relaxed);
        }
    }
}

/// Whether the client speaks HTTP/2 without being asked (RFC 9113, section 3.3). Pingora's own look waits for 24 bytes,
/// which a short HTTP/1.0 request never sends; this one stops at the first byte that differs.
async fn peek(mut stream: Stream) -> Option<(Stream, bool)> {
    let mut seen = [0; PREFACE.len()];
    let mut len = 0;
    while len < seen.len() && seen[..len] == PREFACE[..len] {
        match stream.read(&mut seen[len..]).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => len += n,
        }
    }
    let mut tcp = stream.into_any().downcast::<TcpStream>().ok()?;
    tcp.rewind(&seen[..len]);
    Some((tcp, seen == *PREFACE))
}

/// Too many connections: says so, and closes. What the client has sent is read first: a connection that is closed with
/// bytes unread is reset, and a reset may overtake the answer.
async fn turn_away(mut stream: Stream) -> Option<Stream> {
    let answer = async {
        let _ = tokio::time::timeout(GLANCE, stream.read(&mut [0; 4096])).await;
        stream.write_all(TOO_MANY).await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), answer).await;
    None
}

tokio::task_local! {
    static IDLE: Arc<Idle>;
}

/// How long a client that is turned away is listened to.
const GLANCE: Duration = Duration::from_millis(100);
/// A request that was cut ends at once, or after its client was listened to for a second.
const END_OF_A_CUT: Duration = Duration::from_secs(2);
const BUSY: u64 = u64::MAX;
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Of one request: every attempt may begin with a connection that turns out to be stale.
const MAX_TRIES: usize = 2 * crate::core::pool::MAX_ATTEMPTS;
/// Idle connections to backends that are kept, for each of Pingora's threads.
const IDLE_UPSTREAM: usize = 1024;
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 2\r\n\
Content-Length: 124\r\nConnection: close\r\n\r\n\
{\"error\":{\"message\":\"The gateway has too many connections; try again.\",\"type\":\"server_error\",\"code\":\"too_many_connections\"}}";
