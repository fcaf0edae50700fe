//! Connections to one backend that wait for a request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Waker};

use parking_lot::Mutex;
use pingora::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use crate::core::Millis;
use crate::gauge::Share;

/// Idle connections to one backend, the longest idle one first.
///
/// The one that was used last is used first, for servers close idle connections without notice (llama-server and uvicorn
/// after 5 seconds). A sweep closes those that exceed the limit; none of them has a task or a timer.
#[derive(Default)]
pub struct IdleConnections(Mutex<VecDeque<Idle>>);

struct Idle {
    since: Millis,
    origin: ConnectionOrigin,
    stream: Stream,
    _share: Share,
}

/// What a connection was made for. It serves only requests for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionOrigin {
    /// The address that it is connected to.
    pub address: SocketAddr,
    /// Which TLS settings it was made with; 0 without TLS.
    pub tls_generation: u64,
}

impl IdleConnections {
    /// Takes a connection that was used less than `keep_alive` ago. Connections that the backend closed, on which it sent
    /// something, or of another origin are closed.
    pub fn take(&self, origin: ConnectionOrigin, keep_alive: Millis, now: Millis) -> Option<Stream> {
        loop {
            let Idle { since, origin: made_for, mut stream, _share } = self.0.lock().pop_back()?;
            if made_for == origin && now.saturating_sub(since) < keep_alive && is_quiet(&mut stream) {
                return Some(stream);
            }
        }
    }

    /// Keeps a connection whose response is complete. `share` counts it for as long as it is idle.
    pub fn put(&self, stream: Stream, origin: ConnectionOrigin, share: Share, now: Millis) {
        self.0.lock().push_back(Idle { since: now, origin, stream, _share: share });
    }

    /// Closes those that have been idle for `keep_alive`, that the backend closed, or on which it sent something.
    pub fn expire(&self, keep_alive: Millis, now: Millis) {
        let mut closed = Vec::new();
        let mut idle = self.0.lock();
        let mut kept = VecDeque::with_capacity(idle.len());
        for mut one in idle.drain(..) {
            let is_kept = now.saturating_sub(one.since) < keep_alive && is_quiet(&mut one.stream);
            if is_kept { kept.push_back(one) } else { closed.push(one) }
        }
        *idle = kept;
        drop(idle);
        // Closed without the lock.
        drop(closed);
    }
}

/// Whether the backend has neither closed the connection nor sent anything. Usually takes no system call: tokio knows
/// of readiness from its last poll.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0];
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pingora::protocols::l4::stream::Stream as TcpStream;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream as Socket};

    use super::*;
    use crate::gauge::Gauge;

    struct Backend {
        idle: IdleConnections,
        gauge: Gauge,
        listener: TcpListener,
        origin: ConnectionOrigin,
    }

    impl Backend {
        async fn new() -> Backend {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let origin = ConnectionOrigin { address: listener.local_addr().unwrap(), tls_generation: 0 };
            Backend { idle: IdleConnections::default(), gauge: Gauge::default(), listener, origin }
        }

        /// A connection that is idle since `now`, and the backend's end of it.
        async fn idle_since(&self, now: Millis) -> Socket {
            let stream = TcpStream::from(Socket::connect(self.origin.address).await.unwrap());
            let share = self.gauge.take(1, usize::MAX).unwrap();
            self.idle.put(Box::new(stream), self.origin, share, now);
            self.listener.accept().await.unwrap().0
        }
    }

    #[tokio::test]
    async fn last_used_connection_is_taken_first() {
        let backend = Backend::new().await;
        let (_first, second) = (backend.idle_since(100).await, backend.idle_since(200).await);
        let taken = backend.idle.take(backend.origin, 1000, 300).unwrap();
        let digest = taken.get_socket_digest();
        drop((second, digest));
        assert_eq!(backend.gauge.get(), 1);
    }

    #[tokio::test]
    async fn expired_and_foreign_connections_are_closed() {
        let backend = Backend::new().await;
        let _ends = (backend.idle_since(100).await, backend.idle_since(200).await, backend.idle_since(300).await);
        backend.idle.expire(100, 200);
        assert_eq!(backend.gauge.get(), 2);
        let other = ConnectionOrigin { tls_generation: 1, ..backend.origin };
        assert!(backend.idle.take(other, 1000, 300).is_none());
        assert_eq!(backend.gauge.get(), 0);
        let _end = backend.idle_since(100).await;
        assert!(backend.idle.take(backend.origin, 100, 200).is_none(), "it is as old as the limit");
    }

    #[tokio::test]
    async fn connections_that_the_backend_used_or_closed_are_not_taken() {
        let backend = Backend::new().await;
        let mut end = backend.idle_since(100).await;
        end.write_all(b"unasked").await.unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while backend.idle.0.lock().front_mut().is_some_and(|idle| is_quiet(&mut idle.stream)) {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
        assert!(backend.idle.take(backend.origin, 1000, 100).is_none());
        assert_eq!(backend.gauge.get(), 0);
    }
}
