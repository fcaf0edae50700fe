//! The real binary.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::PATIENCE;
pub(crate) use crate::harness::file;

/// `ingle run` as a process of its own.
pub(crate) struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
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
        let file = file(yaml);
        let mut child = Command::new(BINARY)
            .args(more)
            .args(["--log-format", "json", "run", "--config"])
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let (stderr, sink) = (child.stderr.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|l| sink.lock().push(l))
        });
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut process = Process { child, lines, address: unknown, admin: unknown };
        process.address = process.until_address("listening for traffic").await;
        process.admin = process.until_address("listening for admins").await;
        process
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
        kill_process(Pid::from_child(&self.child), signal).unwrap();
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
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).stdin(Stdio::null()).output().unwrap()
}

const BINARY: &str = env!("CARGO_BIN_EXE_ingle");
