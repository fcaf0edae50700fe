//! The connection of a client, as the system gives it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// A client's connection. In place of Pingora's stream, whose descriptor is out of reach, so that it can't be reset, and
/// which has buffers.
#[derive(Debug)]
pub struct ClientSocket {
    tcp: TcpStream,
    /// Bytes that were read to see what they are.
    unread: BytesMut,
    digest: Arc<SocketDigest>,
}

impl ClientSocket {
    /// A connection that was accepted from `peer`.
    ///
    /// # Errors
    ///
    /// If the client has left already.
    pub fn new(tcp: TcpStream, peer: SocketAddr) -> io::Result<ClientSocket> {
        tcp.set_nodelay(true)?;
        sockopt::set_tcp_keepidle(&tcp, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(&tcp, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(&tcp, KEEPALIVE_PROBES)?;
        sockopt::set_socket_keepalive(&tcp, true)?;
        let digest = SocketDigest::from_raw_fd(tcp.as_raw_fd());
        let _ = digest.peer_addr.set(Some(peer.into()));
        Ok(ClientSocket { tcp, unread: BytesMut::new(), digest: Arc::new(digest) })
    }

    /// Gives bytes back, to be read again.
    pub(super) fn unread(&mut self, bytes: BytesMut) {
        self.unread = bytes;
    }

    /// From now on closing it resets it: the client sees an error instead of an end.
    pub(super) fn reset_on_close(&self) {
        // An error means that the client has left.
        let _ = self.tcp.set_zero_linger();
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.tcp).poll_read(context, buffer);
        }
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

#[async_trait]
impl Shutdown for ClientSocket {
    async fn shutdown(&mut self) {
        // An error means that the client has left.
        let _ = self.tcp.shutdown().await;
    }
}

impl UniqueID for ClientSocket {
    fn id(&self) -> i32 {
        self.tcp.as_raw_fd()
    }
}

impl Ssl for ClientSocket {}

impl Peek for ClientSocket {}

impl GetTimingDigest for ClientSocket {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for ClientSocket {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for ClientSocket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

/// A client that vanishes without a FIN is noticed after about a minute and a half, and its backend's work ends.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
