//! The configs of the proxies: a hash of `X-Session-Id`, connections to backends are kept, no response is buffered, no
//! access log.

use std::path::{Path, PathBuf};

use super::certificate::Certificate;

/// What clients speak to the proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    Http1,
    Tls,
    /// Without TLS, with prior knowledge (h2c).
    Http2,
}

/// What a proxy is started with.
pub(crate) struct Setup<'a> {
    pub(crate) front: Front,
    pub(crate) port: u16,
    pub(crate) backends: [u16; 2],
    pub(crate) dir: &'a Path,
    pub(crate) certificate: &'a Certificate,
}

impl Setup<'_> {
    /// Writes a config into the directory of the proxy.
    pub(crate) fn write(&self, name: &str, text: &str) -> std::io::Result<PathBuf> {
        let file = self.dir.join(name);
        std::fs::write(&file, text).map(|()| file)
    }
}

/// Bounds for 10,000 connections; the rest are defaults.
pub(crate) fn ingle(setup: &Setup<'_>) -> String {
    let (port, [a, b]) = (setup.port, setup.backends);
    let tls = match setup.front {
        Front::Tls => {
            let (certificate, key) = (setup.certificate.certificate.display(), setup.certificate.key.display());
            format!(", tls: {{ certificate: {certificate}, key: {key} }}")
        }
        Front::Http1 | Front::Http2 => String::new(),
    };
    format!(
        "listeners: [{{ address: 127.0.0.1:{port}{tls} }}]\n\
         limits: {{ max_connections: {MAX_CONNECTIONS}, header_timeout: 1h }}\n\
         shutdown: {{ drain_timeout: 0s }}\n\
         pools:\n  - name: main\n    health_check: {{ path: /health }}\n    \
         backends: [{{ url: \"http://127.0.0.1:{a}\" }}, {{ url: \"http://127.0.0.1:{b}\" }}]\n"
    )
}

/// Request bodies are buffered, which is its default, but in memory.
pub(crate) fn nginx(setup: &Setup<'_>) -> String {
    let (port, [a, b], dir, threads) = (setup.port, setup.backends, setup.dir.display(), threads());
    let (certificate, key) = (setup.certificate.certificate.display(), setup.certificate.key.display());
    let (listen, tls) = match setup.front {
        Front::Http1 => ("", String::new()),
        Front::Tls => {
            (" ssl", format!("ssl_protocols TLSv1.3; ssl_certificate {certificate}; ssl_certificate_key {key};"))
        }
        Front::Http2 => (" http2", String::new()),
    };
    format!(
        "worker_processes {threads};\nworker_rlimit_nofile 65536;\npid {dir}/pid;\nerror_log /dev/null;\n\
         events {{ worker_connections {MAX_CONNECTIONS}; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n  \
         client_max_body_size 64m;\n  client_body_buffer_size 2m;\n  client_body_temp_path {dir}/b;\n  \
         proxy_temp_path {dir}/p;\n  fastcgi_temp_path {dir}/f;\n  uwsgi_temp_path {dir}/u;\n  scgi_temp_path {dir}/s;\n  \
         upstream llm {{ hash $http_x_session_id consistent; server 127.0.0.1:{a}; server 127.0.0.1:{b}; \
         keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 1h; }}\n  \
         server {{ listen 127.0.0.1:{port}{listen} backlog=4096; {tls} location / {{ proxy_pass http://llm; \
         proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off; proxy_read_timeout 1h; }} }}\n}}\n"
    )
}

/// `http-no-delay`: without it HAProxy holds small chunks back for a while, to send several at once. `pool-*-fd-ratio`:
/// without them it closes its connections to backends once clients use a quarter of the descriptors.
pub(crate) fn haproxy(setup: &Setup<'_>) -> String {
    let (port, [a, b], threads) = (setup.port, setup.backends, threads());
    let bind = match setup.front {
        Front::Http1 => String::new(),
        Front::Tls => format!(" ssl crt {}", setup.certificate.both.display()),
        Front::Http2 => " proto h2".to_owned(),
    };
    format!(
        "global\n  maxconn {MAX_CONNECTIONS}\n  nbthread {threads}\n  no strict-limits\n  \
         tune.pool-low-fd-ratio 100\n  tune.pool-high-fd-ratio 100\n\
         defaults\n  mode http\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n  \
         option http-keep-alive\n  option http-no-delay\n\
         frontend f\n  bind 127.0.0.1:{port}{bind}\n  default_backend llm\n\
         backend llm\n  balance hdr(X-Session-Id)\n  hash-type consistent\n  http-reuse always\n  \
         server a 127.0.0.1:{a}\n  server b 127.0.0.1:{b}\n"
    )
}

pub(crate) fn caddy(setup: &Setup<'_>) -> String {
    let (port, [a, b]) = (setup.port, setup.backends);
    let (certificate, key) = (setup.certificate.certificate.display(), setup.certificate.key.display());
    let (scheme, tls) = match setup.front {
        Front::Http1 | Front::Http2 => ("http", String::new()),
        Front::Tls => ("https", format!("  tls {certificate} {key}\n")),
    };
    format!(
        "{{\n  admin off\n  auto_https off\n  servers {{\n    protocols h1 h2 h2c\n    timeouts {{\n      idle 1h\n    }}\n  }}\n}}\n\
         {scheme}://:{port} {{\n  bind 127.0.0.1\n{tls}  \
         reverse_proxy 127.0.0.1:{a} 127.0.0.1:{b} {{\n    lb_policy header X-Session-Id\n    flush_interval -1\n    \
         transport http {{\n      keepalive_idle_conns_per_host 1024\n      compression off\n    }}\n  }}\n}}\n"
    )
}

/// What ingle and Caddy use without being configured.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

const MAX_CONNECTIONS: usize = 20_000;
