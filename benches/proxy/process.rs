//! A process that is measured. It ends when its handle drops.

use std::process::{Child, Command, Stdio};

/// A running process and its children.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a command. Its output is discarded unless `INGLE_BENCH_VERBOSE` is set.
    pub(crate) fn start(command: &mut Command) -> std::io::Result<Process> {
        if std::env::var_os("INGLE_BENCH_VERBOSE").is_none() {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        command.stdin(Stdio::null()).spawn().map(Process)
    }

    /// Microseconds of CPU time so far, user and system, of the process and its running children.
    pub(crate) fn cpu_micros(&self) -> f64 {
        self.tree().iter().filter_map(|pid| cpu_nanos(*pid)).sum::<u64>() as f64 / 1e3
    }

    /// Memory in KiB of the process and its children. A page that several processes share counts in parts (PSS).
    pub(crate) fn memory_kib(&self) -> f64 {
        self.tree().iter().filter_map(|pid| pss_kib(*pid)).sum::<u64>() as f64
    }

    /// Whether it has ended, which a measured process must not.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
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
        for _ in 0..100 {
            if self.has_ended() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `schedstat` counts nanoseconds for each thread; `stat` counts hundredths of a second.
fn cpu_nanos(pid: u32) -> Option<u64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let nanos = threads.flatten().filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Some(nanos.sum())
}

fn pss_kib(pid: u32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}
