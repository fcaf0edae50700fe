//! A process that is measured, and ended when this drops.

use std::process::{Child, Command, Stdio};

/// A running process and its children.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a command; its output goes nowhere unless `INGLE_BENCH_VERBOSE` is set.
    pub(crate) fn start(command: &mut Command) -> std::io::Result<Process> {
        if std::env::var_os("INGLE_BENCH_VERBOSE").is_none() {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        command.stdin(Stdio::null()).spawn().map(Process)
    }

    /// Seconds of CPU time so far, user and system, of the process and its living children.
    pub(crate) fn cpu(&self) -> f64 {
        self.tree().iter().filter_map(|pid| ticks(*pid)).sum::<u64>() as f64 / TICKS_PER_SECOND
    }

    /// Resident memory in KiB, of the process and its children.
    pub(crate) fn rss_kib(&self) -> f64 {
        self.tree().iter().filter_map(|pid| rss(*pid)).sum::<u64>() as f64
    }

    fn tree(&self) -> Vec<u32> {
        let mut tree = vec![self.0.id()];
        let mut next = 0;
        while let Some(pid) = tree.get(next).copied() {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            tree.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            next += 1;
        }
        tree
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        for _ in 0..50 {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `schedstat` counts nanoseconds for each thread; `stat` only hundredths of a second for all.
fn ticks(pid: u32) -> Option<u64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let nanos = threads.flatten().filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Some(nanos.sum())
}

fn rss(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

const TICKS_PER_SECOND: f64 = 1e9;
