//! Authorities and certificates for tests, and TLS on both sides of the gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::client::Client;

/// Signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for these names and addresses.
    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem().as_bytes()).unwrap()).unwrap();
        Arc::new(roots)
    }
}

impl Pair {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }

    /// What a server is that has this certificate, and asks its clients for one of `clients`.
    pub(crate) fn server(&self, clients: Option<&Authority>) -> Arc<ServerConfig> {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            Some(clients) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(clients.roots(), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
            None => builder.with_no_client_auth(),
        };
        Arc::new(builder.with_single_cert(vec![self.der()], self.key()).unwrap())
    }
}

/// A client's settings.
pub(crate) struct Caller {
    config: ClientConfig,
    name: ServerName<'static>,
}

impl Caller {
    /// Believes this authority, and asks for this name or address.
    pub(crate) fn new(authority: &Authority, name: &str) -> Caller {
        Caller::with(authority, name, None, rustls::DEFAULT_VERSIONS)
    }

    /// Shows a certificate of its own to who asks, and speaks only these versions.
    pub(crate) fn with(
        authority: &Authority,
        name: &str,
        own: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Caller {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(authority.roots());
        let config = match own {
            Some(own) => builder.with_client_auth_cert(vec![own.der()], own.key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        Caller { config, name: ServerName::try_from(name.to_owned()).unwrap() }
    }

    /// Offers these protocols.
    pub(crate) fn alpn(mut self, protocols: &[&str]) -> Caller {
        self.config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(Arc::new(self.config.clone())).connect(self.name.clone(), stream).await
    }

    /// A connection for HTTP/1.1.
    pub(crate) async fn client(&self, address: SocketAddr) -> Client<TlsStream<TcpStream>> {
        Client::over(self.connect(address).await.unwrap())
    }
}

/// The certificate that the other side has shown.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

/// A directory of files, which are gone when it drops.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new() -> Files {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("tls-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Files(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).unwrap();
        self.path(name)
    }

    /// Writes `NAME.pem` and `NAME.key`, as a certificate manager does: each at once, one after the other. Returns the
    /// keys of a config that name them.
    pub(crate) fn pair(&self, name: &str, pair: &Pair) -> String {
        for (end, text) in [("pem", &pair.certificate), ("key", &pair.key)] {
            let new = self.write(&format!("{name}.{end}.new"), text);
            std::fs::rename(new, self.0.join(format!("{name}.{end}"))).unwrap();
        }
        format!("certificate: {:?}, key: {:?}", self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// TLS in front of a backend that has none.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    /// Handshakes that went well.
    met: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Front {
    pub(crate) async fn start(config: Arc<ServerConfig>, backend: SocketAddr) -> Front {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (config, met) = (Arc::new(Mutex::new(config)), Arc::new(AtomicUsize::new(0)));
        let (current, count) = (Arc::clone(&config), Arc::clone(&met));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(Arc::clone(&current.lock()));
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    count.fetch_add(1, Ordering::Relaxed);
                    let mut backend = TcpStream::connect(backend).await.unwrap();
                    let _ = copy_bidirectional(&mut stream, &mut backend).await;
                });
            }
        });
        Front { address, config, met, task }
    }

    /// From now on it shows another certificate.
    pub(crate) fn become_another(&self, config: Arc<ServerConfig>) {
        *self.config.lock() = config;
    }

    pub(crate) fn met(&self) -> usize {
        self.met.load(Ordering::Relaxed)
    }

    pub(crate) fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.address.port())
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}
