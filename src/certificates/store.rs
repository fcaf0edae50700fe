//! The files, and what was last good in each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::Wanted;
use crate::config::IdentityFiles;
use crate::tls::{self, Authorities, Flaw, Identity};

/// What was last good in the files that a config names.
pub(super) struct Store {
    identities: BTreeMap<IdentityFiles, Kept<Identity>>,
    authorities: BTreeMap<PathBuf, Kept<Authorities>>,
}

/// What a look at the files found.
pub(super) enum Found {
    /// Other contents, and good ones.
    New {
        /// The certificate's file.
        path: PathBuf,
    },
    /// Contents that can't be used, for the second time: files that are being replaced are bad for a moment, too.
    Bad {
        /// Whose file.
        path: PathBuf,
        /// Without any of the contents.
        why: String,
    },
}

struct Kept<T> {
    good: Arc<T>,
    /// A hash of the contents that are good.
    contents: u128,
    /// A hash of contents that are not, and whether that was told.
    bad: Option<(u128, bool)>,
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
        self.identities.insert(files.clone(), Kept::new(identity, hash(&contents)));
        Ok(())
    }

    fn add_authorities(&mut self, path: &Path) -> Result<(), String> {
        let contents = tls::read(path).map_err(|why| format!("{} {why}", text(path)))?;
        let authorities = Authorities::parse(&contents).map_err(|why| format!("{} {why}", text(path)))?;
        self.authorities.insert(path.to_owned(), Kept::new(authorities, hash(&contents)));
        Ok(())
    }
}

impl<T> Kept<T> {
    fn new(good: T, contents: u128) -> Kept<T> {
        Kept { good: Arc::new(good), contents, bad: None }
    }

    fn look<C: Contents>(
        &mut self,
        path: &Path,
        contents: Result<C, String>,
        parse: impl FnOnce(&C) -> Result<T, String>,
    ) -> Option<Found> {
        let (seen, parsed) = match contents {
            Ok(contents) if hash(&contents) == self.contents => {
                self.bad = None;
                return None;
            }
            Ok(contents) => (hash(&contents), parse(&contents)),
            Err(why) => (hash(&why.clone().into_bytes()), Err(why)),
        };
        match parsed {
            Ok(good) => {
                *self = Kept::new(good, seen);
                Some(Found::New { path: path.to_owned() })
            }
            Err(why) => {
                let tell = self.bad == Some((seen, false));
                if tell || self.bad.is_none_or(|(before, _)| before != seen) {
                    self.bad = Some((seen, tell));
                }
                tell.then(|| Found::Bad { path: path.to_owned(), why })
            }
        }
    }
}

/// The bytes of one file, or of a certificate and its key.
trait Contents {
    fn pieces(&self) -> [&[u8]; 2];
}

impl Contents for Vec<u8> {
    fn pieces(&self) -> [&[u8]; 2] {
        [self, &[]]
    }
}

impl Contents for (Vec<u8>, Vec<u8>) {
    fn pieces(&self) -> [&[u8]; 2] {
        [&self.0, &self.1]
    }
}

/// Instead of the contents themselves: keys stay nowhere but where they are used.
fn hash(contents: &impl Contents) -> u128 {
    let mut hash = Xxh3::new();
    for piece in contents.pieces() {
        hash.update(&piece.len().to_le_bytes());
        hash.update(piece);
    }
    hash.digest128()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn look(kept: &mut Kept<String>, contents: &str) -> Option<Result<(), String>> {
        let parse = |bytes: &Vec<u8>| match String::from_utf8(bytes.clone()) {
            Ok(text) if !text.starts_with("bad") => Ok(text),
            _ => Err("is bad".to_owned()),
        };
        let found = kept.look(Path::new("f"), Ok(contents.as_bytes().to_vec()), parse)?;
        Some(match found {
            Found::New { .. } => Ok(()),
            Found::Bad { why, .. } => Err(why),
        })
    }

    #[test]
    fn what_is_bad_is_told_once_and_only_if_it_stays() {
        let mut kept = Kept::new("one".to_owned(), hash(&b"one".to_vec()));
        assert_eq!(look(&mut kept, "one"), None, "the same");
        assert_eq!(look(&mut kept, "bad"), None, "perhaps half written");
        assert_eq!(look(&mut kept, "two"), Some(Ok(())), "it was");
        assert_eq!(*kept.good, "two");
        assert_eq!(look(&mut kept, "bad"), None);
        assert_eq!(look(&mut kept, "bad"), Some(Err("is bad".to_owned())));
        assert_eq!(look(&mut kept, "bad"), None, "told");
        assert_eq!(*kept.good, "two", "the former stays");
        assert_eq!(look(&mut kept, "bad in another way"), None);
        assert_eq!(look(&mut kept, "bad in another way"), Some(Err("is bad".to_owned())));
        assert_eq!(look(&mut kept, "two"), None, "back again");
        assert_eq!(look(&mut kept, "bad"), None);
        assert_eq!(look(&mut kept, "bad"), Some(Err("is bad".to_owned())));
    }
}
