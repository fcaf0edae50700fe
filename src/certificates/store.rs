//! The files, and what was last good in each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Wanted;
use crate::config::IdentityFiles;
use crate::kept::{Found, Kept};
use crate::tls::{self, Authorities, Flaw, Identity};

/// What was last good in the files that a config names.
pub(super) struct Store {
    identities: BTreeMap<IdentityFiles, Kept<Identity>>,
    authorities: BTreeMap<PathBuf, Kept<Authorities>>,
}

impl Store {
    /// Reads all that is wanted.
    pub(super) fn read(wanted: &Wanted) -> Result<Store, String> {
        let mut store = Store { identities: BTreeMap::new(), authorities: BTreeMap::new() };
        for (_, listener) in &wanted.listeners {
            listener.identities.iter().try_for_each(|files| store.add_identity(files))?;
            listener.client_ca.iter().try_for_each(|path| store.add_authorities(path))?;
        }
        if let Some(upstream) = &wanted.upstream {
            upstream.identity.iter().try_for_each(|files| store.add_identity(files))?;
            upstream.ca.iter().try_for_each(|path| store.add_authorities(path))?;
        }
        Ok(store)
    }

    pub(super) fn identity(&self, files: &IdentityFiles) -> Option<Arc<Identity>> {
        self.identities.get(files).map(|kept| Arc::clone(&kept.good))
    }

    pub(super) fn authorities(&self, path: &Path) -> Option<Arc<Authorities>> {
        self.authorities.get(path).map(|kept| Arc::clone(&kept.good))
    }

    /// Until when each certificate is valid, by its file.
    pub(super) fn ends(&self) -> Vec<(String, i64)> {
        let end = |(files, kept): (&IdentityFiles, &Kept<Identity>)| (text(&files.certificate), kept.good.not_after());
        self.identities.iter().map(end).collect()
    }

    /// Looks at all files again.
    pub(super) fn refresh(&mut self) -> Vec<Found> {
        let mut found = Vec::new();
        for (files, kept) in &mut self.identities {
            found.extend(kept.look(&files.certificate, contents_of(files), |(certificate, key)| {
                Identity::parse(certificate, key).map_err(|flaw| told(files, flaw))
            }));
        }
        for (path, kept) in &mut self.authorities {
            let contents = tls::read(path).map_err(|why| format!("{} {why}", text(path)));
            let parse = |pem: &Vec<u8>| Authorities::parse(pem).map_err(|why| format!("{} {why}", text(path)));
            found.extend(kept.look(path, contents, parse));
        }
        found
    }

    fn add_identity(&mut self, files: &IdentityFiles) -> Result<(), String> {
        let contents = contents_of(files)?;
        let identity = Identity::parse(&contents.0, &contents.1).map_err(|flaw| told(files, flaw))?;
        self.identities.insert(files.clone(), Kept::new(identity, &contents));
        Ok(())
    }

    fn add_authorities(&mut self, path: &Path) -> Result<(), String> {
        let contents = tls::read(path).map_err(|why| format!("{} {why}", text(path)))?;
        let authorities = Authorities::parse(&contents).map_err(|why| format!("{} {why}", text(path)))?;
        self.authorities.insert(path.to_owned(), Kept::new(authorities, &contents));
        Ok(())
    }
}

fn contents_of(files: &IdentityFiles) -> Result<(Vec<u8>, Vec<u8>), String> {
    let certificate = tls::read(&files.certificate).map_err(|why| told(files, Flaw::Certificate(why)))?;
    let key = tls::read(&files.key).map_err(|why| told(files, Flaw::Key(why)))?;
    Ok((certificate, key))
}

fn told(files: &IdentityFiles, flaw: Flaw) -> String {
    match flaw {
        Flaw::Certificate(why) => format!("{} {why}", text(&files.certificate)),
        Flaw::Key(why) => format!("{} {why}", text(&files.key)),
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
