//! Who is believed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use pingora::protocols::tls::CaType;
use pingora::utils::tls::{WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::identity::chain;

/// Authorities whose signature under a certificate is believed.
pub struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
}

impl Authorities {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(path: &Path) -> Result<Authorities, String> {
        Authorities::parse(&super::read(path)?)
    }

    /// From the contents of a PEM file with one certificate or many.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(pem: &[u8]) -> Result<Authorities, String> {
        let certificates = chain(pem)?;
        let mut roots = RootCertStore::empty();
        for (index, certificate) in certificates.iter().enumerate() {
            let add = roots.add(certificate.clone());
            add.map_err(|error| format!("certificate {} cannot be an authority: {error}", index + 1))?;
        }
        Ok(Authorities { certificates, roots: Arc::new(roots) })
    }

    /// Those that the system believes, without those that rustls can't use: every large collection has some.
    ///
    /// # Errors
    ///
    /// If there are none.
    pub fn system() -> Result<Authorities, String> {
        let found = rustls_native_certs::load_native_certs();
        let found = found.map_err(|error| format!("the system's authorities cannot be read: {error}"))?;
        let (mut roots, mut certificates) = (RootCertStore::empty(), Vec::new());
        for certificate in found {
            if roots.add(certificate.clone()).is_ok() {
                certificates.push(certificate);
            }
        }
        if certificates.is_empty() {
            return Err("the system has no authorities (no package ca-certificates?)".to_owned());
        }
        Ok(Authorities { certificates, roots: Arc::new(roots) })
    }

    pub(super) fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots)
    }

    /// For Pingora to verify a peer with.
    #[must_use]
    pub fn for_peers(&self) -> Arc<CaType> {
        self.certificates.iter().map(|certificate| WrappedX509::new(certificate.to_vec(), parse_x509)).collect()
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.certificates.len())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn a_bundle_is_read_whole() {
        let authority =
            || CertificateParams::new([]).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let bundle = Authorities::parse(format!("# two\n{}\n{}", authority(), authority()).as_bytes()).unwrap();
        assert_eq!((bundle.for_peers().len(), bundle.roots().len()), (2, 2));
        assert!(Authorities::parse(b"").unwrap_err().starts_with("holds no PEM certificate"));
    }
}
