//! Notifies systemd of the state of the process, if systemd started it: sd_notify(3).

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// It serves, or serves again after a reload.
pub(super) fn ready() {
    notify("READY=1".to_owned());
}

/// It reads its config again.
pub(super) fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    notify(format!("RELOADING=1\nMONOTONIC_USEC={}{:06}", now.tv_sec, now.tv_nsec / 1000));
}

/// It is about to end.
pub(super) fn stopping() {
    notify("STOPPING=1".to_owned());
}

/// This process is the one to look at from now on. Its predecessor can't say that as well: it may have ended before
/// systemd has read it.
pub(super) fn replacing() {
    notify(format!("MAINPID={}\nREADY=1", std::process::id()));
}

/// Sends a state. If the socket is full, a thread does so once there is room, in order: a socket that systemd does not read
/// must not hold anything up, and a `READY=1` must not be lost because it is full for a moment.
fn notify(state: String) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    if WAITING.load(Ordering::Acquire) == 0 {
        match send(&name, &state, None) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return tracing::warn!(%error, "systemd can't be notified"),
            Ok(()) => return,
        }
    }
    static SENDER: OnceLock<Option<SyncSender<String>>> = OnceLock::new();
    let sender = SENDER.get_or_init(|| {
        let (sender, states) = sync_channel(MAX_WAITING);
        thread::Builder::new().name("systemd".to_owned()).spawn(move || send_all(&name, &states)).ok()?;
        Some(sender)
    });
    WAITING.fetch_add(1, Ordering::AcqRel);
    if sender.as_ref().is_none_or(|sender| sender.try_send(state).is_err()) {
        WAITING.fetch_sub(1, Ordering::AcqRel);
        tracing::warn!("systemd does not read its notify socket: state not sent");
    }
}

fn send_all(name: &OsStr, states: &Receiver<String>) {
    for state in states {
        if let Err(error) = send(name, &state, Some(MAX_SEND)) {
            tracing::warn!(%error, "systemd can't be notified");
        }
        WAITING.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Sends a state, and waits for no longer than `limit` if the socket is full.
fn send(name: &OsStr, state: &str, limit: Option<Duration>) -> io::Result<()> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }?;
    let socket = UnixDatagram::unbound()?;
    match limit {
        Some(limit) => socket.set_write_timeout(Some(limit))?,
        None => socket.set_nonblocking(true)?,
    }
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// States that the thread has not sent yet.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// States that wait to be sent: more than a start, an upgrade and a few reloads have.
const MAX_WAITING: usize = 16;
/// For a socket that is full. systemd itself waits for 90 s at a start.
const MAX_SEND: Duration = Duration::from_secs(30);
