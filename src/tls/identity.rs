//! A certificate chain with its key.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use pingora::utils::tls::CertKey;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Who one is, and can prove it.
pub struct Identity {
    /// What rustls signs with.
    pub(super) certified: Arc<CertifiedKey>,
    key: PrivateKeyDer<'static>,
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
    is_authority: bool,
}

/// What is wrong with a pair of files, and with which of them. Says nothing of a key's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The file of the certificate.
    Certificate(String),
    /// The file of the key.
    Key(String),
}

impl Identity {
    /// Reads two files.
    ///
    /// # Errors
    ///
    /// What is wrong with which of them.
    pub fn read(certificate: &Path, key: &Path) -> Result<Identity, Flaw> {
        let certificate = super::read(certificate).map_err(Flaw::Certificate)?;
        let key = super::read(key).map_err(Flaw::Key)?;
        Identity::parse(&certificate, &key)
    }

    /// From the contents of two files: the chain, its own certificate first, and the key that belongs to that one.
    ///
    /// # Errors
    ///
    /// What is wrong with which of them.
    pub fn parse(certificate: &[u8], key: &[u8]) -> Result<Identity, Flaw> {
        let chain = chain(certificate).map_err(Flaw::Certificate)?;
        let key = private_key(key).map_err(Flaw::Key)?;
        let signing = any_supported_type(&key)
            .map_err(|_| Flaw::Key("holds a key of a kind that is not supported: use ECDSA, RSA or Ed25519".into()))?;
        let leaf = Leaf::parse(&chain[0]).map_err(Flaw::Certificate)?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                return Err(Flaw::Key("holds a key that does not belong to the certificate".into()));
            }
            Err(error) => return Err(Flaw::Certificate(format!("holds a certificate that cannot be used: {error}"))),
        }
        let Leaf { names, not_before, not_after, is_authority } = leaf;
        Ok(Identity { certified: Arc::new(certified), key, names, not_before, not_after, is_authority })
    }

    /// The host names that it is for, in lower case; `*.` before the rest stands for one label.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Since when it is valid: seconds since 1970.
    #[must_use]
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// Until when it is valid: seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Whether the certificate is an authority's own, which careful peers refuse as anybody's (rustls does).
    #[must_use]
    pub fn is_authority(&self) -> bool {
        self.is_authority
    }

    /// For a peer that wants to know who connects.
    #[must_use]
    pub fn for_peers(&self) -> Arc<CertKey> {
        let chain = self.certified.cert.iter().map(|certificate| certificate.to_vec()).collect();
        Arc::new(CertKey::new(chain, self.key.secret_der().to_vec()))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("names", &self.names).finish_non_exhaustive()
    }
}

/// All certificates of a PEM file, each one readable.
pub(super) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| format!("is not PEM: {error}"))?;
    if chain.is_empty() {
        return Err("holds no PEM certificate (-----BEGIN CERTIFICATE-----)".to_owned());
    }
    for (index, certificate) in chain.iter().enumerate() {
        if X509Certificate::from_der(certificate).is_err() {
            return Err(format!("is damaged: certificate {} of {} cannot be read", index + 1, chain.len()));
        }
    }
    Ok(chain)
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        let encrypted = b"ENCRYPTED";
        if pem.windows(encrypted.len()).any(|window| window == encrypted) {
            "is encrypted, and nobody is there to type the passphrase: use a key without one".to_owned()
        } else {
            "holds no PEM key (-----BEGIN PRIVATE KEY-----)".to_owned()
        }
    })
}

/// What matters of an identity's own certificate.
struct Leaf {
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
    is_authority: bool,
}

impl Leaf {
    fn parse(certificate: &CertificateDer<'_>) -> Result<Leaf, String> {
        let parsed = X509Certificate::from_der(certificate);
        let (_, parsed) = parsed.map_err(|_| "is damaged: the certificate cannot be read".to_owned())?;
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        let names = alternatives.iter().flat_map(|names| &names.value.general_names);
        Ok(Leaf {
            names: names
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                    _ => None,
                })
                .collect(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            is_authority: parsed.is_ca(),
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn parse(certificate: &str, key: &str) -> Result<Identity, Flaw> {
        Identity::parse(certificate.as_bytes(), key.as_bytes())
    }

    #[test]
    fn names_and_time_come_from_the_certificate() {
        let (certificate, key) = pair(&["LLM.test", "*.gpu.test", "10.0.0.1"]);
        let identity = parse(&certificate, &key).unwrap();
        assert_eq!(identity.names(), ["llm.test", "*.gpu.test"]);
        assert!(identity.not_before() < identity.not_after());
        // Chain and key may share a file.
        let both = format!("{key}{certificate}");
        assert_eq!(parse(&both, &both).unwrap().names().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_said_of_the_right_file() {
        let (certificate, key) = pair(&["a.test"]);
        let (_, other) = pair(&["a.test"]);
        let cut = format!("{}-----END CERTIFICATE-----\n", &certificate[..certificate.len() / 2]);
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let odd = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (certificate, key, expected) in [
            ("", &*key, "Certificate(\"holds no PEM certificate"),
            (&*key, &key, "Certificate(\"holds no PEM certificate"),
            (&cut, &key, "Certificate(\"is "),
            (&certificate, "", "Key(\"holds no PEM key"),
            (&certificate, &certificate, "Key(\"holds no PEM key"),
            (&certificate, encrypted, "Key(\"is encrypted"),
            (&certificate, odd, "Key(\"holds a key of a kind"),
            (&certificate, &other, "Key(\"holds a key that does not belong to the certificate"),
        ] {
            let flaw = format!("{:?}", parse(certificate, key).unwrap_err());
            assert!(flaw.starts_with(expected), "{flaw}");
        }
    }

    #[test]
    fn nothing_shows_the_key() {
        let (certificate, key) = pair(&["a.test"]);
        let identity = parse(&certificate, &key).unwrap();
        let shown = format!("{identity:?} {:?} {}", identity.for_peers(), identity.for_peers());
        let secret = key.lines().nth(1).unwrap();
        let bytes = format!("{:?}", identity.key.secret_der());
        assert!(!shown.contains(secret) && !shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
    }
}
