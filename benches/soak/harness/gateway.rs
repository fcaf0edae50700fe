//! The gateway: the real binary, and those that take its place.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::backends::BINARY;
use super::http1::Connection;
use super::log::Log;
use super::process::alive;

/// `ingle run`; all of its processes end when this drops.
pub(crate) struct Gateway {
    child: Mutex<Child>,
    /// Who serves is the last one.
    processes: Mutex<Vec<Pid>>,
    pub(crate) log: Log,
    config: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Gateway {
    /// Starts it with a config and waits until it is ready.
    pub(crate) async fn start(yaml: &str) -> Result<Gateway, String> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let config = std::env::temp_dir().join(format!("ingle-soak-{}-{number}.yaml", std::process::id()));
        write(&config, yaml)?;
        let mut command = Command::new(BINARY);
        command.args(["--log-format", "json", "run", "--config"]).arg(&config);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| format!("ingle run: {error}"))?;
        let log = Log::default();
        log.read(child.stderr.take().ok_or("ingle run has no standard error")?);
        let unknown = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let processes = Mutex::new(vec![Pid::from_child(&child)]);
        let mut gateway =
            Gateway { child: Mutex::new(child), processes, log, config, address: unknown, admin: unknown };
        gateway.address = gateway.listens("listening for traffic").await?;
        gateway.admin = gateway.listens("listening for admins").await?;
        gateway.until("it is ready", async || Ok(gateway.get("/readyz").await.is_ok())).await?;
        Ok(gateway)
    }

    /// Who serves.
    pub(crate) fn pid(&self) -> Pid {
        let processes = self.processes.lock();
        processes[processes.len() - 1]
    }

    /// Puts another config in force: by SIGHUP, or by the admin listener.
    pub(crate) async fn reload(&self, yaml: &str, by_signal: bool) -> Result<(), String> {
        write(&self.config, yaml)?;
        if !by_signal {
            return self.post("/reload").await.map(drop);
        }
        let (reloaded, refused) = ("config reloaded", "config not reloaded");
        let before = (self.log.notable(reloaded).len(), self.log.notable(refused).len());
        self.signal(Signal::HUP)?;
        self.until("it has reloaded", async || match self.log.notable(refused).get(before.1) {
            Some(line) => Err(line["message"].to_string()),
            None => Ok(self.log.notable(reloaded).len() > before.0),
        })
        .await
    }

    /// Lets another process take its place, and waits until the old one accepts no more.
    pub(crate) async fn upgrade(&self) -> Result<(), String> {
        let took_over = || self.log.notable("took over from the old process");
        let (before, draining) = (took_over().len(), self.log.notable("draining").len());
        self.signal(Signal::USR2)?;
        self.until("another process has taken over", async || {
            Ok(took_over().len() > before && self.log.notable("draining").len() > draining)
        })
        .await?;
        let pid = took_over()[before]["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        self.processes.lock().push(pid.ok_or("the log has no pid")?);
        Ok(())
    }

    /// Waits until no former process is left.
    pub(crate) async fn until_former_ended(&self) -> Result<(), String> {
        let former = || {
            let processes = self.processes.lock();
            processes[..processes.len() - 1].iter().any(|pid| alive(*pid))
        };
        self.until("the former process has ended", async || {
            self.reap();
            Ok(!former())
        })
        .await
    }

    /// SIGTERM; how long it took to end.
    pub(crate) async fn stop(&self) -> Result<Duration, String> {
        let begun = Instant::now();
        self.signal(Signal::TERM)?;
        let pid = self.pid();
        self.until("it has ended", async || {
            self.reap();
            Ok(!alive(pid))
        })
        .await?;
        Ok(begun.elapsed())
    }

    /// What the admin listener says.
    pub(crate) async fn get(&self, path: &str) -> Result<String, String> {
        self.ask("GET", path).await
    }

    pub(crate) async fn post(&self, path: &str) -> Result<String, String> {
        self.ask("POST", path).await
    }

    /// `/status` as it is now.
    pub(crate) async fn status(&self) -> Result<Value, String> {
        serde_json::from_str(&self.get("/status").await?).map_err(|error| error.to_string())
    }

    /// What `/backends` says of one.
    pub(crate) async fn backend(&self, name: &str) -> Result<Value, String> {
        let status = self.status().await?;
        let mut backends = status["backends"].as_array().into_iter().flatten();
        backends.find(|backend| backend["name"] == name).cloned().ok_or_else(|| format!("there is no {name}"))
    }

    /// Waits for a condition.
    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn() -> Result<bool, String>) -> Result<(), String> {
        let begun = Instant::now();
        while !holds().await? {
            if begun.elapsed() > PATIENCE {
                return Err(format!("not after {PATIENCE:?}: {what}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), String> {
        kill_process(self.pid(), signal).map_err(|error| format!("the gateway: {error}"))
    }

    async fn ask(&self, method: &str, path: &str) -> Result<String, String> {
        let asked = async {
            let mut connection = Connection::open(self.admin, Ipv4Addr::LOCALHOST).await?;
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                self.admin
            );
            connection.exchange(request.as_bytes()).await
        };
        let answer = asked.await.map_err(|broken| format!("{method} {path}: {}", broken.what))?;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.status == 200 { Ok(body) } else { Err(format!("{method} {path}: {} {body}", answer.status)) }
    }

    async fn listens(&self, message: &str) -> Result<SocketAddr, String> {
        self.until(message, async || {
            if matches!(self.child.lock().try_wait(), Ok(Some(_))) {
                return Err(format!("the gateway does not start: {:?}", self.log.complaints()));
            }
            Ok(!self.log.notable(message).is_empty())
        })
        .await?;
        let lines = self.log.notable(message);
        lines[0]["address"].as_str().and_then(|address| address.parse().ok()).ok_or_else(|| "no address".to_owned())
    }

    /// The first process is a child of ours; the kernel keeps it until somebody asks for it.
    pub(crate) fn reap(&self) {
        let _ = self.child.lock().try_wait();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // An error only says that it has ended.
        for pid in self.processes.lock().iter().skip(1).filter(|pid| alive(**pid)) {
            let _ = kill_process(*pid, Signal::KILL);
        }
        let mut child = self.child.lock();
        let _ = child.kill();
        let _ = child.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

/// At once: whoever reads it meanwhile gets the old one or the new one.
fn write(file: &PathBuf, yaml: &str) -> Result<(), String> {
    let new = file.with_extension("new");
    std::fs::write(&new, yaml).and_then(|()| std::fs::rename(&new, file)).map_err(|error| error.to_string())
}

/// Each has a config file of its own.
static STARTED: AtomicU32 = AtomicU32::new(0);
/// How long anything may take that must happen at all.
const PATIENCE: Duration = Duration::from_secs(60);
