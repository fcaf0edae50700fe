//! Simulated backends, each a process that can be killed.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

/// One `ingle sim`; it ends when this drops.
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) server: &'static str,
    pub(crate) address: SocketAddr,
    pace: Pace,
    child: Mutex<Child>,
    /// When it was killed, lately.
    killed: Mutex<Vec<Instant>>,
}

/// How fast a backend is.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Prompt tokens per second.
    pub(crate) prefill: &'static str,
    /// Tokens per second of each stream.
    pub(crate) decode: &'static str,
    /// From one comment to the next while a stream has no token.
    pub(crate) pings: &'static str,
}

impl Backend {
    pub(crate) fn start(name: &'static str, server: &'static str, pace: Pace) -> Result<Backend, String> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (child, address) = spawn([name, server], pace, any, "0s")?;
        Ok(Backend { name, server, address, pace, child: Mutex::new(child), killed: Mutex::default() })
    }

    /// SIGKILL: what it was answering is cut.
    pub(crate) fn kill(&self) -> Result<(), String> {
        self.note_kill();
        self.signal(Signal::KILL)?;
        self.child.lock().wait().map(drop).map_err(|error| error.to_string())
    }

    /// SIGTERM to one that has nothing to do: nobody is cut, and nothing would be explained by it.
    pub(crate) fn end(&self) -> Result<(), String> {
        self.signal(Signal::TERM)?;
        self.child.lock().wait().map(drop).map_err(|error| error.to_string())
    }

    /// Starts it again at its address, cold.
    pub(crate) fn start_again(&self, loading: &str) -> Result<(), String> {
        let (child, _) = spawn([self.name, self.server], self.pace, self.address, loading)?;
        *self.child.lock() = child;
        Ok(())
    }

    /// It stands still.
    pub(crate) fn freeze(&self) -> Result<(), String> {
        self.signal(Signal::STOP)
    }

    pub(crate) fn thaw(&self) -> Result<(), String> {
        self.signal(Signal::CONT)
    }

    /// Whether it was killed at this time or later.
    pub(crate) fn killed_since(&self, begun: Instant) -> bool {
        self.killed.lock().iter().any(|at| *at >= begun)
    }

    fn note_kill(&self) {
        let mut killed = self.killed.lock();
        killed.push(Instant::now());
        // No request is as old as ten kills.
        let old = killed.len().saturating_sub(10);
        killed.drain(..old);
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = Pid::from_child(&self.child.lock());
        kill_process(pid, signal).map_err(|error| format!("{}: {error}", self.name))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let mut child = self.child.lock();
        // An error says that it has ended.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Starts one and waits until it says where it listens.
fn spawn(
    [name, server]: [&str; 2],
    pace: Pace,
    address: SocketAddr,
    loading: &str,
) -> Result<(Child, SocketAddr), String> {
    let mut command = Command::new(BINARY);
    command.args(["sim", "--name", name, "--server", server, "--loading", loading, "--listen", &address.to_string()]);
    command.args(["--slots", "4096", "--prefill-rate", pace.prefill, "--decode-rate", pace.decode]);
    command.args(["--ping-interval", pace.pings, "--prompt-tokens-details"]);
    let failed = |error: std::io::Error| format!("ingle sim: {error}");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut line = String::new();
    let Some(stdout) = child.stdout.take() else { return Err("ingle sim has no standard output".to_owned()) };
    BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    let address = line.trim_end().rsplit_once("http://").and_then(|(_, address)| address.parse().ok());
    address.map(|address| (child, address)).ok_or_else(|| format!("ingle sim says {line:?}"))
}

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ingle");
