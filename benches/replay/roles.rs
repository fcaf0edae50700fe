//! Who takes part: ingle in its forms, the other proxies, and two that need no proxy.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::options::{Options, Scenario};
use super::others;
use super::process::Process;
use super::run::Result;

/// A way to place requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Role {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

/// What a role is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The client sends to the session's home, by ingle's own hash.
    DirectHash,
    /// The client sees all queues and caches.
    DirectOracle,
    /// ingle with these lines in its file.
    Ingle { affinity: &'static str, pool: &'static str, sessions: bool },
    /// Another proxy.
    Other(others::Proxy, others::Balance),
}

/// What a role's proxies are started with.
pub(crate) struct Setup<'a> {
    pub(crate) options: &'a Options,
    pub(crate) scenario: Scenario,
    pub(crate) backends: Vec<u16>,
    pub(crate) seed: u64,
}

/// A proxy that runs.
pub(crate) struct Gateway {
    pub(crate) url: String,
    pub(crate) process: Process,
    /// Its files, which go with it.
    dir: PathBuf,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // What is left in a temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The role that the others are compared with.
pub(crate) const BASELINE: &str = "ingle: hash, no bounds";

/// Every role, the baseline's neighbours first.
pub(crate) fn all(scenario: Scenario) -> Vec<Role> {
    use others::Balance::{BoundedHash, Hash, RoundRobin};
    use others::Proxy::{Caddy, Envoy, Haproxy, Nginx};
    let role = |name, kind| Role { name, kind };
    let ingle = |name, affinity, pool| role(name, Kind::Ingle { affinity, pool, sessions: true });
    let mut roles = vec![
        role("no proxy: oracle", Kind::DirectOracle),
        role("no proxy: hash", Kind::DirectHash),
        ingle(BASELINE, "", NO_BOUNDS),
    ];
    if scenario == Scenario::Failure {
        roles.push(ingle("ingle: hash, no bounds, snaps back", "return_home: immediately", NO_BOUNDS));
    }
    roles.extend([
        ingle("ingle: hash", "", ""),
        ingle("ingle: least_ttft", "policy: least_ttft", ""),
        role("ingle: round robin", Kind::Ingle { affinity: "", pool: NO_BOUNDS, sessions: false }),
        role("nginx: hash", Kind::Other(Nginx, Hash)),
        role("nginx: round robin", Kind::Other(Nginx, RoundRobin)),
        role("HAProxy: hash", Kind::Other(Haproxy, Hash)),
        role("HAProxy: hash, bounded", Kind::Other(Haproxy, BoundedHash)),
        role("HAProxy: round robin", Kind::Other(Haproxy, RoundRobin)),
        role("Caddy: hash", Kind::Other(Caddy, Hash)),
        role("Caddy: round robin", Kind::Other(Caddy, RoundRobin)),
        role("Envoy: hash", Kind::Other(Envoy, Hash)),
        role("Envoy: hash, bounded", Kind::Other(Envoy, BoundedHash)),
        role("Envoy: round robin", Kind::Other(Envoy, RoundRobin)),
    ]);
    roles
}

const NO_BOUNDS: &str = "overload: { balance_factor: 0 }";

impl Role {
    pub(crate) fn is_direct(&self) -> bool {
        matches!(self.kind, Kind::DirectHash | Kind::DirectOracle)
    }

    /// Whether the client sends session ids.
    pub(crate) fn sends_sessions(&self) -> bool {
        !matches!(self.kind, Kind::Ingle { sessions: false, .. } | Kind::Other(_, others::Balance::RoundRobin))
    }

    /// Starts the role's proxies and waits until they answer.
    pub(crate) async fn start(&self, setup: &Setup<'_>) -> Result<Vec<Gateway>> {
        let mut gateways = Vec::new();
        for number in 0..setup.scenario.gateways() {
            let port = free_port();
            let dir = std::env::temp_dir().join(format!("ingle-replay-{}-{port}-{number}", std::process::id()));
            std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
            let mut command = self.command(setup, port, &dir)?;
            let process = Process::start(&mut command)
                .map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
            gateways.push(Gateway { url: format!("http://127.0.0.1:{port}"), process, dir });
            wait_for(port).await?;
        }
        Ok(gateways)
    }

    fn command(&self, setup: &Setup<'_>, port: u16, dir: &Path) -> Result<Command> {
        match self.kind {
            Kind::Ingle { affinity, pool, .. } => {
                let file = write(dir, "ingle.yaml", &ingle(setup, port, affinity, pool))?;
                let ingle = &setup.options.ingle;
                let check = Command::new(ingle).args(["check", "--config"]).arg(&file).output();
                let check = check.map_err(|error| format!("{}: {error}", ingle.display()))?;
                if !check.status.success() {
                    return Err(String::from_utf8_lossy(&check.stderr).trim().to_owned());
                }
                let mut command = Command::new(ingle);
                command.args(["run", "--config"]).arg(file);
                Ok(command)
            }
            Kind::Other(proxy, balance) => others::command(proxy, balance, setup, port, dir),
            Kind::DirectHash | Kind::DirectOracle => Err("needs no proxy".to_owned()),
        }
    }
}

impl Setup<'_> {
    /// A time that ingle's defaults or ours mean for real traffic, as it is in compressed time: milliseconds, at least 10.
    pub(crate) fn compressed(&self, time: Duration) -> u64 {
        let millis = time.as_secs_f64() * 1e3 / self.options.compression;
        Duration::from_secs_f64(millis.round() / 1e3).as_millis().try_into().unwrap_or(u64::MAX).max(10)
    }

    pub(crate) fn health_interval(&self) -> u64 {
        self.compressed(HEALTH_INTERVAL)
    }

    /// What the hashes are seeded with, where that can be set.
    pub(crate) fn hash_seed(seed: u64) -> String {
        format!("replay-{seed}")
    }
}

/// The name of a backend in ingle's file: what its hash sees.
pub(crate) fn backend_name(index: usize) -> String {
    format!("gpu{index}")
}

/// ingle's defaults, except for times that are compressed and for what the role is about.
fn ingle(setup: &Setup<'_>, port: u16, affinity: &str, pool: &str) -> String {
    let seed = Setup::hash_seed(setup.seed);
    let (idle_ttl, interval) = (setup.compressed(IDLE_TTL), setup.health_interval());
    let hold_head = setup.compressed(HOLD_HEAD);
    let gateways = setup.scenario.gateways();
    let gateways = if gateways > 1 { format!("  gateways: {gateways}\n") } else { String::new() };
    let line = |indent: &str, text: &str| if text.is_empty() { String::new() } else { format!("{indent}{text}\n") };
    let backends: String = setup
        .backends
        .iter()
        .enumerate()
        .map(|(i, port)| {
            format!("      - {{ name: {}, url: \"http://127.0.0.1:{port}\", server: vllm }}\n", backend_name(i))
        })
        .collect();
    format!(
        "listeners: [{{ address: 127.0.0.1:{port} }}]\naffinity:\n  hash_seed: {seed}\n  idle_ttl: {idle_ttl}ms\n{gateways}{}\
         pools:\n  - name: main\n    health_check: {{ path: /health, interval: {interval}ms }}\n    \
         retry: {{ hold_head: {hold_head}ms }}\n{}    backends:\n{backends}",
        line("  ", affinity),
        line("    ", pool),
    )
}

/// ingle's defaults.
const IDLE_TTL: Duration = Duration::from_secs(600);
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
const HOLD_HEAD: Duration = Duration::from_secs(10);

/// A port that nobody listens on now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

pub(crate) fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let file = dir.join(name);
    std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(file)
}

/// Waits until a proxy answers with what a backend says.
async fn wait_for(port: u16) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if let Ok(Ok(true)) = tokio::time::timeout(Duration::from_secs(2), answers(port)).await {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err("it does not answer; INGLE_BENCH_VERBOSE=1 shows what it says".to_owned())
}

async fn answers(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET /v1/models HTTP/1.1\r\nHost: llm\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
