//! Another process takes the place of this one, with its sockets.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::handover::{self, Estate, GO, READY, SERVING, VARIABLE};
use super::inherited::say;

/// Starts the program of this process again, with the same arguments, and hands it the estate. Returns its process id
/// once it serves. Dropped before that, or if it fails or is not ready within `limit`, the new process is killed.
///
/// # Errors
///
/// Why it does not serve, in words.
pub(super) async fn upgrade(estate: Estate, limit: Duration) -> Result<u32, String> {
    hand_over(same_again(), estate, limit).await
}

/// As this process was called, so that a binary that was put into its place, in whatever way, is found.
fn same_again() -> Command {
    let mut arguments = std::env::args_os();
    let mut command = Command::new(arguments.next().unwrap_or_else(|| OsString::from("/proc/self/exe")));
    command.args(arguments);
    command
}

async fn hand_over(mut command: Command, estate: Estate, limit: Duration) -> Result<u32, String> {
    let (mut ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
    command.env(VARIABLE, "1").stdin(Stdio::from(OwnedFd::from(theirs)));
    for variable in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        command.env_remove(variable);
    }
    let started = command.spawn();
    // It holds the other end of the channel, whose closing says that the process has ended.
    drop(command);
    let mut process = Process(Some(started.map_err(|error| format!("can't be started: {error}"))?));
    let opened =
        ours.set_write_timeout(Some(LISTENS)).and_then(|()| handover::send(&mut ours, estate)).and_then(|()| {
            ours.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(ours)
        });
    let mut channel = match opened {
        Ok(channel) => channel,
        // It ended before it was sent anything.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(process.end().await),
        Err(error) => return Err(format!("{}: {error}", process.end().await)),
    };
    match timeout(limit, handover::word(&mut channel)).await {
        Ok(Ok(Some(word))) if word == READY => {}
        Ok(_) => return Err(process.end().await),
        Err(_) => return Err(format!("it was not ready within {limit:?}")),
    }
    let serving = async {
        say(&mut channel, GO).await?;
        handover::word(&mut channel).await
    };
    match timeout(TAKES_OVER, serving).await {
        Ok(Ok(Some(word))) if word == SERVING => process.keep().ok_or_else(|| "it has ended".to_owned()),
        _ => Err(process.end().await),
    }
}

/// A process that is killed when this drops.
struct Process(Option<Child>);

impl Process {
    /// Lets it live. Returns its id.
    fn keep(&mut self) -> Option<u32> {
        self.0.take()?.id()
    }

    /// How it ended, in words; it is about to, or is killed.
    async fn end(&mut self) -> String {
        let Some(child) = &mut self.0 else { return String::new() };
        match timeout(ENDS, child.wait()).await {
            Ok(Ok(status)) => format!("it ended: {status}"),
            _ => "it did not say what it should".to_owned(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // An error says that it has ended.
            let _ = child.start_kill();
        }
    }
}

/// For what it is sent to fit into the channel, or to be read; nearly always it fits.
const LISTENS: Duration = Duration::from_secs(2);
/// For a new process that may serve to do so: it only has to begin.
const TAKES_OVER: Duration = Duration::from_secs(10);
/// For a process that has closed its end of the channel to be gone.
const ENDS: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::super::handover::Passed;
    use super::*;

    async fn with(script: &str, limit: Duration) -> Result<u32, String> {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let passed = Passed { kind: None, address: socket.local_addr().unwrap(), socket };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        hand_over(command, Estate { sockets: vec![passed], drains: Vec::new() }, limit).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_program_that_fails_is_told_with_how_it_ended() {
        assert_eq!(with("exit 3", LONG).await.unwrap_err(), "it ended: exit status: 3");
        assert_eq!(with("read line; exit 4", LONG).await.unwrap_err(), "it ended: exit status: 4");
        let missing = hand_over(Command::new("/no/such/program"), Estate::default(), LONG).await.unwrap_err();
        assert!(missing.starts_with("can't be started: "), "{missing}");
    }

    #[tokio::test]
    async fn a_program_that_never_is_ready_is_killed() {
        let file = std::env::temp_dir().join(format!("ingle-upgrade-{}", std::process::id()));
        let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", file.display());
        let why = with(&script, Duration::from_millis(500)).await.unwrap_err();
        assert_eq!(why, "it was not ready within 500ms");
        // The shell may have been killed before it could say who it is.
        let Ok(pid) = std::fs::read_to_string(&file) else { return };
        std::fs::remove_file(&file).unwrap();
        let (begun, path) = (Instant::now(), format!("/proc/{}/stat", pid.trim()));
        let gone = || std::fs::read_to_string(&path).map_or(true, |stat| stat.contains(") Z "));
        while !gone() {
            assert!(begun.elapsed() < LONG, "it lives");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_program_that_dies_when_it_should_serve_has_not_taken_over() {
        let script =
            "exec 3<&0; printf 'ready\\n' >&3; read letter <&3; read go <&3; test \"$go\" = go && exit 5; exit 6";
        assert_eq!(with(script, LONG).await.unwrap_err(), "it ended: exit status: 5");
    }

    #[tokio::test]
    async fn a_program_that_serves_lives_on() {
        let script =
            "exec 3<&0; printf 'ready\\n' >&3; read letter <&3; read go <&3; printf 'serving\\n' >&3; exec cat <&3";
        let pid = with(script, LONG).await.unwrap();
        // Its channel has closed by now, so `cat` ends; it was not killed before it could.
        assert!(pid > 0);
    }
}
