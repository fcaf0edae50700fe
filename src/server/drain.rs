//! The end: nothing new, and time for what runs.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::listeners::Listeners;
use crate::gateway::{Gateway, Leaving};

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// The last request ended.
    All,
    /// The deadline came first, with this many requests under way.
    Cut(usize),
}

/// Stops listening, and waits until no request is under way and no HTTP/2 connection has anything left to send, until
/// `cut` resolves, or until the drain's time is over.
pub(super) async fn drain(
    gateway: &Gateway,
    listeners: &mut Listeners,
    why: Leaving,
    cut: impl Future<Output = ()>,
) -> Drained {
    let snapshot = gateway.snapshot.load_full();
    let shutdown = &snapshot.config.shutdown;
    let drained = async {
        let lingers = match why {
            Leaving::Stopping => {
                if !shutdown.delay.is_zero() {
                    tracing::info!(delay = ?shutdown.delay, "not ready any more, about to stop accepting");
                    sleep(shutdown.delay).await;
                }
                Duration::ZERO
            }
            Leaving::Replaced => {
                // Whoever serves now has these sockets too.
                listeners.stop_admin().await;
                snapshot.config.limits.header_timeout
            }
        };
        listeners.stop_traffic().await;
        tracing::info!(requests = gateway.requests.get(), timeout = ?shutdown.drain_timeout, "draining");
        let deadline = Instant::now() + shutdown.drain_timeout;
        let over = async {
            linger(gateway, lingers).await;
            listeners.close_idle();
            until(|| gateway.requests.get() == 0).await;
            let _ = timeout(FLUSH, until(|| gateway.http2.get() == 0)).await;
        };
        tokio::select! {
            () = over => Drained::All,
            () = sleep_until(deadline) => Drained::Cut(gateway.requests.get()),
        }
    };
    tokio::select! {
        drained = drained => drained,
        () = cut => Drained::Cut(gateway.requests.get()),
    }
}

/// Gives the clients of kept connections the time to send their next request, whose answer says that the connection
/// closes, or to see the end of its idle time. Who closes a connection that a client is just about to use loses a request
/// that might have gone to another gateway.
async fn linger(gateway: &Gateway, at_most: Duration) {
    if !at_most.is_zero() {
        // What was accepted last is counted by then.
        sleep(SETTLE).await;
        let _ = timeout(at_most, until(|| gateway.connections.get() == 0)).await;
    }
}

pub(super) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(10)).await;
    }
}

/// How long HTTP/2 connections may take to send what is left after their last request. Some clients never close.
const FLUSH: Duration = Duration::from_secs(5);
/// From a connection's being accepted to its being counted, at most.
const SETTLE: Duration = Duration::from_millis(100);
