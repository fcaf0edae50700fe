//! Files that are followed: what was last good in each.
//!
//! A file is compared by its contents, so whatever way it was replaced is noticed, links of Kubernetes' secrets included.
//! What can't be used leaves the former in force, and is told once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

/// What was last good in a file.
pub struct Kept<T> {
    /// What it meant.
    pub good: Arc<T>,
    /// A hash of the contents that are good.
    contents: u128,
    /// A hash of contents that are not, and whether that was told.
    bad: Option<(u128, bool)>,
}

/// What a look at a file found.
pub enum Found {
    /// Other contents, and good ones.
    New {
        /// The file.
        path: PathBuf,
    },
    /// Contents that can't be used, for the second time: files that are being replaced are bad for a moment, too.
    Bad {
        /// The file.
        path: PathBuf,
        /// Without any of the contents.
        why: String,
    },
}

/// What is compared: the bytes of a file, or of two that belong together.
pub trait Contents {
    /// All of it.
    fn pieces(&self) -> [&[u8]; 2];
}

impl<T> Kept<T> {
    /// What the contents of a file mean.
    #[must_use]
    pub fn new(good: T, contents: &impl Contents) -> Kept<T> {
        Kept { good: Arc::new(good), contents: hash(contents), bad: None }
    }

    /// Takes in what was read from the file just now.
    pub fn look<C: Contents>(
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
                *self = Kept { good: Arc::new(good), contents: seen, bad: None };
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
        let mut kept = Kept::new("one".to_owned(), &b"one".to_vec());
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
