//! `ingle run`: config, listeners, signals.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::INVALID;
use crate::config::Config;
use crate::server::{Drained, Server};

pub(super) fn run(path: &Path) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            eprintln(&errors.to_string());
            return ExitCode::from(INVALID);
        }
    };
    let served = runtime().and_then(|runtime| {
        let served = runtime.block_on(serve(path, config));
        // Whatever the drain left behind ends now.
        runtime.shutdown_background();
        served
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "ingle ends");
            ExitCode::FAILURE
        }
    }
}

async fn serve(path: &Path, config: Config) -> io::Result<()> {
    raise_file_limit();
    let mut signals = Signals::new()?;
    let mut again = Signals::new()?;
    let server = Server::bind(config)?.from_file(path);
    for address in server.addresses()? {
        tracing::info!(%address, "listening for traffic");
    }
    if let Some(address) = server.admin_address() {
        tracing::info!(%address, "listening for admins, status page at http://{address}/");
    }
    let mut hangup = signal(SignalKind::hangup())?;
    let gateway = Arc::clone(server.gateway());
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            gateway.orders.reload(None).await;
        }
    });
    let second = async {
        again.next().await;
        again.next().await;
    };
    match server.run(signals.next(), second).await? {
        Drained::All => tracing::info!("drained, ingle ends"),
        Drained::Cut(requests) => tracing::warn!(requests, "ingle ends with requests under way"),
    }
    Ok(())
}

/// SIGTERM and SIGINT: the first asks to drain, the second ends the drain.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("ingle").build()
}

/// A stream needs two descriptors; the usual soft limit of 1,024 is there for programs that use select(2).
pub(super) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

pub(super) fn eprintln(text: &str) {
    use io::Write;
    // If nobody reads standard error there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
