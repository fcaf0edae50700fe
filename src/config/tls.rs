//! TLS, as configured: files, and what is done with them.

use std::path::PathBuf;

/// How clients of a listener are met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// At least one. A client gets the first that is for the name it asks for, or else the first of all.
    pub identities: Vec<IdentityFiles>,
    /// Whose certificates clients must have; `None` asks for none.
    pub client_ca: Option<PathBuf>,
}

/// How backends with an `https://` url are met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Who must have signed their certificates; `None`: anybody that the system believes.
    pub ca: Option<PathBuf>,
    /// The name that their certificates must have, and that they are asked for; `None`: the host of the url.
    pub server_name: Option<String>,
    /// False believes anybody.
    pub verify: bool,
    /// What they are shown if they ask who connects.
    pub identity: Option<IdentityFiles>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityFiles {
    /// PEM: the certificate, and those between it and its authority after it.
    pub certificate: PathBuf,
    /// PEM: its key.
    pub key: PathBuf,
}
