//! `ingle run`: config, listeners, signals.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::INVALID;
use crate::config::Config;
use crate::gateway::Gateway;
use crate::server::{Drained, Inherited, Server};

pub(super) fn run(path: &Path) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            // An upgrade shares standard error with the process that serves, and it can be a pipe that is not read.
            crate::log::stderr().push(format!("{errors}\n").as_bytes());
            return ExitCode::from(INVALID);
        }
    };
    let served = Inherited::from_environment().and_then(|inherited| {
        let runtime = runtime()?;
        let served = runtime.block_on(serve(path, config, inherited));
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

async fn serve(path: &Path, config: Config, inherited: Inherited) -> io::Result<()> {
    raise_file_limit();
    // Before anything says that the gateway is there: unhandled, each of them ends the process.
    let (mut signals, mut again) = (Signals::new()?, Signals::new()?);
    let (hangup, replace) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined2())?);
    let server = Server::inherit(config, inherited)?.from_file(path);
    for address in server.addresses()? {
        tracing::info!(%address, "listening for traffic");
    }
    if let Some(address) = server.admin_address() {
        tracing::info!(%address, "listening for admins, status page at http://{address}/");
    }
    tokio::spawn(pass_on(hangup, replace, Arc::clone(server.gateway())));
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

/// SIGHUP reloads, SIGUSR2 upgrades.
async fn pass_on(mut hangup: Signal, mut replace: Signal, gateway: Arc<Gateway>) {
    loop {
        tokio::select! {
            Some(()) = hangup.recv() => drop(gateway.orders.reload(None).await),
            Some(()) = replace.recv() => gateway.orders.upgrade().await,
            else => return,
        }
    }
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
