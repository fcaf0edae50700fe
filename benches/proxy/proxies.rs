//! The proxies that are compared.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::certificate::Certificate;
use super::configs::{self, Front, Setup};
use super::process::Process;
use super::roles::{free_port, this, wait_for};

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ingle,
    /// An older ingle.
    Before,
    /// The least that a proxy on `pingora-proxy` can be: `benches/bare`.
    Bare,
    /// The same with the headers that ingle adds.
    BareHeaders,
    Nginx,
    Haproxy,
    Caddy,
}

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) process: Process,
}

impl Kind {
    pub(crate) const ALL: [Kind; 7] =
        [Kind::Ingle, Kind::Before, Kind::Bare, Kind::BareHeaders, Kind::Nginx, Kind::Haproxy, Kind::Caddy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Ingle => "ingle",
            Kind::Before => "before",
            Kind::Bare => "bare",
            Kind::BareHeaders => "bare+headers",
            Kind::Nginx => "nginx",
            Kind::Haproxy => "haproxy",
            Kind::Caddy => "caddy",
        }
    }

    pub(crate) fn named(name: &str) -> Result<Kind, String> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("unknown proxy: {name}"))
    }

    /// What the proxy reports as its version. An error means that it can't take part.
    pub(crate) fn version(self) -> Result<String, String> {
        let program = match self {
            Kind::Ingle if std::env::var_os("INGLE_BINARY").is_none() => {
                return Ok(format!("ingle {}, the library in this executable", env!("CARGO_PKG_VERSION")));
            }
            _ => self.program().ok_or("INGLE_BEFORE is not set")?,
        };
        let argument = match self {
            Kind::Ingle | Kind::Before | Kind::Bare | Kind::BareHeaders => "--version",
            Kind::Nginx | Kind::Haproxy => "-v",
            Kind::Caddy => "version",
        };
        let output = Command::new(&program).arg(argument).output();
        let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let line = text.lines().next().unwrap_or_default().trim();
        match self {
            Kind::Ingle | Kind::Before => Ok(format!("{line}, {}", program.display())),
            Kind::Nginx => Ok(line.replace("nginx version: ", "")),
            Kind::Caddy => Ok(format!("Caddy {}", line.split(' ').next().unwrap_or_default())),
            Kind::Bare | Kind::BareHeaders | Kind::Haproxy => Ok(line.to_owned()),
        }
    }

    /// The executable; none for an ingle that is not a file.
    fn program(self) -> Option<PathBuf> {
        let path = |variable: &str, default: &str| {
            Some(PathBuf::from(std::env::var_os(variable).unwrap_or_else(|| OsString::from(default))))
        };
        match self {
            Kind::Ingle => std::env::var_os("INGLE_BINARY").map(PathBuf::from),
            Kind::Before => std::env::var_os("INGLE_BEFORE").map(PathBuf::from),
            Kind::Bare | Kind::BareHeaders => {
                path("INGLE_BARE", concat!(env!("CARGO_MANIFEST_DIR"), "/target/bare/release/bare"))
            }
            Kind::Nginx => path("INGLE_NGINX", "nginx"),
            Kind::Haproxy => path("INGLE_HAPROXY", "haproxy"),
            Kind::Caddy => path("INGLE_CADDY", "caddy"),
        }
    }

    /// Starts it on a free port and waits until it listens.
    pub(crate) fn start(
        self,
        front: Front,
        backends: [u16; 2],
        dir: &Path,
        certificate: &Certificate,
    ) -> Result<Proxy, String> {
        let setup = Setup { front, port: free_port(), backends, dir, certificate };
        let process = self.launch(&setup).map_err(|error| format!("starting: {error}"))?;
        wait_for(setup.port)?;
        Ok(Proxy { port: setup.port, process })
    }

    fn launch(self, setup: &Setup<'_>) -> std::io::Result<Process> {
        let mut command = Command::new(self.program().unwrap_or_default());
        match self {
            Kind::Ingle | Kind::Before => {
                let file = setup.write("ingle.yaml", &configs::ingle(setup))?;
                if self.program().is_none() {
                    return this(&["ingle", &file.to_string_lossy()]);
                }
                command.args(["run", "--config"]).arg(file);
            }
            Kind::Bare | Kind::BareHeaders => {
                command.args([setup.port, setup.backends[0], setup.backends[1]].map(|port| port.to_string()));
                if self == Kind::BareHeaders {
                    command.arg("headers");
                }
                match setup.front {
                    Front::Http1 => {}
                    Front::Http2 => drop(command.arg("h2c")),
                    Front::Tls => {
                        command.arg("tls").arg(&setup.certificate.certificate).arg(&setup.certificate.key);
                    }
                }
            }
            Kind::Nginx => {
                let file = setup.write("nginx.conf", &configs::nginx(setup))?;
                command.args(["-g", "daemon off;", "-c"]).arg(file);
            }
            Kind::Haproxy => {
                let file = setup.write("haproxy.cfg", &configs::haproxy(setup))?;
                command.arg("-f").arg(file);
            }
            Kind::Caddy => {
                let file = setup.write("Caddyfile", &configs::caddy(setup))?;
                command.env("HOME", setup.dir).args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
            }
        }
        Process::start(&mut command)
    }
}
