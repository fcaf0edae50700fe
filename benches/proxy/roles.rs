//! The processes that are this very binary: a backend, the bare proxy, the gateway.

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ingle::config::Config;
use ingle::server::Server;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::{HttpPeer, http_proxy};
use pingora::proxy::{ProxyHttp, Session};
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::process::Process;
use super::proxies::free_port;

/// A backend process.
pub(crate) struct Backend {
    pub(crate) port: u16,
    _process: Process,
}

/// Starts a backend.
pub(crate) fn backend() -> Backend {
    let port = free_port();
    let process = this(&["backend", &port.to_string()]).expect("the bench can start itself");
    wait_for(port);
    Backend { port, _process: process }
}

/// Starts this binary in a role.
pub(crate) fn this(args: &[&str]) -> std::io::Result<Process> {
    Process::start(Command::new(std::env::current_exe()?).args(args))
}

/// Waits until somebody listens.
pub(crate) fn wait_for(port: u16) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(std::time::Instant::now() < deadline, "nobody listens on port {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Plays a role, if `role` is one.
pub(crate) fn run(role: &str, args: &[String]) -> Option<ExitCode> {
    let port = |index: usize| args.get(index).and_then(|port| port.parse::<u16>().ok()).expect("a port");
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    match role {
        "backend" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve_backend(port(0)));
        }
        "bare" => runtime().block_on(serve_bare(port(0), [port(1), port(2)], args.len() > 3)),
        "ingle" => {
            let config = Config::parse(args.first().expect("a config"), "bench").expect("a good config");
            runtime().block_on(async {
                let server = Server::bind(config).expect("free ports");
                let _ = server.run(std::future::pending(), std::future::pending()).await;
            });
        }
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

/// The least that a Pingora proxy can be: two backends by turns. With `headers` it also tells the backend and the
/// client what every proxy of ours and theirs tells them, so that the rest of the difference is our own logic.
struct Bare {
    headers: bool,
    backends: [u16; 2],
    turn: AtomicUsize,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % 2;
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], self.backends[turn]));
        Ok(Box::new(HttpPeer::new(address, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        _ctx: &mut (),
    ) -> pingora::Result<()> {
        if self.headers {
            let client = session.client_addr().and_then(|address| address.as_inet()).expect("an address").ip();
            let host = session.req_header().headers.get("host").cloned().expect("a host");
            upstream.insert_header("X-Forwarded-For", client.to_string())?;
            upstream.insert_header("X-Forwarded-Proto", "http")?;
            upstream.insert_header("X-Forwarded-Host", host)?;
            let turn = self.turn.load(Ordering::Relaxed);
            upstream.insert_header("X-Request-Id", format!("{turn:032x}"))?;
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        _ctx: &mut (),
    ) -> pingora::Result<()> {
        if self.headers {
            response.insert_header("X-Ingle-Backend", "127.0.0.1:8080")?;
            response.insert_header("X-Ingle-Affinity", "balanced")?;
        }
        Ok(())
    }
}

async fn serve_bare(port: u16, backends: [u16; 2], headers: bool) {
    let conf = ServerConf { upstream_keepalive_pool_size: 1024, ..ServerConf::default() };
    let proxy = http_proxy(&Arc::new(conf), Bare { headers, backends, turn: AtomicUsize::new(0) });
    let mut service = Service::new("bare".to_owned(), proxy);
    service.add_tcp(&format!("127.0.0.1:{port}"));
    let (_stop, stops) = tokio::sync::watch::channel(false);
    service.start_service(None, stops, 1).await;
}

async fn serve_backend(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(converse(stream));
    }
}

/// Answers requests: `/sse/N/MS` with N chunks, one each MS milliseconds; anything else with a small JSON.
async fn converse(mut stream: TcpStream) -> Option<()> {
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let length = text.split("content-length:").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
        let whole = head + length.unwrap_or(0);
        while buffer.len() < whole {
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        }
        let path: Vec<&str> = text.split(' ').nth(1)?.split('/').collect();
        match path[..] {
            ["", "sse", chunks, pause] => events(&mut stream, chunks.parse().ok()?, pause.parse().ok()?).await?,
            _ => stream.write_all(ANSWER).await.ok()?,
        }
        buffer.drain(..whole);
    }
}

async fn events(stream: &mut TcpStream, chunks: usize, pause: u64) -> Option<()> {
    stream.write_all(EVENTS_HEAD).await.ok()?;
    let mut tick = tokio::time::interval(Duration::from_millis(pause));
    tick.tick().await;
    for _ in 0..chunks {
        tick.tick().await;
        stream.write_all(EVENT).await.ok()?;
    }
    stream.write_all(b"0\r\n\r\n").await.ok()
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 233\r\n\r\n\
{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"ok\"}}],\
\"usage\":{\"prompt_tokens\":3020,\"completion_tokens\":1,\"prompt_tokens_details\":{\"cached_tokens\":2956}}}     ";
const EVENTS_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
/// A token as llama-server sends it: 175 bytes.
const EVENT: &[u8] =
    b"af\r\ndata: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\" warm\"}}],\
\"created\":1764000000,\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\"}\n\n      \r\n";
