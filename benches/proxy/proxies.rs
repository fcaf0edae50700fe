//! The proxies that are compared, each with its hash of `X-Session-Id` and its access log off.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Process;
use super::roles::{this, wait_for};

/// A proxy in front of the backends.
pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) process: Process,
}

/// Starts every proxy there is, or those that are named.
pub(crate) fn all(backends: [u16; 2], only: Option<&[String]>) -> Vec<Proxy> {
    let [a, b] = backends.map(|port| port.to_string());
    let start = |name, process: &dyn Fn(u16, &Path) -> std::io::Result<Process>| {
        let wanted = only.is_none_or(|only| only.iter().any(|wanted| wanted == name));
        if wanted { start(name, process) } else { None }
    };
    let started = [
        start("bare", &|port, _| bare(&[&port.to_string(), &a, &b])),
        start("bare+headers", &|port, _| bare(&[&port.to_string(), &a, &b, "headers"])),
        start("ingle", &|port, _| this(&["ingle", &ingle(port, backends)])),
        start("nginx", &|port, dir| {
            let file = write(dir, "nginx.conf", &nginx(port, backends, dir))?;
            Process::start(Command::new("nginx").args(["-g", "daemon off;", "-c"]).arg(file))
        }),
        start("haproxy", &|port, dir| {
            let file = write(dir, "haproxy.cfg", &haproxy(port, backends))?;
            Process::start(Command::new("haproxy").arg("-f").arg(file))
        }),
        start("caddy", &|port, dir| {
            let file = write(dir, "Caddyfile", &caddy(port, backends))?;
            let caddy = std::env::var_os("INGLE_CADDY").unwrap_or_else(|| "caddy".into());
            Process::start(
                Command::new(caddy).env("HOME", dir).args(["run", "--adapter", "caddyfile", "--config"]).arg(file),
            )
        }),
    ];
    started.into_iter().flatten().collect()
}

fn start(name: &'static str, process: &dyn Fn(u16, &Path) -> std::io::Result<Process>) -> Option<Proxy> {
    let port = free_port();
    let dir = std::env::temp_dir().join(format!("ingle-bench-{}-{name}", std::process::id()));
    let started = std::fs::create_dir_all(&dir).and_then(|()| process(port, &dir));
    match started {
        Ok(process) => {
            wait_for(port);
            Some(Proxy { name, port, process })
        }
        Err(error) => {
            eprintln!("{name} does not take part: {error}");
            None
        }
    }
}

/// The proxy of `benches/bare`, which `make bench` builds.
fn bare(args: &[&str]) -> std::io::Result<Process> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bare/release/bare");
    Process::start(Command::new(std::env::var_os("INGLE_BARE").map_or(built, PathBuf::from)).args(args))
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn write(dir: &Path, name: &str, text: &str) -> std::io::Result<PathBuf> {
    let file = dir.join(name);
    std::fs::write(&file, text)?;
    Ok(file)
}

fn ingle(port: u16, [a, b]: [u16; 2]) -> String {
    format!(
        "listeners: [{{ address: 127.0.0.1:{port} }}]\npools:\n  - name: main\n    health_check: {{ path: /health }}\n    \
         backends: [{{ url: \"http://127.0.0.1:{a}\" }}, {{ url: \"http://127.0.0.1:{b}\" }}]\n"
    )
}

fn nginx(port: u16, [a, b]: [u16; 2], dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "worker_processes 2;\nworker_rlimit_nofile 65536;\npid {dir}/pid;\nerror_log /dev/null;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  client_body_temp_path {dir}/b;\n  \
         proxy_temp_path {dir}/p;\n  fastcgi_temp_path {dir}/f;\n  uwsgi_temp_path {dir}/u;\n  scgi_temp_path {dir}/s;\n  \
         upstream llm {{ hash $http_x_session_id consistent; server 127.0.0.1:{a}; server 127.0.0.1:{b}; \
         keepalive 1024; keepalive_requests 1000000000; }}\n  \
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://llm; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; proxy_buffering off; proxy_read_timeout 1h; }} }}\n}}\n"
    )
}

fn haproxy(port: u16, [a, b]: [u16; 2]) -> String {
    format!(
        "global\n  maxconn 8000\n  nbthread 2\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 1h\n  \
         timeout server 1h\nfrontend f\n  bind 127.0.0.1:{port}\n  default_backend llm\nbackend llm\n  \
         balance hdr(X-Session-Id)\n  hash-type consistent\n  option http-keep-alive\n  http-reuse always\n  \
         server a 127.0.0.1:{a}\n  server b 127.0.0.1:{b}\n"
    )
}

fn caddy(port: u16, [a, b]: [u16; 2]) -> String {
    format!(
        "{{\n  admin off\n  auto_https off\n}}\nhttp://:{port} {{\n  bind 127.0.0.1\n  \
         reverse_proxy 127.0.0.1:{a} 127.0.0.1:{b} {{\n    lb_policy header X-Session-Id\n    flush_interval -1\n  }}\n}}\n"
    )
}
