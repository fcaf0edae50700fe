//! Sockets that listened before this process began.

use std::net::{SocketAddr, TcpListener};

/// Listening sockets from whoever started the process, each with the address that it stands for.
#[derive(Default)]
pub(super) struct Inherited {
    sockets: Vec<(SocketAddr, TcpListener)>,
}

impl Inherited {
    /// The socket for an address, once.
    pub(super) fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.sockets.iter().position(|(of, _)| *of == address)?;
        Some(self.sockets.swap_remove(at).1)
    }
}
