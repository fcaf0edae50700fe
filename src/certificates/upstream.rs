//! How backends are met over TLS.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use pingora::connectors::ConnectorOptions;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};

use super::store::Store;
use crate::config::UpstreamTls;
use crate::tls::Authorities;

/// How backends are met over TLS.
pub(super) struct Upstream {
    authorities: Arc<CaType>,
    identity: Option<Arc<CertKey>>,
    server_name: Option<String>,
    verify: bool,
}

impl Upstream {
    pub(super) fn new(wanted: &UpstreamTls, store: &Store) -> Result<Upstream, String> {
        let authorities = match &wanted.ca {
            _ if !wanted.verify => NOBODY.clone(),
            Some(path) => store.authorities(path).ok_or("there is no ca")?.for_peers(),
            None => Authorities::system()?.for_peers(),
        };
        let identity = wanted.identity.as_ref().and_then(|files| store.identity(files));
        Ok(Upstream {
            authorities,
            identity: identity.map(|identity| identity.for_peers()),
            server_name: wanted.server_name.clone(),
            verify: wanted.verify,
        })
    }

    /// Without a name Pingora would verify nothing, so an address is a name as well: rustls looks for it in the
    /// certificate, and does not send it.
    pub(super) fn peer(&self, address: SocketAddr, host: &str) -> HttpPeer {
        let name = self.server_name.as_deref().unwrap_or(host);
        let mut peer = HttpPeer::new(address, true, name.to_owned());
        peer.client_cert_key.clone_from(&self.identity);
        peer.options.ca = Some(Arc::clone(&self.authorities));
        peer.options.verify_cert = self.verify;
        peer.options.verify_hostname = self.verify;
        peer
    }
}

/// For whatever connects to backends. Every peer over TLS brings its authorities, so Pingora need not look for the
/// system's: it would do so for each connector, of which every probe has one, and panic on a certificate that it can't
/// use.
#[must_use]
pub fn connector_options() -> ConnectorOptions {
    let mut options = ConnectorOptions::new(1);
    options.ca_file = Some(NO_AUTHORITIES.to_owned());
    options
}

/// A file without authorities.
const NO_AUTHORITIES: &str = "/dev/null";

/// An authority whose key nobody has: rustls wants one even where nothing is verified.
static NOBODY: LazyLock<Arc<CaType>> =
    LazyLock::new(|| Arc::new([WrappedX509::new(include_bytes!("nobody.der").to_vec(), parse_x509)]));
