//! A new config comes into force, or does not.

use std::path::Path;

use tokio::task::spawn_blocking;

use super::{Running, systemd};
use crate::config::Config;
use crate::gateway::{Gateway, Prepared};
use crate::metrics::Metrics;
use crate::reload::{Outcome, Report};
use crate::snapshot::Snapshot;

impl Running {
    /// Reads the config file again. Either all of what it says is in force afterwards, or nothing has changed.
    pub(super) async fn reload(&mut self, max_moved: Option<f64>) -> Outcome {
        systemd::reloading();
        let outcome = match &mut self.file {
            Some(file) => {
                file.handled();
                let path = file.path().to_owned();
                self.reload_from(&path, max_moved).await
            }
            None => Outcome::Failed("it was started without a file".to_owned()),
        };
        let reloads = &self.gateway.metrics.reloads;
        match &outcome {
            Outcome::Done(report) => {
                reloads.ok.inc();
                tracing::info!("config reloaded: {report}");
            }
            failed => {
                reloads.error.inc();
                tracing::error!("config not reloaded, the old one stays in force: {failed}");
            }
        }
        systemd::ready();
        outcome
    }

    /// Whether the config says that the file is to be looked at, and it has changed.
    pub(super) async fn has_new_file(&mut self) -> bool {
        if !self.gateway.snapshot.load().config.reload.watch {
            return false;
        }
        let Some(mut file) = self.file.take() else { return false };
        // A file system that hangs must hold nobody up but this.
        let looked = spawn_blocking(move || {
            let new = file.look();
            (file, new)
        });
        match looked.await {
            Ok((file, new)) => {
                self.file = Some(file);
                new
            }
            Err(_) => false,
        }
    }

    async fn reload_from(&mut self, path: &Path, max_moved: Option<f64>) -> Outcome {
        let (config, report, prepared) = match read(&self.gateway, path).await {
            Ok(read) => read,
            Err(failed) => return *failed,
        };
        let max_moved = max_moved.unwrap_or(self.gateway.snapshot.load().config.reload.max_moved);
        if report.sessions.share > max_moved {
            return Outcome::Refused { report, max_moved };
        }
        let new = match self.listeners.bind_new(&config) {
            Ok(new) => new,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        if config.access.keys_file.is_none() && self.gateway.access.clients().is_some() {
            tracing::warn!("access.keys_file is gone from the config: from now on nobody is asked for a key");
        }
        self.gateway.reload(config.clone(), prepared);
        self.probes.follow();
        self.pollers.follow();
        match self.listeners.apply(&config, new) {
            Ok(()) => Outcome::Done(report),
            Err(error) => Outcome::Failed(format!("in force, but for a listener: {error}")),
        }
    }
}

/// Reads a file, and finds out what it would change.
async fn read(gateway: &Gateway, path: &Path) -> Result<(Config, Box<Report>, Prepared), Box<Outcome>> {
    let (path, current) = (path.to_owned(), gateway.snapshot.load_full());
    let read = spawn_blocking(move || {
        let config = Config::load(path).map_err(|errors| Box::new(Outcome::Invalid(errors)))?;
        // For comparing only: what comes into force keeps the state of what is.
        let metrics = Metrics::new().map_err(failed)?;
        let new = Snapshot::new(config, &metrics);
        let report = Box::new(Report::new(&current, &new));
        let prepared = Prepared::read(&new.config).map_err(failed)?;
        Ok((new.config, report, prepared))
    });
    read.await.unwrap_or_else(|error| Err(failed(error)))
}

fn failed(error: impl ToString) -> Box<Outcome> {
    Box::new(Outcome::Failed(error.to_string()))
}
