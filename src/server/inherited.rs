//! Sockets that listened before this process began: from the process whose place it takes, or from systemd.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::io::{FdFlags, fcntl_setfd};
use tokio::io::AsyncWriteExt;

use super::handover::{self, Estate, GO, Kind, Passed, READY, SERVING, VARIABLE};
use crate::gateway::Gateway;

/// What a process has from whoever started it.
#[derive(Default)]
pub struct Inherited {
    estate: Estate,
    pub(super) predecessor: Option<Predecessor>,
}

/// The process that serves as long as this one does not.
pub(super) struct Predecessor(UnixStream);

/// A [`Predecessor`] that said that this process shall serve.
pub(super) struct Former(Option<tokio::net::UnixStream>);

impl Inherited {
    /// Takes what the environment speaks of. Once, and before there are other threads.
    ///
    /// # Errors
    ///
    /// If what it speaks of is not there.
    pub fn from_environment() -> io::Result<Inherited> {
        let inherited = if std::env::var_os(VARIABLE).is_some() { from_predecessor() } else { from_systemd() };
        inherited.map_err(|error| io::Error::new(error.kind(), format!("can't take over sockets: {error}")))
    }

    /// The socket for an address, once.
    pub(super) fn take(&mut self, kind: Kind, address: SocketAddr) -> Option<TcpListener> {
        let fits = |passed: &Passed| passed.address == address && passed.kind.is_none_or(|of| of == kind);
        let at = self.estate.sockets.iter().position(fits)?;
        Some(self.estate.sockets.swap_remove(at).socket)
    }

    /// Drains and undrains what was at the predecessor's.
    pub(super) fn drain(&self, gateway: &Gateway) {
        let snapshot = gateway.snapshot.load();
        for (name, draining) in &self.estate.drains {
            if let Some(member) = snapshot.pool.position(name) {
                snapshot.pool.members()[member].backend.set_draining(*draining, gateway.clock.now());
            }
        }
    }

    /// Closes what nobody took.
    pub(super) fn close_rest(&mut self) {
        for Passed { address, .. } in self.estate.sockets.drain(..) {
            tracing::warn!(%address, "an inherited socket that the config does not have is closed");
        }
    }
}

fn from_predecessor() -> io::Result<Inherited> {
    let channel = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    channel.set_read_timeout(Some(PATIENCE))?;
    let estate = handover::receive(&channel)?;
    // So that nothing but the channel itself keeps it open.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(Inherited { estate, predecessor: Some(Predecessor(channel)) })
}

fn from_systemd() -> io::Result<Inherited> {
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..given.len() {
        if let Some(socket) = given.take_tcp_listener(index)? {
            // A process that takes the place of this one gets it in another way.
            fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
            sockets.push(Passed { kind: None, address: socket.local_addr()?, socket });
        }
    }
    Ok(Inherited { estate: Estate { sockets, ..Estate::default() }, predecessor: None })
}

impl Predecessor {
    /// Says that this process could serve, and waits until it shall. If the predecessor ends meanwhile it shall, too:
    /// nobody else is left.
    ///
    /// # Errors
    ///
    /// If the predecessor says anything else.
    pub(super) async fn ready(self) -> io::Result<Former> {
        self.0.set_nonblocking(true)?;
        let mut channel = tokio::net::UnixStream::from_std(self.0)?;
        if say(&mut channel, READY).await.is_err() {
            return Ok(Former(None));
        }
        match handover::word(&mut channel).await {
            Ok(Some(word)) if word == GO => Ok(Former(Some(channel))),
            Ok(Some(word)) => Err(io::Error::other(format!("the old process said {word:?}"))),
            Ok(None) | Err(_) => Ok(Former(None)),
        }
    }
}

impl Former {
    /// Says that this process serves.
    pub(super) async fn serving(self) {
        if let Some(mut channel) = self.0 {
            // An error says that the predecessor is gone, and does not need to know any more.
            let _ = say(&mut channel, SERVING).await;
        }
    }
}

pub(super) async fn say(channel: &mut tokio::net::UnixStream, word: &str) -> io::Result<()> {
    channel.write_all(format!("{word}\n").as_bytes()).await
}

/// For the sockets to come; they have been sent by then.
const PATIENCE: Duration = Duration::from_secs(10);
