//! How a running process hands its listening sockets to the one that takes its place.
//!
//! The two are connected by a pair of Unix sockets; the new one finds its end as standard input. The old one sends
//! [`Letter`] with the sockets. When the new one has read its config and probed its backends it says [`READY`], and waits.
//! The old one says [`GO`]: from here on it does not give up on the new one for being slow. The new one begins to accept,
//! says [`SERVING`], and only now the old one ceases to. So at every moment somebody accepts, and a new process that
//! fails, at whatever point, has taken no connection with it.

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What goes from one process to the next.
#[derive(Default)]
pub(super) struct Estate {
    /// Listening sockets.
    pub(super) sockets: Vec<Passed>,
    /// Backends that were drained or undrained since the config was read, by name.
    pub(super) drains: Vec<(String, bool)>,
}

/// A listening socket that goes from one process to the next.
pub(super) struct Passed {
    /// `None`: for whatever has its address.
    pub(super) kind: Option<Kind>,
    /// As the config has it, which may leave the port to the system.
    pub(super) address: SocketAddr,
    pub(super) socket: TcpListener,
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Traffic,
    Admin,
}

/// What comes with the sockets, on one line.
#[derive(Serialize, Deserialize)]
struct Letter {
    /// Of this format; a new one would be another number.
    version: u32,
    /// Of each socket.
    listeners: Vec<(Option<Kind>, SocketAddr)>,
    drains: Vec<(String, bool)>,
}

/// Sends an estate.
///
/// # Errors
///
/// The system's.
pub(super) fn send(channel: &mut UnixStream, Estate { sockets, drains }: Estate) -> io::Result<()> {
    let listeners = sockets.iter().map(|passed| (passed.kind, passed.address)).collect();
    let letter = Letter { version: VERSION, listeners, drains };
    let text = serde_json::to_string(&letter)? + "\n";
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = sockets.iter().map(|passed| passed.socket.as_fd()).collect();
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("too many listeners"));
    }
    let sent = sendmsg(&*channel, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    // The sockets have gone with the first byte.
    channel.write_all(&text.as_bytes()[sent..])
}

/// Receives an estate.
///
/// # Errors
///
/// The system's; if the sender ends, or speaks of another version.
pub(super) fn receive(channel: &UnixStream) -> io::Result<Estate> {
    let (mut text, mut sockets) = (Vec::new(), Vec::new());
    while text.last() != Some(&b'\n') {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut piece = [0; 4096];
        let received = recvmsg(channel, &mut [IoSliceMut::new(&mut piece)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                sockets.extend(descriptors.map(TcpListener::from));
            }
        }
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.extend_from_slice(&piece[..received.bytes]);
    }
    let letter: Letter = serde_json::from_slice(&text)?;
    if letter.version != VERSION || letter.listeners.len() != sockets.len() {
        return Err(io::Error::other(format!("a handover of version {}, not {VERSION}", letter.version)));
    }
    let passed = |((kind, address), socket)| Passed { kind, address, socket };
    Ok(Estate { sockets: letter.listeners.into_iter().zip(sockets).map(passed).collect(), drains: letter.drains })
}

/// The next word from the other side; `None` at its end.
///
/// # Errors
///
/// The system's.
pub(super) async fn word(channel: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<String>> {
    let mut word = String::new();
    loop {
        match channel.read_u8().await {
            Ok(b'\n') => return Ok(Some(word)),
            Ok(letter) if word.len() < LONGEST_WORD => word.push(char::from(letter)),
            Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// The new process could serve.
pub(super) const READY: &str = "ready";
/// It shall.
pub(super) const GO: &str = "go";
/// It does.
pub(super) const SERVING: &str = "serving";
/// Set for a process that shall take the place of the one that starts it.
pub(super) const VARIABLE: &str = "INGLE_UPGRADE";

const VERSION: u32 = 1;
/// Sockets in one message: more than a config may have listeners.
const MOST: usize = 128;
const LONGEST_WORD: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_arrive_with_their_addresses() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let passed = |i: u16| {
            let kind = [None, Some(Kind::Traffic), Some(Kind::Admin)][usize::from(i % 3)];
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            Passed { kind, address: SocketAddr::from(([127, 0, 0, 1], i)), socket }
        };
        let sockets: Vec<Passed> = (0..65).map(passed).collect();
        let what = |passed: &Passed| (passed.kind, passed.address, passed.socket.local_addr().unwrap());
        let before: Vec<_> = sockets.iter().map(what).collect();
        // More than goes at once into the buffer of a receiver.
        let drains: Vec<(String, bool)> = (0..4096).map(|i| (format!("gpu{i}"), i % 2 == 0)).collect();
        let estate = Estate { sockets, drains: drains.clone() };
        let sender = std::thread::spawn(move || send(&mut ours, estate).unwrap());
        let received = receive(&theirs).unwrap();
        sender.join().unwrap();
        let after: Vec<_> = received.sockets.iter().map(what).collect();
        assert_eq!((after, received.drains), (before, drains));
    }

    #[test]
    fn who_sends_nothing_or_something_else_is_an_error() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"{\"version\":2,\"listeners\":[],\"drains\":[]}\n").unwrap();
        assert!(receive(&theirs).err().unwrap().to_string().contains("version 2"));
        drop(ours);
        assert_eq!(receive(&theirs).err().unwrap().kind(), io::ErrorKind::UnexpectedEof);
    }
}
