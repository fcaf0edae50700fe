//! An HTTP/2 connection: its bounds.
//!
//! Frames that break the protocol, and floods of those that are allowed (continuations, resets before a stream was
//! looked at), end the connection: the `h2` crate sees to that. What it can't see is a client that opens streams and
//! gives each up a moment later (CVE-2023-44487, slowly): each would be work for a backend. So that is counted here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use tokio::sync::Notify;

use super::Proxy;
use crate::config::Limits;

/// Serves an HTTP/2 connection until its end, with the limits that were in force at its beginning.
pub(super) async fn serve(proxy: Arc<HttpProxy<Proxy>>, stream: Stream, limits: &Limits, shutdown: &ShutdownWatch) {
    let mut server = HttpServerOptions::default();
    server.h2c = true;
    server.h2_idle_timeout = Some(limits.header_timeout);
    let connection = Arc::new(Http2 { proxy, server, bounds: bounds(limits), streams: Arc::default() });
    let streams = Arc::clone(&connection.streams);
    tokio::select! {
        _ = connection.process_new(stream, shutdown) => {}
        () = streams.abused() => tracing::info!("connection closed: its client gives up nearly every stream it opens"),
    }
}

/// To Pingora, each connection is an application of its own.
struct Http2 {
    proxy: Arc<HttpProxy<Proxy>>,
    server: HttpServerOptions,
    bounds: H2Options,
    streams: Arc<Streams>,
}

#[async_trait]
impl HttpServerApp for Http2 {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let served = self.proxy.process_new_http(session, shutdown);
        STREAMS.scope(Arc::clone(&self.streams), served).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.bounds.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.server)
    }
}

fn bounds(limits: &Limits) -> H2Options {
    let mut bounds = default_h2_options();
    // HTTP/2 counts 32 bytes for each field besides name and value (RFC 9113, section 6.5.2), `limits` counts 4.
    let list = limits.max_header_bytes.saturating_add(MAX_FIELDS * (32 - 4));
    bounds.max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX));
    bounds.max_concurrent_streams(limits.http2_streams);
    bounds.max_send_buffer_size(MAX_UNSENT);
    // Streams that the client reset before Pingora looked at them; more end the connection.
    bounds.max_pending_accept_reset_streams(20);
    // Streams that we reset for an error of theirs; more end the connection.
    bounds.max_local_error_reset_streams(Some(MOST_ERRORS));
    bounds
}

/// How the streams of one connection ended.
#[derive(Default)]
pub(super) struct Streams {
    all: AtomicU32,
    given_up: AtomicU32,
    abused: Notify,
}

impl Streams {
    /// Those of the connection whose request this task serves.
    pub(super) fn of_this() -> Option<Arc<Streams>> {
        STREAMS.try_with(Arc::clone).ok()
    }

    /// One has ended, perhaps because its client gave it up, after this time.
    pub(super) fn ended(&self, left: bool, after: Duration) {
        let all = self.all.fetch_add(1, Ordering::Relaxed) + 1;
        if left && after < HARDLY_A_WAIT {
            let given_up = self.given_up.fetch_add(1, Ordering::Relaxed) + 1;
            if given_up >= FORGIVEN && given_up > all / 2 {
                self.abused.notify_one();
            }
        }
    }

    async fn abused(&self) {
        self.abused.notified().await;
    }
}

tokio::task_local! {
    static STREAMS: Arc<Streams>;
}

/// Streams of one connection that we reset for an error of its client.
const MOST_ERRORS: usize = 100;
/// Bytes of a stream's response that wait for a client that does not read; h2's own default is 400 KiB.
const MAX_UNSENT: usize = 64 << 10;
/// As many fields as a head may have over HTTP/1.1 (Pingora's bound).
const MAX_FIELDS: usize = 256;
/// Who gives up so soon has hardly waited for an answer.
const HARDLY_A_WAIT: Duration = Duration::from_secs(1);
/// So many streams may be given up so soon, whatever the others do: a harness that is stopped drops all it has.
const FORGIVEN: u32 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_abused(streams: &Streams) -> bool {
        tokio::time::timeout(Duration::ZERO, streams.abused()).await.is_ok()
    }

    #[tokio::test]
    async fn giving_up_is_abuse_if_it_is_most_of_what_a_client_does() {
        let streams = Streams::default();
        for _ in 1..FORGIVEN {
            streams.ended(true, Duration::ZERO);
        }
        assert!(!is_abused(&streams).await, "forgiven");
        for _ in 0..1000 {
            streams.ended(false, Duration::ZERO);
            streams.ended(true, HARDLY_A_WAIT);
        }
        streams.ended(true, Duration::ZERO);
        assert!(!is_abused(&streams).await, "few among many, and others had waited");
        for _ in 0..2500 {
            streams.ended(true, Duration::ZERO);
        }
        assert!(is_abused(&streams).await);
    }
}
