//! The key files, and what was last good in each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderValue;

use crate::config::{Config, KeyFile, NO_LIMITS, Secret};
use crate::kept::{Found, Kept};
use crate::snapshot::Snapshot;
use crate::tls;

/// The key files that a config names.
pub(super) struct Files {
    clients: Option<(PathBuf, Kept<KeyFile>)>,
    admins: Option<(PathBuf, Kept<KeyFile>)>,
    /// What backends want, as the value of `Authorization`.
    backends: BTreeMap<PathBuf, Kept<HeaderValue>>,
}

impl Files {
    /// Reads all of them.
    pub(super) fn read(config: &Config) -> Result<Files, String> {
        let keys = |path: Option<&PathBuf>, parse: Parse<KeyFile>| {
            let kept = |path: &PathBuf| Ok::<_, String>((path.clone(), kept(path, parse)?));
            path.map(kept).transpose()
        };
        let wanted = config.pool().backends.iter().filter_map(|backend| backend.api_key_file.as_ref());
        Ok(Files {
            clients: keys(config.access.keys_file.as_ref(), parse_keys)?,
            admins: keys(config.admin.as_ref().and_then(|admin| admin.keys_file.as_ref()), parse_admins)?,
            backends: wanted
                .map(|path| Ok((path.clone(), kept(path, parse_secret)?)))
                .collect::<Result<_, String>>()?,
        })
    }

    pub(super) fn clients(&self) -> Option<&KeyFile> {
        self.clients.as_ref().map(|(_, kept)| &*kept.good)
    }

    pub(super) fn admins(&self) -> Option<&KeyFile> {
        self.admins.as_ref().map(|(_, kept)| &*kept.good)
    }

    /// Looks at all of them again.
    pub(super) fn look(&mut self) -> Vec<Found> {
        let of = |keys: &mut Option<(PathBuf, Kept<KeyFile>)>, parse| {
            keys.as_mut().and_then(|(path, kept)| look(path, kept, parse))
        };
        let found = [of(&mut self.clients, parse_keys), of(&mut self.admins, parse_admins)];
        let mut found: Vec<Found> = found.into_iter().flatten().collect();
        found.extend(self.backends.iter_mut().filter_map(|(path, kept)| look(path, kept, parse_secret)));
        found
    }

    /// Tells each backend's link what the backend wants.
    pub(super) fn tell(&self, snapshot: &Snapshot) {
        for (link, backend) in snapshot.links.iter().zip(&snapshot.config.pool().backends) {
            let wanted = backend.api_key_file.as_ref().and_then(|path| self.backends.get(path));
            link.authorization.store(wanted.map(|kept| Arc::clone(&kept.good)));
        }
    }
}

type Parse<T> = fn(&Path, &[u8]) -> Result<T, String>;

fn kept<T>(path: &Path, parse: Parse<T>) -> Result<Kept<T>, String> {
    let contents = contents(path)?;
    Ok(Kept::new(parse(path, &contents)?, &contents))
}

fn look<T>(path: &Path, kept: &mut Kept<T>, parse: Parse<T>) -> Option<Found> {
    kept.look(path, contents(path), |contents| parse(path, contents))
}

fn contents(path: &Path) -> Result<Vec<u8>, String> {
    tls::read(path).map_err(|why| told(path, &why))
}

fn parse_keys(path: &Path, contents: &[u8]) -> Result<KeyFile, String> {
    KeyFile::parse(contents).map_err(|flaws| told(path, &flaws.join("; ")))
}

fn parse_admins(path: &Path, contents: &[u8]) -> Result<KeyFile, String> {
    let file = parse_keys(path, contents)?;
    if file.has_limits() { Err(told(path, NO_LIMITS)) } else { Ok(file) }
}

fn parse_secret(path: &Path, contents: &[u8]) -> Result<HeaderValue, String> {
    let secret = Secret::parse(contents).map_err(|why| told(path, &why))?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", secret.reveal()))
        .map_err(|_| told(path, "can't be a header's value"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn told(path: &Path, why: &str) -> String {
    format!("{} {why}", path.display())
}
