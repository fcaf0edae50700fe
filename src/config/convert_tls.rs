//! From what is written to what is meant: TLS. Where the config is a file, the files that it names are read, too.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::ServerName;

use super::at::At;
use super::file::{CertificateSection, ListenerTlsSection, UpstreamTlsSection};
use super::lenient::{Lenient, quote_text};
use super::node::Step;
use super::{Backend, IdentityFiles, ListenerTls, UpstreamTls};
use crate::tls::{Authorities, Flaw, Identity};

/// Handshakes look names up in a table: this bounds the memory and the time of a reload alone.
const MOST_CERTIFICATES: usize = 1024;

/// `Some(None)` where the listener has no TLS.
pub(super) fn listener(file: Lenient<ListenerTlsSection>, at: &mut At<'_>) -> Option<Option<ListenerTls>> {
    if file.is_absent() {
        return Some(None);
    }
    at.section("tls", file, |file, at| {
        let first = identity(file.certificate, file.key, at);
        let more = match file.certificates.is_absent() {
            true => Some(Vec::new()),
            false => at
                .list("certificates", file.certificates, MOST_CERTIFICATES, |file, at| further(file, at))
                .and_then(|all| all.into_iter().collect::<Option<Vec<_>>>()),
        };
        let client_ca = authorities("client_ca", file.client_ca, at);
        let identities: Vec<IdentityFiles> = first?.into_iter().chain(more?).collect();
        if identities.is_empty() {
            return at.note("needs a `certificate` and its `key`");
        }
        Some(Some(ListenerTls { identities, client_ca: client_ca? }))
    })
}

/// How backends are met over TLS.
pub(super) fn upstream(file: UpstreamTlsSection, at: &mut At<'_>) -> Option<UpstreamTls> {
    let ca = authorities("ca", file.ca, at);
    let server_name = at.optional("server_name", file.server_name, server_name);
    let verify = at.key("verify", file.verify, Ok);
    let identity = identity(file.certificate, file.key, at);
    if verify == Some(false) {
        let step = [Step::Key("verify".into())];
        if matches!(ca, Some(Some(_))) {
            at.error(&step, "is off, but there is a `ca` to verify with: remove one of them".into());
        } else {
            at.warn(&step, "is off: anybody on the way can read and change what is said to https:// backends".into());
        }
    }
    Some(UpstreamTls { ca: ca?, server_name: server_name?, verify: verify?, identity: identity? })
}

/// What only pool and backends together can tell: without a `ca`, the system must believe somebody.
pub(super) fn has_authorities(tls: &UpstreamTls, backends: &[Backend], at: &mut At<'_>) {
    let needed = tls.verify && tls.ca.is_none() && backends.iter().any(|backend| backend.origin.tls);
    if needed
        && at.reads_files()
        && let Err(message) = Authorities::system()
    {
        at.error(&[Step::Key("upstream_tls".into())], format!("needs a `ca`: {message}"));
    }
}

fn further(file: CertificateSection, at: &mut At<'_>) -> Option<IdentityFiles> {
    match identity(file.certificate, file.key, at)? {
        Some(identity) => Some(identity),
        None => at.note("needs a `certificate` and its `key`"),
    }
}

/// A certificate and its key, both or none of them: `Some(None)`.
fn identity(certificate: Lenient<String>, key: Lenient<String>, at: &mut At<'_>) -> Option<Option<IdentityFiles>> {
    let certificate = at.path_to("certificate", certificate);
    let key = at.path_to("key", key);
    let files = match (certificate?, key?) {
        (Some(certificate), Some(key)) => IdentityFiles { certificate, key },
        (None, None) => return Some(None),
        (Some(_), None) => return at.note("has a `certificate` without its `key`"),
        (None, Some(_)) => return at.note("has a `key` without its `certificate`"),
    };
    if at.reads_files() {
        match Identity::read(&files.certificate, &files.key) {
            Ok(identity) => doubts(&identity, at),
            Err(Flaw::Certificate(flaw)) => return named("certificate", &files.certificate, &flaw, at),
            Err(Flaw::Key(flaw)) => return named("key", &files.key, &flaw, at),
        }
    }
    Some(Some(files))
}

/// Out of its time, it may still be what an operator has while the next one is on its way: peers decide.
fn doubts(identity: &Identity, at: &mut At<'_>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(0));
    let step = [Step::Key("certificate".into())];
    if now > identity.not_after() {
        at.warn(&step, format!("expired {} days ago", (now - identity.not_after()) / 86_400));
    } else if now < identity.not_before() {
        at.warn(&step, "is not valid yet".into());
    }
    if identity.is_authority() {
        at.warn(
            &step,
            "is an authority's own: careful peers refuse it; make one with basicConstraints=critical,CA:FALSE".into(),
        );
    }
}

fn authorities(name: &str, value: Lenient<String>, at: &mut At<'_>) -> Option<Option<PathBuf>> {
    let path = at.path_to(name, value)?;
    match &path {
        Some(file) if at.reads_files() => match Authorities::read(file) {
            Ok(_) => Some(path),
            Err(flaw) => named(name, file, &flaw, at),
        },
        _ => Some(path),
    }
}

fn named<U>(key: &str, path: &std::path::Path, flaw: &str, at: &mut At<'_>) -> Option<U> {
    at.error(&[Step::Key(key.to_owned())], format!("{} {flaw}", quote_text(&path.display().to_string())));
    None
}

fn server_name(text: String) -> Result<String, String> {
    match ServerName::try_from(text.as_str()) {
        Ok(_) => Ok(text),
        Err(_) => Err(format!("{} is not a host name or an IP address", quote_text(&text))),
    }
}
