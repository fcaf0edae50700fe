//! The certificates in force: those that clients see, and what backends are met with.
//!
//! | file | noun |
//! |---|---|
//! | `mod.rs` | [`Certificates`]: what new connections get; swapped whole by a reload or when files change |
//! | `store.rs` | the files, and what was last good in each |
//! | `upstream.rs` | how backends are met |
//!
//! A connection keeps what it began with. What can't be used leaves the former in force, and is logged once.

mod store;
mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::listeners::tls::Acceptor;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

pub use upstream::connector_options;

use crate::config::{Config, ListenerTls, Origin, UpstreamTls};
use crate::kept::Found;
use crate::metrics::CertificateMetrics;
use crate::tls;
use store::Store;
use upstream::Upstream;

/// The certificates in force.
pub struct Certificates {
    /// `None` while files are looked at: a file system that hangs must not hold a reload up.
    state: Mutex<Option<State>>,
    /// Held by who looks: there is one at a time, so what was looked at for long never takes a reload's place.
    looking: Mutex<()>,
    in_force: ArcSwap<InForce>,
    /// How often `in_force` was replaced, from 1.
    generation: AtomicU64,
    metrics: CertificateMetrics,
}

/// What a config wants, ready to be put in force.
pub struct Prepared {
    state: State,
    in_force: InForce,
}

/// How clients of a listener are met.
pub enum Meeting {
    /// Without TLS.
    Plain,
    /// With this.
    Tls(Arc<Acceptor>),
}

struct State {
    wanted: Wanted,
    store: Store,
}

/// What a config says of TLS.
struct Wanted {
    /// Of all listeners.
    addresses: Vec<SocketAddr>,
    /// Of those with TLS.
    listeners: Vec<(SocketAddr, ListenerTls)>,
    /// `None` if no backend is met over TLS.
    upstream: Option<UpstreamTls>,
}

struct InForce {
    /// Of all listeners of the config.
    addresses: Vec<SocketAddr>,
    listeners: Vec<(SocketAddr, Arc<Acceptor>)>,
    upstream: Option<Upstream>,
}

impl Certificates {
    /// Reads what a config names.
    ///
    /// # Errors
    ///
    /// The first file that can't be used, and why.
    pub fn new(config: &Config, metrics: CertificateMetrics) -> Result<Certificates, String> {
        let Prepared { state, in_force } = State::prepare(config)?;
        metrics.set(&state.store.ends());
        Ok(Certificates {
            state: Mutex::new(Some(state)),
            looking: Mutex::default(),
            in_force: ArcSwap::from_pointee(in_force),
            generation: AtomicU64::new(1),
            metrics,
        })
    }

    /// Reads what another config names. Takes file access; nothing changes yet.
    ///
    /// # Errors
    ///
    /// The first file that can't be used, and why.
    pub fn prepare(config: &Config) -> Result<Prepared, String> {
        State::prepare(config)
    }

    /// Puts another config's certificates in force, for all connections that begin from now on.
    ///
    /// A listener that is gone goes on with what it had: it may accept a last connection, which must not come to think
    /// that there never was TLS.
    pub fn apply(&self, mut prepared: Prepared) {
        let mut state = self.state.lock();
        let former = self.in_force.load();
        let gone = |(address, _): &&(SocketAddr, _)| {
            !prepared.state.wanted.addresses.contains(address) && former.addresses.contains(address)
        };
        let last: Vec<_> = former.listeners.iter().filter(gone).cloned().collect();
        prepared.in_force.listeners.extend(last);
        self.replace(prepared.in_force);
        self.metrics.set(&prepared.state.store.ends());
        // What is being looked at belongs to the former config.
        *state = Some(prepared.state);
    }

    /// Looks whether files have changed, and puts what is new and good in force. Takes file access.
    pub fn refresh(&self) {
        let Some(_looking) = self.looking.try_lock() else { return };
        let Some(mut state) = self.state.lock().take() else { return };
        let mut new = false;
        for found in state.store.refresh() {
            match found {
                Found::New { path } => {
                    new = true;
                    tracing::info!(file = %path.display(), "certificate file changed: new connections get it");
                }
                Found::Bad { path, why } => {
                    self.metrics.failed.inc();
                    tracing::error!(file = %path.display(), %why, "certificate file can't be used: the former stays");
                }
            }
        }
        let mut slot = self.state.lock();
        if slot.is_some() {
            return;
        }
        if new {
            self.renew(&state);
        }
        *slot = Some(state);
    }

    fn renew(&self, state: &State) {
        match state.build() {
            Ok(in_force) => {
                self.replace(in_force);
                self.metrics.loaded.inc();
                self.metrics.set(&state.store.ends());
            }
            Err(why) => {
                self.metrics.failed.inc();
                tracing::error!(%why, "certificates can't be used: the former stay");
            }
        }
    }

    fn replace(&self, in_force: InForce) {
        self.in_force.store(Arc::new(in_force));
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Which TLS settings connections to this origin are made with now; 0 without TLS. Connections of another generation
    /// are not used again.
    #[must_use]
    pub fn generation(&self, origin: &Origin) -> u64 {
        if origin.tls { self.generation.load(Ordering::Relaxed) } else { 0 }
    }

    /// How clients are met that came to a listener, which is known by its address in the config.
    #[must_use]
    pub fn meeting(&self, listener: SocketAddr) -> Meeting {
        let in_force = self.in_force.load();
        let found = in_force.listeners.iter().find(|(address, _)| *address == listener);
        found.map_or(Meeting::Plain, |(_, acceptor)| Meeting::Tls(Arc::clone(acceptor)))
    }

    /// A backend as Pingora wants it told. The address of one with a Unix socket does not count.
    ///
    /// # Errors
    ///
    /// If it wants TLS of which the config in force knows nothing: a request that began before a reload may be so late.
    pub fn peer(&self, address: SocketAddr, origin: &Origin) -> pingora::Result<HttpPeer> {
        if let Some(path) = &origin.socket {
            return HttpPeer::new_uds(&path.to_string_lossy(), false, String::new());
        }
        if !origin.tls {
            return Ok(HttpPeer::new(address, false, String::new()));
        }
        match &self.in_force.load().upstream {
            Some(upstream) => Ok(upstream.peer(address, &origin.host)),
            None => Error::e_explain(ErrorType::InvalidCert, "the config in force has no https:// backend"),
        }
    }
}

impl State {
    fn prepare(config: &Config) -> Result<Prepared, String> {
        let wanted = Wanted::of(config);
        let state = State { store: Store::read(&wanted)?, wanted };
        Ok(Prepared { in_force: state.build()?, state })
    }

    fn build(&self) -> Result<InForce, String> {
        let listener = |(address, wanted): &(SocketAddr, ListenerTls)| {
            let identities: Vec<_> = wanted.identities.iter().filter_map(|files| self.store.identity(files)).collect();
            // Without this, an authority that is not there would mean that anybody may come.
            let clients = match &wanted.client_ca {
                Some(path) => Some(self.store.authorities(path).ok_or("there is no client_ca")?),
                None => None,
            };
            let server = tls::server(&identities, clients.as_deref())?;
            Ok::<_, String>((*address, Arc::new(Acceptor::from_server_config(Arc::new(server)))))
        };
        let listeners = self.wanted.listeners.iter().map(listener).collect::<Result<_, _>>()?;
        let upstream = self.wanted.upstream.as_ref().map(|wanted| Upstream::new(wanted, &self.store)).transpose()?;
        Ok(InForce { addresses: self.wanted.addresses.clone(), listeners, upstream })
    }
}

impl Wanted {
    fn of(config: &Config) -> Wanted {
        let listeners = config.listeners.iter();
        let pool = config.pool();
        Wanted {
            addresses: config.listeners.iter().map(|listener| listener.address).collect(),
            listeners: listeners.filter_map(|listener| Some((listener.address, listener.tls.clone()?))).collect(),
            upstream: pool.backends.iter().any(|backend| backend.origin.tls).then(|| pool.upstream_tls.clone()),
        }
    }
}
