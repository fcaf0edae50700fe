//! The other proxies, each as somebody would run it who knows it well: no response is buffered, connections to
//! backends are kept, large bodies are taken, what fails is checked and tried elsewhere before its first byte.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::options::Options;
use super::roles::{Setup, write};
use super::run::Result;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    Nginx,
    Haproxy,
    Caddy,
    Envoy,
}

/// How it chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Balance {
    /// By a hash of `X-Session-Id`.
    Hash,
    /// The same, but not to a backend with more than 1.25 times its share of the requests in flight.
    BoundedHash,
    RoundRobin,
}

/// The versions of those that are there, as they say them.
pub(crate) fn versions(options: &Options) -> String {
    let programs =
        [(&options.nginx, "-v"), (&options.haproxy, "-v"), (&options.caddy, "version"), (&options.envoy, "--version")];
    let versions = programs.into_iter().filter_map(|(program, argument)| {
        let output = Command::new(program).arg(argument).output().ok()?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let name = program.file_name()?.to_string_lossy().into_owned();
        Some(format!("{name} {}", version(&said)?))
    });
    versions.collect::<Vec<_>>().join(", ")
}

/// The first thing in a text that looks like a version: digits with two dots.
fn version(text: &str) -> Option<String> {
    let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.').map(|number| number.trim_matches('.'));
    numbers.map(str::to_owned).find(|number| number.matches('.').count() == 2)
}

/// How to start it.
pub(crate) fn command(proxy: Proxy, balance: Balance, setup: &Setup<'_>, port: u16, dir: &Path) -> Result<Command> {
    let options = setup.options;
    match proxy {
        Proxy::Nginx => {
            let mut command = Command::new(&options.nginx);
            command.args(["-g", "daemon off;", "-c"]).arg(write(dir, "nginx.conf", &nginx(balance, setup, port, dir))?);
            Ok(command)
        }
        Proxy::Haproxy => {
            let mut command = Command::new(&options.haproxy);
            command.arg("-f").arg(write(dir, "haproxy.cfg", &haproxy(balance, setup, port))?);
            Ok(command)
        }
        Proxy::Caddy => {
            let mut command = Command::new(&options.caddy);
            command.env("HOME", dir).args(["run", "--adapter", "caddyfile", "--config"]);
            command.arg(write(dir, "Caddyfile", &caddy(balance, setup, port))?);
            Ok(command)
        }
        Proxy::Envoy => {
            let mut command = Command::new(&options.envoy);
            command.args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "error", "-c"]);
            command.arg(write(dir, "envoy.yaml", &envoy(balance, setup, port))?);
            Ok(command)
        }
    }
}

/// It has passive checks only, and its times are whole seconds: `fail_timeout` is 1 s, the least there is. Request
/// bodies are buffered, which is its default, but in memory: only so can they be sent again.
fn nginx(balance: Balance, setup: &Setup<'_>, port: u16, dir: &Path) -> String {
    let dir = dir.display();
    let hash = if balance == Balance::RoundRobin { "" } else { "hash $http_x_session_id consistent;" };
    let servers = each(setup, |_, port| format!("    server 127.0.0.1:{port} max_fails=1 fail_timeout=1s;\n"));
    format!(
        "worker_processes 2;\nworker_rlimit_nofile 65536;\npid {dir}/pid;\nerror_log /dev/null;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  client_body_temp_path {dir}/b;\n  \
         proxy_temp_path {dir}/p;\n  fastcgi_temp_path {dir}/f;\n  uwsgi_temp_path {dir}/u;\n  scgi_temp_path {dir}/s;\n  \
         upstream llm {{\n    zone llm 256k;\n    {hash}\n{servers}    keepalive 256;\n    keepalive_requests 1000000000;\n  }}\n  \
         server {{\n    listen 127.0.0.1:{port};\n    client_max_body_size 64m;\n    client_body_buffer_size 1m;\n    \
         location / {{\n      proxy_pass http://llm;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      \
         proxy_buffering off;\n      proxy_read_timeout 1h;\n      proxy_send_timeout 1h;\n      \
         proxy_next_upstream error timeout http_502 http_503 non_idempotent;\n      proxy_next_upstream_tries 3;\n    }}\n  }}\n}}\n"
    )
}

/// Its buffers hold a whole request, so that it can be sent again when a backend dies without an answer.
fn haproxy(balance: Balance, setup: &Setup<'_>, port: u16) -> String {
    let balance = match balance {
        Balance::RoundRobin => "balance roundrobin",
        Balance::Hash => "balance hdr(X-Session-Id)\n  hash-type consistent",
        Balance::BoundedHash => "balance hdr(X-Session-Id)\n  hash-type consistent\n  hash-balance-factor 125",
    };
    let inter = setup.health_interval();
    let servers =
        each(setup, |i, port| format!("  server gpu{i} 127.0.0.1:{port} check inter {inter}ms fall 3 rise 2\n"));
    format!(
        "global\n  maxconn 8000\n  nbthread 2\n  tune.bufsize 1048576\ndefaults\n  mode http\n  timeout connect 2s\n  \
         timeout client 1h\n  timeout server 1h\n  timeout check 1s\n  option redispatch 1\n  retries 3\n  \
         retry-on conn-failure empty-response 502 503\n\
         frontend f\n  bind 127.0.0.1:{port}\n  default_backend llm\n\
         backend llm\n  {balance}\n  option http-keep-alive\n  option http-no-delay\n  http-reuse always\n  option httpchk GET /health\n{servers}"
    )
}

fn caddy(balance: Balance, setup: &Setup<'_>, port: u16) -> String {
    let policy = if balance == Balance::RoundRobin { "round_robin" } else { "header X-Session-Id" };
    let servers = each(setup, |_, port| format!(" 127.0.0.1:{port}"));
    let interval = setup.health_interval();
    let fail_duration = setup.compressed(std::time::Duration::from_secs(10));
    format!(
        "{{\n  admin off\n  auto_https off\n}}\nhttp://:{port} {{\n  bind 127.0.0.1\n  reverse_proxy{servers} {{\n    \
         lb_policy {policy}\n    lb_retries 3\n    lb_try_duration 5s\n    lb_try_interval 10ms\n    \
         lb_retry_match {{\n      method POST\n    }}\n    request_buffers 4MiB\n    flush_interval -1\n    \
         health_uri /health\n    health_interval {interval}ms\n    health_timeout 1s\n    health_passes 2\n    health_fails 3\n    \
         max_fails 1\n    fail_duration {fail_duration}ms\n    \
         transport http {{\n      keepalive_idle_conns_per_host 256\n      compression off\n    }}\n  }}\n}}\n"
    )
}

/// Maglev has a larger table than its ring hash by default, hence more equal shares.
fn envoy(balance: Balance, setup: &Setup<'_>, port: u16) -> String {
    let policy = match balance {
        Balance::RoundRobin => "lb_policy: ROUND_ROBIN",
        Balance::Hash => "lb_policy: MAGLEV",
        Balance::BoundedHash => {
            "lb_policy: MAGLEV\n    common_lb_config: { consistent_hashing_lb_config: { hash_balance_factor: 125 } }"
        }
    };
    let endpoints = each(setup, |_, port| {
        format!(
            "        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}\n"
        )
    });
    let interval = setup.health_interval();
    let seconds = format!("{}.{:03}s", interval / 1000, interval % 1000);
    ENVOY
        .replace("PORT", &port.to_string())
        .replace("POLICY", policy)
        .replace("INTERVAL", &seconds)
        .replace("ENDPOINTS\n", &endpoints)
}

const ENVOY: &str = r#"static_resources:
  listeners:
  - address: { socket_address: { address: 127.0.0.1, port_value: PORT } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: llm
          stream_idle_timeout: 0s
          route_config:
            virtual_hosts:
            - name: llm
              domains: ["*"]
              routes:
              - match: { prefix: "/" }
                route:
                  cluster: llm
                  timeout: 0s
                  hash_policy: [{ header: { header_name: x-session-id } }]
                  retry_policy:
                    retry_on: connect-failure,refused-stream,reset,gateway-error
                    num_retries: 3
                    retry_back_off: { base_interval: 0.001s, max_interval: 0.010s }
                    retry_host_predicate:
                    - name: envoy.retry_host_predicates.previous_hosts
                      typed_config: { "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate }
                    host_selection_retry_max_attempts: 5
          http_filters:
          - name: envoy.filters.http.router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:
  - name: llm
    type: STATIC
    POLICY
    connect_timeout: 2s
    circuit_breakers: { thresholds: [{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000, max_retries: 1000 }] }
    health_checks:
    - { timeout: 1s, interval: INTERVAL, unhealthy_threshold: 3, healthy_threshold: 2, http_health_check: { path: /health } }
    load_assignment:
      cluster_name: llm
      endpoints:
      - lb_endpoints:
ENDPOINTS
"#;

fn each(setup: &Setup<'_>, line: impl Fn(usize, u16) -> String) -> String {
    setup.backends.iter().enumerate().fold(String::new(), |mut text, (index, port)| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}", line(index, *port));
        text
    })
}
