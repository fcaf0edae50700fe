//! The proxies that are compared, each configured as its users would for this.

use std::fmt::Write;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::process::Process;
use super::servers::NAMES;

/// A proxy and its policy, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proxy {
    Ingle,
    IngleLeastTtft,
    CaddyHash,
    CaddyRoundRobin,
}

impl Proxy {
    /// What `--only` calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Proxy::Ingle => "ingle",
            Proxy::IngleLeastTtft => "ingle-least-ttft",
            Proxy::CaddyHash => "caddy",
            Proxy::CaddyRoundRobin => "caddy-round-robin",
        }
    }

    /// What the table calls it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Proxy::Ingle => "ingle, `consistent_hash`",
            Proxy::IngleLeastTtft => "ingle, `least_ttft`",
            Proxy::CaddyHash => "Caddy, `lb_policy header X-Session-Id`",
            Proxy::CaddyRoundRobin => "Caddy, `lb_policy round_robin`",
        }
    }
}

/// Those that are installed.
pub(crate) fn there_are() -> Vec<Proxy> {
    let mut all = vec![Proxy::Ingle, Proxy::IngleLeastTtft];
    match Command::new(caddy()).arg("version").output() {
        Ok(_) => all.extend([Proxy::CaddyHash, Proxy::CaddyRoundRobin]),
        Err(error) => eprintln!("Caddy does not take part: {error}"),
    }
    all
}

/// A proxy that runs. It ends when this drops.
pub(crate) struct Running {
    port: u16,
    _process: Process,
}

impl Running {
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Starts it, and waits until every server takes part.
pub(crate) async fn start(proxy: Proxy, servers: &[SocketAddr]) -> Running {
    let port = free_port();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(proxy.name());
    std::fs::create_dir_all(&folder).expect("a folder for its config");
    let config = folder.join("config");
    let (text, mut command) = match proxy {
        Proxy::Ingle => (ingle(port, servers, "consistent_hash"), Command::new(env!("CARGO_BIN_EXE_ingle"))),
        Proxy::IngleLeastTtft => (ingle(port, servers, "least_ttft"), Command::new(env!("CARGO_BIN_EXE_ingle"))),
        Proxy::CaddyHash => (caddyfile(port, servers, "header X-Session-Id"), Command::new(caddy())),
        Proxy::CaddyRoundRobin => (caddyfile(port, servers, "round_robin"), Command::new(caddy())),
    };
    std::fs::write(&config, text).expect("its config");
    command.env("HOME", &folder).args(["run", "--config"]).arg(&config);
    if matches!(proxy, Proxy::CaddyHash | Proxy::CaddyRoundRobin) {
        command.args(["--adapter", "caddyfile"]);
    }
    let process = Process::start(&mut command).expect("it starts");
    until_all_serve(port, servers).await;
    Running { port, _process: process }
}

/// The smallest config, with its policy. The names make homes independent of ports.
fn ingle(port: u16, servers: &[SocketAddr], policy: &str) -> String {
    let mut text = format!(
        "listeners: [{{ address: 127.0.0.1:{port} }}]\naffinity: {{ policy: {policy} }}\npools:\n  - name: main\n    \
         backends:\n"
    );
    for (name, address) in NAMES.iter().zip(servers) {
        // Writing to a string can't fail.
        let _ = writeln!(text, "      - {{ name: {name}, url: \"http://{address}\", server: llama_server }}");
    }
    text
}

/// What Caddy has for this, which is mostly off unless one asks: probes as often as ingle's, passive checks, retries;
/// without a matcher for POST it would repeat nothing that was sent, and without buffers it would have nothing to
/// repeat. The header tells the bench who answered.
fn caddyfile(port: u16, servers: &[SocketAddr], policy: &str) -> String {
    let servers: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
    format!(
        "{{\n  admin off\n  auto_https off\n}}\nhttp://:{port} {{\n  bind 127.0.0.1\n  reverse_proxy {} {{\n    \
         lb_policy {policy}\n    lb_try_duration 30s\n    lb_retry_match {{\n      method POST\n    }}\n    \
         request_buffers 4MiB\n    health_uri /health\n    health_interval 2s\n    health_fails 3\n    \
         fail_duration 10s\n    flush_interval -1\n    \
         header_down X-Ingle-Backend {{http.reverse_proxy.upstream.hostport}}\n  }}\n}}\n",
        servers.join(" ")
    )
}

fn caddy() -> std::ffi::OsString {
    std::env::var_os("INGLE_CADDY").unwrap_or_else(|| "caddy".into())
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Waits until requests without a session find every server, and none goes to a server of which nothing is known.
async fn until_all_serve(port: u16, servers: &[SocketAddr]) {
    let begun = Instant::now();
    let mut seen = vec![false; servers.len()];
    while seen.contains(&false) {
        assert!(begun.elapsed() < PATIENCE, "the proxy does not serve: INGLE_BENCH_VERBOSE=1 shows what it says");
        let head = get(port).unwrap_or_default().to_ascii_lowercase();
        let backend = head.lines().find_map(|line| line.strip_prefix("x-ingle-backend: "));
        if head.starts_with("http/1.1 200") && !head.contains("fail_open") {
            let who =
                |(name, address): (&&str, &SocketAddr)| backend == Some(name) || backend == Some(&address.to_string());
            NAMES.iter().zip(servers).position(who).into_iter().for_each(|server| seen[server] = true);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// How long a proxy may take until it serves.
const PATIENCE: Duration = Duration::from_secs(60);
