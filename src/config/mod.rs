//! The config file: what an operator writes, turned into a [`Config`] that cannot be wrong.
//!
//! # Layout
//!
//! | file | noun |
//! |---|---|
//! | `mod.rs`, `pool.rs`, `overload.rs`, `tls.rs`, `access.rs` | what is meant: [`Config`] and its parts, nothing optional that has a default |
//! | `file.rs`, `file_tls.rs`, `defaults.rs` | what is written: a 1:1 mirror of the file, and every default; the JSON schema comes from here |
//! | `node.rs` | the YAML document as a tree in which every scalar knows its line and column |
//! | `keys.rs` | unknown, duplicate and valueless keys, found by comparing the tree with the schema |
//! | `lenient.rs`, `leaves.rs`, `units.rs` | values that keep their error instead of ending the parse; durations, sizes, shares, rates |
//! | `networks.rs` | ranges of addresses |
//! | `key_file.rs`, `secret.rs` | the files of API keys that it names |
//! | `convert.rs`, `convert_pool.rs`, `convert_tls.rs`, `convert_access.rs`, `check.rs`, `at.rs` | mirror to [`Config`], collecting every error with its key path |
//! | `memory.rs` | what connections and requests count against `limits.memory` |
//! | `written.rs` | [`Written`]: the file with every default, for telling what a new one changes |
//! | `errors.rs` | [`Errors`]: every mistake of a file, in file order |
//!
//! # Invariants
//!
//! - Who has a `Config` need not check it: bounds, uniqueness and names hold by construction ([`Config::parse`] is the only maker).
//! - No I/O but in [`Config::load`], which reads the file and those that it names; host names are not resolved here.
//! - A default stands in one place, `defaults.rs`; `conf/reference.yaml` and the schema are tested against it.
//!
//! # Adding a key
//!
//! A field in `file.rs`, its default in `defaults.rs`, its check in `convert*.rs`, a line in `conf/reference.yaml`, a row in
//! `golden*.rs` for each mistake one can make. The tests of `reference.rs` name what is missing.

mod access;
mod at;
mod check;
mod convert;
mod convert_access;
mod convert_pool;
mod convert_tls;
mod defaults;
mod errors;
mod file;
mod file_tls;
mod headers;
mod key_file;
mod keys;
mod leaves;
mod lenient;
pub mod memory;
mod networks;
mod node;
mod overload;
mod pool;
mod secret;
mod tls;
mod units;
mod written;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_access;
#[cfg(test)]
mod golden_pool;
#[cfg(test)]
mod golden_tls;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod reference;

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::access::Access;
use self::at::Files;
pub use self::convert_access::NO_LIMITS;
pub use self::errors::{ConfigError, Errors};
pub use self::file::schema;
pub use self::headers::BackendHeader;
pub use self::key_file::{Holder, KeyFile, holder_name};
pub use self::networks::Networks;
use self::node::Position;
pub use self::overload::{MaxInFlight, Overload};
pub use self::pool::{
    Backend, Balance, Drain, DrainSessions, HealthCheck, Hold, Origin, Pool, ProbeKind, Retry, RetryUntil, ServerKind,
    Signals, Timeouts,
};
pub use self::secret::{Digest, Secret};
pub use self::tls::{IdentityFiles, ListenerTls, UpstreamTls};
pub use self::units::{Rate, duration};
pub use self::written::Written;

/// A whole, valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients connect: 1 to 64, no two alike (port 0 aside).
    pub listeners: Vec<Listener>,
    /// The admin listener; `None` opens none. Never the address of a traffic listener.
    pub admin: Option<Admin>,
    /// How sessions are recognised and placed.
    pub affinity: Affinity,
    /// The pools: exactly one until there are routes; see [`Config::pool`].
    pub pools: Vec<Pool>,
    /// Who may send requests.
    pub access: Access,
    /// Bounds on what clients may use.
    pub limits: Limits,
    /// How a changed file comes into force.
    pub reload: Reload,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// How each request is logged.
    pub access_log: AccessLog,
    /// The file, key by key.
    pub written: Written,
    /// What is allowed and yet perhaps not meant, such as an expired certificate.
    pub warnings: Vec<ConfigError>,
}

/// One traffic listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address to bind; port 0 lets the system choose.
    pub address: SocketAddr,
    /// How clients are met; `None`: without TLS.
    pub tls: Option<ListenerTls>,
    /// Who may connect; `None`: everybody.
    pub allow: Option<Networks>,
    /// What pages of other origins get.
    pub cors: Cors,
    /// Whether the gateway answers `/livez` and `/readyz` here.
    pub answer_probes: bool,
}

/// What pages of other origins get from the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cors {
    /// Preflights pass to backends without an API key, and pages can read the gateway's own errors.
    Pass,
    /// Nothing: a preflight is a request like any other.
    Off,
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// The address to bind; port 0 lets the system choose. Not a loopback address only if there are keys.
    pub address: SocketAddr,
    /// Who may connect; `None`: everybody.
    pub allow: Option<Networks>,
    /// The file of keys; `None` asks nobody for one.
    pub keys_file: Option<PathBuf>,
}

/// How sessions are recognised and placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affinity {
    /// Request headers that may carry the session, in order of precedence: 1 to 16, no two alike.
    pub headers: Vec<SessionHeader>,
    /// The longest valid session value, in bytes: 1..=16384.
    pub max_length: usize,
    /// Mixed into the placement hash; replicas share it. May be empty.
    pub hash_seed: String,
    /// How a session's backend is chosen.
    pub policy: Policy,
    /// How many gateways with this file share the backends: 1..=1000. Each sees only its own share of the load, so
    /// [`Policy::LeastTtft`] leans on the home that all of them agree on when there are several.
    pub gateways: u32,
    /// The most sessions whose places are known, of those seen within [`Self::idle_ttl`]: 1..=10,000,000.
    pub max_sessions: usize,
    /// When a session that failed over returns to its home.
    pub return_home: ReturnHome,
    /// After this silence a session's cache is taken for cold. Never zero.
    pub idle_ttl: Duration,
    /// The most sessions remembered as being away from home: 1..=10,000,000.
    pub max_displaced: usize,
}

/// A request header that may carry the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionHeader {
    /// The name, for look-ups (case-insensitive).
    pub name: HeaderName,
    /// The name as the operator wrote it: the metric label `source`.
    pub written: String,
}

/// How a session's backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Weighted rendezvous hashing over backend names.
    ConsistentHash,
    /// Where the first token is likely to come first: by the prompt to compute there and the prompts ahead of it.
    LeastTtft,
}

/// When a session that failed over returns to its home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReturnHome {
    /// After `affinity.idle_ttl` of silence: its cache is where it last was.
    WhenIdle,
    /// With the first turn after home became available again.
    Immediately,
}

/// Bounds on what clients may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest request body, in bytes; at least 1.
    pub max_body: u64,
    /// The largest request head, in bytes: 1 KiB to 1 MiB.
    pub max_header_bytes: usize,
    /// The most requests at once on one HTTP/2 connection: 1..=1000.
    pub http2_streams: u32,
    /// Memory for bodies kept for a retry, over all requests, in bytes; 0 keeps none.
    pub memory_for_retry_bodies: usize,
    /// The most client connections at once: 1..=1,000,000.
    pub max_connections: usize,
    /// From accept to the end of the request head, and between keep-alive requests. Never zero.
    pub header_timeout: Duration,
    /// What connections, requests and held bodies may take together, in bytes as [`memory`] counts them: 1 MiB to
    /// 1 TiB; `None` is unbounded (written `0B`).
    pub memory: Option<usize>,
    /// What one client may use.
    pub per_client: PerClient,
}

/// What one client may use: an IPv4 address, or a /64 of IPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerClient {
    /// The most connections at once: 1..=1,000,000; `None` is unbounded (written `0`).
    pub max_connections: Option<u32>,
    /// How many requests may begin; `None` is unbounded (written `0/s`).
    pub requests: Option<Rate>,
}

/// How a changed file comes into force.
#[derive(Debug, Clone, PartialEq)]
pub struct Reload {
    /// Whether the file is looked at every second.
    pub watch: bool,
    /// The largest share of sessions, 0 to 1, that a reload may give another home; 1 refuses none.
    pub max_moved: f64,
}

/// How the process ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// How long the gateway says that it is not ready before it stops accepting.
    pub delay: Duration,
    /// How long running streams may finish; zero waits for none.
    pub drain_timeout: Duration,
}

/// How each request is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessLog {
    /// Not at all.
    Off,
    /// One line for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// The largest config file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

impl Config {
    /// Reads and parses a file, and the certificates and keys that it names: paths are relative to its directory.
    ///
    /// # Errors
    /// All mistakes of the file at once; a file that cannot be read, is over 4 MiB or is not UTF-8 is one error.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Errors> {
        let name = path.as_ref().display().to_string();
        let files = Files { directory: directory(path.as_ref()), read: true };
        let read = std::fs::File::open(path.as_ref()).and_then(|file| {
            let mut bytes = Vec::new();
            file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        match read {
            Err(error) => Err(Errors::whole_file(&name, format!("cannot be read: {error}"))),
            Ok(bytes) if bytes.len() as u64 > MAX_FILE => Err(Errors::whole_file(&name, "is larger than 4 MiB".into())),
            Ok(bytes) => Self::parse_bytes(&bytes, &name, files),
        }
    }

    /// Parses the text of a file; `file_name` is only for messages, and for what relative paths are relative to. Files
    /// that it names are not looked at.
    ///
    /// # Errors
    /// All mistakes of the text at once, in file order.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Errors> {
        Self::parse_with(text, file_name, Files { directory: directory(Path::new(file_name)), read: false })
    }

    fn parse_with(text: &str, file_name: &str, files: Files<'_>) -> Result<Self, Errors> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text); // what Windows editors put first
        let mut problems = Vec::new();
        let config = node::Node::parse(text)
            .map_err(|error| problems.push(error))
            .ok()
            .and_then(|root| convert::config(&root, &mut problems, files));
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(Errors::new(file_name, problems)),
        }
    }

    /// The traffic listener with this address.
    #[must_use]
    pub fn listener(&self, address: SocketAddr) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.address == address)
    }

    /// The pool that serves every request.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pools[0] // `convert` builds exactly one
    }

    fn parse_bytes(bytes: &[u8], name: &str, files: Files<'_>) -> Result<Self, Errors> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse_with(text, name, files),
            Err(error) => {
                let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let problem = ConfigError::at(Position::after(&before), "is not UTF-8 text");
                Err(Errors::new(name, vec![problem]))
            }
        }
    }
}

fn directory(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}
