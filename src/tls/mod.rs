//! Certificates and keys: from PEM files to what rustls takes. Knows nothing of listeners, backends or the config file.
//!
//! | file | noun |
//! |---|---|
//! | `identity.rs` | [`Identity`]: a certificate chain with its key; its names, its time |
//! | `authorities.rs` | [`Authorities`]: who is believed |
//! | `sni.rs` | which of several identities a client gets, by the name it asks for |
//!
//! The cryptography is ring's: besides a C compiler it needs nothing to build (aws-lc-rs wants CMake, and more on musl),
//! and Pingora has it already, so that there is one in the process and not two.
//!
//! Key bytes leave this module for rustls and Pingora alone; nothing here shows them in `Debug` or an error.

mod authorities;
mod identity;
mod sni;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;

pub use authorities::Authorities;
pub use identity::{Flaw, Identity};
use sni::ByName;

/// How clients are met: TLS 1.3 and 1.2 with the cipher suites that rustls finds safe, HTTP/2 before HTTP/1.1.
///
/// Each call has its own memory of sessions to resume: who comes back after a change shakes hands anew, so a resumed
/// session can't outlive the certificate or the authorities that it was made with.
///
/// # Errors
///
/// If there is no identity, or no client could pass.
pub fn server(identities: &[Arc<Identity>], clients: Option<&Authorities>) -> Result<ServerConfig, String> {
    let names = ByName::new(identities).ok_or("there is no certificate")?;
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = match clients {
        Some(authorities) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(authorities.roots(), provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| error.to_string())?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(names));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Reads a file of certificates or keys.
///
/// # Errors
///
/// In words, without the file's name.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let read = File::open(path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    match read {
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(bytes) if bytes.len() as u64 > MAX_FILE => Err("is larger than 4 MiB".to_owned()),
        Ok(bytes) => Ok(bytes),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// More than any bundle of authorities has.
const MAX_FILE: u64 = 4 << 20;
