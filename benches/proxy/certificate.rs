//! The certificate of the TLS workload: self-signed, for 127.0.0.1, made for each run.

use std::io::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The files that proxies read, and the client that trusts them.
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file, for HAProxy.
    pub(crate) both: PathBuf,
    connector: TlsConnector,
}

impl Certificate {
    /// Writes a new certificate into a directory.
    pub(crate) fn create(dir: &Path) -> std::io::Result<Certificate> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).map_err(Error::other)?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).map(|()| path)
        };
        Ok(Certificate {
            connector: connector(certificate.as_bytes())?,
            both: file("both.pem", &format!("{certificate}{key}"))?,
            certificate: file("certificate.pem", &certificate)?,
            key: file("key.pem", &key)?,
        })
    }

    /// Does the handshake of a client.
    pub(crate) async fn connect(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.connector.connect(ServerName::try_from(NAME).map_err(Error::other)?, stream).await
    }
}

fn connector(certificate: &[u8]) -> std::io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate).map_err(Error::other)?).map_err(Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

const NAME: &str = "127.0.0.1";
