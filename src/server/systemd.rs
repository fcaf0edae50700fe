//! Tells systemd how the process is, if that started it: sd_notify(3).

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// It serves, or serves again after a reload.
pub(super) fn ready() {
    notify("READY=1");
}

/// It reads its config again.
pub(super) fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={}{:06}", now.tv_sec, now.tv_nsec / 1000));
}

/// It is about to end.
pub(super) fn stopping() {
    notify("STOPPING=1");
}

/// This process is the one to look at from now on. Its predecessor can't say that as well: it may have ended before
/// systemd has read it.
pub(super) fn replacing() {
    notify(&format!("MAINPID={}\nREADY=1", std::process::id()));
}

fn notify(state: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(state.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "systemd can't be told");
    }
}
