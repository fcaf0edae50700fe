//! The processes that are this executable: a backend, the gateway.

use std::process::{Command, ExitCode};
use std::time::Duration;

use ingle::config::Config;
use ingle::server::Server;

use super::backend;
use super::process::Process;

/// A backend process.
pub(crate) struct Backend {
    pub(crate) port: u16,
    _process: Process,
}

impl Backend {
    pub(crate) fn start() -> std::io::Result<Backend> {
        let port = free_port();
        let process = this(&["backend", &port.to_string()])?;
        wait_for(port).map_err(std::io::Error::other)?;
        Ok(Backend { port, _process: process })
    }
}

/// Starts this executable in a role.
pub(crate) fn this(args: &[&str]) -> std::io::Result<Process> {
    Process::start(Command::new(std::env::current_exe()?).args(args))
}

/// Returns a port that is free now.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Waits until a process listens on a port.
pub(crate) fn wait_for(port: u16) -> Result<(), String> {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if std::time::Instant::now() > deadline {
            return Err(format!("no process listens on port {port}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Plays a role, if `role` is one.
pub(crate) fn run(role: &str, args: &[String]) -> Option<ExitCode> {
    match role {
        "backend" => {
            let port = args.first().and_then(|port| port.parse().ok()).expect("a port");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(backend::serve(port));
        }
        "ingle" => {
            let file = args.first().expect("a config file");
            let text = std::fs::read_to_string(file).expect("a readable config file");
            let config = Config::parse(&text, file).expect("a valid config");
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let server = Server::bind(config).expect("free ports");
                let _ = server.run(std::future::pending(), std::future::pending()).await;
            });
        }
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}
