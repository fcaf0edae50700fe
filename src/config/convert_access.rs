//! From what is written to what is meant: who may come. Where the config is a file, the files of keys are read, too.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::at::At;
use super::check::address;
use super::file::{AccessSection, AdminSection};
use super::key_file::KeyFile;
use super::lenient::{Lenient, quote_text};
use super::networks::networks;
use super::node::Step;
use super::secret::Secret;
use super::{Access, Admin, Backend, Listener};

/// Who may send requests.
pub(super) fn access(file: AccessSection, at: &mut At<'_>) -> Option<Access> {
    let keys_file = key_file("keys_file", file.keys_file, at);
    let trusted_proxies = match file.trusted_proxies {
        Lenient::Good(list) if list.is_empty() => Some(None),
        list => networks("trusted_proxies", list, at),
    };
    Some(Access { keys_file: keys_file?, trusted_proxies: trusted_proxies?.unwrap_or_default() })
}

/// `Some(None)` where the file has no admin listener.
pub(super) fn admin(file: Lenient<AdminSection>, at: &mut At<'_>) -> Option<Option<Admin>> {
    if file.is_absent() {
        return Some(None);
    }
    at.section("admin", file, |file, at| {
        let address = at.key("address", file.address, address);
        let allow = networks("allow", file.allow, at);
        let keys_file = key_file("keys_file", file.keys_file, at);
        if let Some(Some(path)) = &keys_file
            && at.reads_files()
            && KeyFile::read(path).is_ok_and(|file| file.has_limits())
        {
            flawed("keys_file", path, NO_LIMITS, at);
        }
        if let (Some(address), Some(None)) = (&address, &keys_file) {
            private(*address, at);
        }
        Some(Some(Admin { address: address?, allow: allow?, keys_file: keys_file? }))
    })
}

/// What is wrong with a file of admins' keys that has limits.
pub const NO_LIMITS: &str =
    "has limits (`requests=`, `in_flight=`, `weight=`), which keys of the admin listener can't have";

/// Whoever reaches it can drain backends and read every figure.
fn private(address: SocketAddr, at: &mut At<'_>) {
    if !address.ip().to_canonical().is_loopback() {
        let message = format!(
            "`{address}` can be reached from other machines: give `admin` a `keys_file` (`ingle key NAME` makes a key), or listen on 127.0.0.1"
        );
        at.error(&[Step::Key("address".into())], message);
    }
}

/// The key that a backend wants.
pub(super) fn api_key_file(value: Lenient<String>, at: &mut At<'_>) -> Option<Option<PathBuf>> {
    let path = at.path_to("api_key_file", value)?;
    match &path {
        Some(file) if at.reads_files() => match Secret::read(file) {
            Ok(_) => Some(path),
            Err(flaw) => {
                flawed("api_key_file", file, &flaw, at);
                None
            }
        },
        _ => Some(path),
    }
}

/// What only both together can tell: keys that anybody on the way can read.
pub(super) fn in_the_clear(access: &Access, listeners: &[Listener], at: &mut At<'_>) {
    let open = |listener: &Listener| listener.tls.is_none() && !listener.address.ip().to_canonical().is_loopback();
    if access.keys_file.is_some()
        && access.trusted_proxies.is_empty()
        && let Some(index) = listeners.iter().position(open)
    {
        let step = [Step::Key("access".into()), Step::Key("keys_file".into())];
        let message =
            format!("listeners[{index}] has no `tls`: anybody on the way can read the keys that clients show");
        at.warn(&step, message);
    }
}

/// The same of a backend's own key; told of the first.
pub(super) fn sent_in_the_clear(backends: &[Backend], at: &mut At<'_>) {
    let is_near = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let open =
        |backend: &Backend| backend.api_key_file.is_some() && !backend.origin.tls && !is_near(&backend.origin.host);
    if let Some(index) = backends.iter().position(open) {
        let step = [Step::Key("backends".into()), Step::Index(index), Step::Key("api_key_file".into())];
        at.warn(&step, "goes to an http:// backend: anybody on the way can read the key".into());
    }
}

fn key_file(name: &str, value: Lenient<String>, at: &mut At<'_>) -> Option<Option<PathBuf>> {
    let path = at.path_to(name, value)?;
    match &path {
        Some(file) if at.reads_files() => match KeyFile::read(file) {
            Ok(_) => Some(path),
            Err(flaws) => {
                flaws.iter().for_each(|flaw| flawed(name, file, flaw, at));
                None
            }
        },
        _ => Some(path),
    }
}

fn flawed(key: &str, path: &Path, flaw: &str, at: &mut At<'_>) {
    at.error(&[Step::Key(key.to_owned())], format!("{} {flaw}", quote_text(&path.display().to_string())));
}
