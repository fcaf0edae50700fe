//! Who may come, as configured.

use std::path::PathBuf;

use super::networks::Networks;

/// Who may send requests, and whose word is taken for who they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The file of API keys; `None` asks nobody for a key.
    pub keys_file: Option<PathBuf>,
    /// The proxies in front whose `X-Forwarded-*` headers are believed; usually nobody.
    pub trusted_proxies: Networks,
}
