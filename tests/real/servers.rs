//! Processes of real llama-servers: what the tests and `benches/real` start and kill.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// What it takes to run llama-servers.
pub(crate) struct Launcher {
    python: String,
    model: String,
}

impl Launcher {
    /// What `scripts/real/setup.sh` prints, if it is in the environment.
    pub(crate) fn from_env() -> Option<Launcher> {
        let read = |name| std::env::var(name).ok();
        Some(Launcher { python: read("INGLE_REAL_PYTHON")?, model: read("INGLE_REAL_MODEL")? })
    }

    /// A process that will be a server once its model is loaded. Port 0 is any free one.
    pub(crate) fn start(&self, port: u16, slots: usize) -> Starting {
        self.start_with(port, slots, &[])
    }

    /// The same, with more in its environment.
    pub(crate) fn start_with(&self, port: u16, slots: usize, environment: &[(&str, &str)]) -> Starting {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("llama-server-{}.log", COUNT.fetch_add(1, Ordering::Relaxed));
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/real/llama_server.py");
        let child = Command::new(&self.python)
            .args([script, &self.model, &port.to_string(), &slots.to_string()])
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn();
        let mut process = Process(child.unwrap_or_else(|error| panic!("{}: {error}", self.python)));
        let mut stdout = BufReader::new(process.0.stdout.take().unwrap());
        let (found, first_line) = oneshot::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // Without a line the receiver learns of it by the channel's end. So does this thread, by an error.
            if stdout.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                let _ = found.send(line);
            }
        });
        Starting { process, first_line, log }
    }
}

/// A process that loads its model.
pub(crate) struct Starting {
    process: Process,
    first_line: oneshot::Receiver<String>,
    log: PathBuf,
}

impl Starting {
    /// The server, once it answers requests.
    pub(crate) async fn ready(mut self) -> Llama {
        let line = timeout(PATIENCE, &mut self.first_line).await.ok().and_then(Result::ok);
        let line = line.unwrap_or_else(|| panic!("llama-server does not start: see {}", self.log.display()));
        let address = line.trim().trim_start_matches("http://").parse().unwrap();
        Llama { process: self.process, address }
    }
}

/// A llama-server. It dies by SIGKILL when this drops.
pub(crate) struct Llama {
    process: Process,
    pub(crate) address: SocketAddr,
}

/// Servers named `a`, `b`, `c`, of which one can die and come back.
pub(crate) struct Fleet<'a> {
    launcher: &'a Launcher,
    slots: usize,
    pub(crate) servers: Vec<Llama>,
}

/// What the servers of a [`Fleet`] are called.
pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];

impl<'a> Fleet<'a> {
    /// At most as many as there are names. All answer requests, and have seen none.
    pub(crate) async fn start(launcher: &'a Launcher, servers: usize, slots: usize) -> Fleet<'a> {
        let starting: Vec<Starting> = NAMES[..servers].iter().map(|_| launcher.start(0, slots)).collect();
        let mut ready = Vec::new();
        for one in starting {
            ready.push(one.ready().await);
        }
        Fleet { launcher, slots, servers: ready }
    }

    /// Which server it was that a proxy named in its answer, by its name or its address.
    pub(crate) fn position(&self, backend: &str) -> Option<usize> {
        let named = |(name, server): (&&str, &Llama)| **name == *backend || server.address.to_string() == backend;
        NAMES.iter().zip(&self.servers).position(named)
    }

    pub(crate) fn kill(&mut self, server: usize) {
        self.servers[server].process.end();
    }

    /// Starts it again at its address, with an empty cache.
    pub(crate) async fn revive(&mut self, server: usize) {
        let port = self.servers[server].address.port();
        self.servers[server] = self.launcher.start(port, self.slots).ready().await;
    }
}

/// How long a server may take to start. It computes, and shares the machine with others.
const PATIENCE: Duration = Duration::from_secs(90);

impl Llama {
    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.process.0);
        kill_process(pid, signal).unwrap();
    }
}

/// A process that does not outlive its test.
struct Process(Child);

impl Process {
    fn end(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
