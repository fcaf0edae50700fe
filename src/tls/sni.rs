//! Which of several identities a client gets: by the name it asks for (SNI, RFC 6066, section 3).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Identity;

type Candidates = Vec<Arc<CertifiedKey>>;

/// Identities by name. Several may have one name: an ECDSA and an RSA certificate for old clients, say.
pub(super) struct ByName {
    /// `a.test`, and `*.test` with its star.
    names: HashMap<String, Candidates>,
    /// Who asks for no name, or for one that nobody has.
    first: Candidates,
}

impl ByName {
    /// `None` if there are none. Earlier ones win.
    pub(super) fn new(identities: &[Arc<Identity>]) -> Option<ByName> {
        let first = vec![Arc::clone(&identities.first()?.certified)];
        let mut names: HashMap<String, Candidates> = HashMap::new();
        for identity in identities {
            for name in identity.names() {
                names.entry(name.clone()).or_default().push(Arc::clone(&identity.certified));
            }
        }
        Some(ByName { names, first })
    }

    /// An exact name before a wildcard, which stands for one label (RFC 6125, section 6.4.3), before the first of all.
    fn candidates(&self, name: Option<&str>) -> &Candidates {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard = || self.names.get(&format!("*.{}", name.split_once('.')?.1));
            self.names.get(&name).or_else(wildcard)
        });
        found.unwrap_or(&self.first)
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let candidates = self.candidates(name);
        let usable = candidates.iter().find(|one| one.key.choose_scheme(schemes).is_some());
        usable.or(candidates.first()).map(Arc::clone)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};

    use super::*;

    fn identity(names: &[&str], algorithm: &'static SignatureAlgorithm) -> Arc<Identity> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Arc::new(Identity::parse(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap())
    }

    #[test]
    fn exact_before_wildcard_before_the_first() {
        let all = [&["first.test"][..], &["*.gpu.test"], &["a.gpu.test", "b.test"]]
            .map(|names| identity(names, &PKCS_ECDSA_P256_SHA256));
        let by_name = ByName::new(&all).unwrap();
        for (name, expected) in [
            (None, 0),
            (Some("first.test"), 0),
            (Some("unknown.test"), 0),
            (Some("b.gpu.test"), 1),
            (Some("B.GPU.test"), 1),
            (Some("x.b.gpu.test"), 0),
            (Some("gpu.test"), 0),
            (Some("a.gpu.test"), 2),
            (Some("b.test"), 2),
        ] {
            let chosen = by_name.choose(name, &[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
            assert!(Arc::ptr_eq(&chosen, &all[expected].certified), "{name:?}");
        }
        assert!(ByName::new(&[]).is_none());
    }

    #[test]
    fn of_two_with_one_name_the_client_gets_the_one_that_it_understands() {
        let all = [identity(&["a.test"], &PKCS_ED25519), identity(&["a.test"], &PKCS_ECDSA_P256_SHA256)];
        let by_name = ByName::new(&all).unwrap();
        let chosen = |schemes: &[SignatureScheme]| by_name.choose(Some("a.test"), schemes).unwrap();
        let both = [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519];
        assert!(Arc::ptr_eq(&chosen(&both), &all[0].certified));
        assert!(Arc::ptr_eq(&chosen(&both[..1]), &all[1].certified));
    }
}
