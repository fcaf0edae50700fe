//! The real binary.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::PATIENCE;
pub(crate) use crate::harness::file;

/// `ingle run` as a process of its own, and those that take its place.
pub(crate) struct Process {
    child: Child,
    /// Who serves: the child, or a descendant of it.
    pid: Pid,
    /// Who served before.
    former: Vec<Pid>,
    lines: Arc<Mutex<Vec<String>>>,
    pub(crate) config: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Process {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(yaml: &str) -> Process {
        Process::start_with(yaml, &[]).await
    }

    /// Starts it with further arguments.
    pub(crate) async fn start_with(yaml: &str, more: &[&str]) -> Process {
        let config = file(yaml);
        let mut command = Command::new(BINARY);
        command.args(more).args(["--log-format", "json", "run", "--config"]).arg(&config);
        Process::spawn(command, config).await
    }

    /// Starts it by a command of the test's own, which must log JSON.
    pub(crate) async fn spawn(mut command: Command, config: PathBuf) -> Process {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let (stderr, sink) = (child.stderr.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|l| sink.lock().push(l))
        });
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let pid = Pid::from_child(&child);
        let mut process = Process { child, pid, former: Vec::new(), lines, config, address: unknown, admin: unknown };
        process.address = process.until_address("listening for traffic").await;
        process.admin = process.until_address("listening for admins").await;
        process
    }

    /// Lets another process take its place, and waits until it has.
    pub(crate) async fn upgrade(&mut self) {
        let of = |message: &str| self.log().into_iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
        let (took_over, draining) = ("took over from the old process", "draining");
        let before = (of(took_over).len(), of(draining).len());
        self.signal(Signal::USR2);
        let begun = Instant::now();
        // When the old one drains it accepts no more.
        while of(took_over).len() == before.0 || of(draining).len() == before.1 {
            assert!(begun.elapsed() < PATIENCE, "nobody took over: {:#?}", self.lines());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let pid = of(took_over)[before.0]["pid"].as_i64().unwrap();
        self.succeeded_by(i32::try_from(pid).unwrap());
    }

    /// Another process has taken its place.
    pub(crate) fn succeeded_by(&mut self, pid: i32) {
        let pid = Pid::from_raw(pid).unwrap();
        self.former.push(std::mem::replace(&mut self.pid, pid));
    }

    /// Waits until every process but the one that serves has ended.
    pub(crate) async fn until_former_ended(&mut self) {
        let begun = Instant::now();
        while self.former.iter().any(|pid| alive(*pid)) {
            assert!(begun.elapsed() < PATIENCE, "it goes on: {:#?}", self.lines());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the one that serves has ended.
    pub(crate) async fn until_last_ended(&mut self) {
        let begun = Instant::now();
        while alive(self.pid) {
            assert!(begun.elapsed() < PATIENCE, "it goes on: {:#?}", self.lines());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        u32::try_from(self.pid.as_raw_nonzero().get()).unwrap()
    }

    /// Waits until so many lines of the log have this message.
    pub(crate) async fn until_count(&self, message: &str, count: usize) {
        let begun = Instant::now();
        while self.count(message) < count {
            assert!(begun.elapsed() < PATIENCE, "not {count} times {message:?}: {:#?}", self.lines());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many lines of the log have this message.
    pub(crate) fn count(&self, message: &str) -> usize {
        self.log().iter().filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message))).count()
    }

    async fn until_address(&self, message: &str) -> SocketAddr {
        let line = self.until_line(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message))).await;
        line["address"].as_str().unwrap().parse().unwrap()
    }

    /// Waits for a line of the log, all of which must be JSON.
    pub(crate) async fn until_line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            if let Some(line) = self.log().into_iter().find(|line| wanted(line)) {
                return line;
            }
            assert!(begun.elapsed() < PATIENCE, "no such line: {:#?}", self.lines());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The log so far.
    pub(crate) fn log(&self) -> Vec<Value> {
        let parse = |line: String| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.lines().into_iter().map(parse).collect()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    pub(crate) fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) async fn until_ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it goes on: {:#?}", self.lines());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error only says that it has ended.
        for pid in self.former.iter().skip(1).chain([&self.pid]).filter(|pid| alive(**pid)) {
            let _ = kill_process(*pid, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether there is such a process, and it runs. One that nobody waits for is not running.
fn alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).stdin(Stdio::null()).output().unwrap()
}

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ingle");
