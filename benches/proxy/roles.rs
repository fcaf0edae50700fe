//! The processes that are this binary: a backend, the gateway.

use std::process::{Command, ExitCode};
use std::time::Duration;

use ingle::config::Config;
use ingle::server::Server;
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
