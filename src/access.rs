//! Who may come in: the API keys in force, for clients and for admins, and those that backends want.
//!
//! Like certificates, key files are followed: what is new comes into force by itself, and what can't be used leaves the
//! former in force. Who holds a key keeps what was counted of him, by name. Of the keys themselves only hashes are here,
//! but for those that backends want, which nothing shows.

mod files;
mod keyring;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use pingora::protocols::Stream;

pub use keyring::{Admitted, Denied, Keyring};

use crate::config::{Config, Networks};
use crate::kept::Found;
use crate::metrics::AccessMetrics;
use crate::snapshot::Snapshot;
use files::Files;

/// Who may come in.
pub struct Access {
    /// `None` while they are looked at: a file system that hangs must not hold a reload up.
    files: Mutex<Option<Files>>,
    /// Held by who looks. A second one would take what a reload has brought meanwhile, and the first, late, would find the
    /// place empty and put the former keys back.
    looking: Mutex<()>,
    clients: ArcSwapOption<Keyring>,
    admins: ArcSwapOption<Keyring>,
    metrics: AccessMetrics,
}

/// What a config wants, ready to be put in force.
pub struct Prepared(Files);

/// Whether who connected is on a list of those who may; without a list everybody is.
#[must_use]
pub fn may_come(allow: Option<&Networks>, stream: &Stream) -> bool {
    allow.is_none_or(|allow| peer(stream).is_some_and(|peer| allow.contains(peer)))
}

/// Who connected; `None` only if the system does not know.
#[must_use]
pub fn peer(stream: &Stream) -> Option<IpAddr> {
    Some(stream.get_socket_digest()?.peer_addr()?.as_inet()?.ip().to_canonical())
}

impl Access {
    /// Reads the key files that a config names; [`Access::begin`] puts them in force.
    ///
    /// # Errors
    ///
    /// The first file that can't be used, and why.
    pub fn new(config: &Config, metrics: AccessMetrics) -> Result<Access, String> {
        let files = Files::read(config)?;
        let access = Access {
            files: Mutex::default(),
            looking: Mutex::default(),
            clients: ArcSwapOption::empty(),
            admins: ArcSwapOption::empty(),
            metrics,
        };
        access.put_keys_in_force(&files);
        *access.files.lock() = Some(files);
        Ok(access)
    }

    /// Reads the key files that another config names. Takes file access; nothing changes yet.
    ///
    /// # Errors
    ///
    /// The first file that can't be used, and why.
    pub fn prepare(config: &Config) -> Result<Prepared, String> {
        Files::read(config).map(Prepared)
    }

    /// Tells the backends' links the keys that they want.
    pub fn begin(&self, snapshot: &Snapshot) {
        if let Some(files) = &*self.files.lock() {
            files.tell(snapshot);
        }
    }

    /// Puts another config's keys in force, for all requests whose head comes from now on, and its snapshot with them.
    pub fn apply(&self, Prepared(new): Prepared, snapshot: Arc<Snapshot>, in_force: &ArcSwap<Snapshot>) {
        let mut files = self.files.lock();
        new.tell(&snapshot);
        self.put_keys_in_force(&new);
        in_force.store(snapshot);
        // What is being looked at belongs to the former config.
        *files = Some(new);
    }

    /// Looks whether files have changed, and puts what is new and good in force. Takes file access.
    pub fn refresh(&self, in_force: &ArcSwap<Snapshot>) {
        let Some(_looking) = self.looking.try_lock() else { return };
        let Some(mut files) = self.files.lock().take() else { return };
        let mut new = false;
        for found in files.look() {
            match found {
                Found::New { path } => {
                    new = true;
                    tracing::info!(file = %path.display(), "key file changed: new requests are judged by it");
                }
                Found::Bad { why, .. } => {
                    self.metrics.failed.inc();
                    tracing::error!(%why, "key file can't be used: the former keys stay");
                }
            }
        }
        let mut slot = self.files.lock();
        if slot.is_some() {
            return;
        }
        if new {
            files.tell(&in_force.load());
            self.put_keys_in_force(&files);
            self.metrics.loaded.inc();
        }
        *slot = Some(files);
    }

    /// The keys of clients; `None` asks nobody for one.
    #[must_use]
    pub fn clients(&self) -> Option<Arc<Keyring>> {
        self.clients.load_full()
    }

    /// The keys of admins; `None` asks nobody for one.
    #[must_use]
    pub fn admins(&self) -> Option<Arc<Keyring>> {
        self.admins.load_full()
    }

    fn put_keys_in_force(&self, files: &Files) {
        let clients = files.clients().map(|file| {
            let before = self.clients.load();
            Arc::new(Keyring::new(file, before.as_deref(), |name| Some(self.metrics.holder(name))))
        });
        let names = clients.as_ref().map_or_else(HashSet::new, |clients| clients.names());
        self.clients.store(clients);
        self.metrics.keep(names);
        self.admins.store(files.admins().map(|file| Arc::new(Keyring::new(file, None, |_| None))));
    }
}
