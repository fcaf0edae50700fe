//! The config file: whether there is something new in it.

use std::fs::{File, Metadata};
use std::hash::Hasher;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use xxhash_rust::xxh3::Xxh3;

/// A file that is looked at again and again.
///
/// An editor may write it in pieces, so what is new counts only once it has stayed the same from one look to the next.
pub(super) struct Watched {
    path: PathBuf,
    /// Of the content that was read last by whoever uses the file.
    handled: Option<u64>,
    /// Of content that was new at the last look.
    new: Option<u64>,
    stamp: Option<Stamp>,
}

#[derive(Clone, Copy, PartialEq)]
struct Stamp {
    changed: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Watched {
    /// What stands in the file now is not new.
    pub(super) fn new(path: &Path) -> Watched {
        let mut watched = Watched { path: path.to_owned(), handled: None, new: None, stamp: None };
        watched.handled();
        watched
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Somebody reads the file: what stands in it now is not new any more.
    pub(super) fn handled(&mut self) {
        self.handled = content(&self.path);
        self.new = None;
    }

    /// Looks at the file. True, once, for each new content. A file that can't be read is not new: it is being replaced.
    pub(super) fn look(&mut self) -> bool {
        let stamp = std::fs::metadata(&self.path).ok().as_ref().map(Stamp::of);
        if self.new.is_none() && stamp == self.stamp {
            return false;
        }
        self.stamp = stamp;
        let content = content(&self.path);
        if content.is_none() || content == self.handled {
            self.new = None;
            return false;
        }
        if self.new != content {
            self.new = content;
            return false;
        }
        self.handled = content;
        self.new = None;
        true
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp { changed: metadata.modified().ok(), len: metadata.len(), inode: metadata.ino() }
    }
}

/// A hash of what stands in the file; `None` if it can't be read.
fn content(path: &Path) -> Option<u64> {
    let mut file = File::open(path).ok()?.take(MOST);
    let mut hash = Xxh3::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        match file.read(&mut piece).ok()? {
            0 => return Some(hash.finish()),
            n => hash.write(&piece[..n]),
        }
    }
}

/// More than a config file may have.
const MOST: u64 = 5 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(name: &str) -> (PathBuf, Watched) {
        let path = std::env::temp_dir().join(format!("ingle-watched-{name}-{}", std::process::id()));
        std::fs::write(&path, "one").unwrap();
        let watched = Watched::new(&path);
        (path, watched)
    }

    #[test]
    fn new_content_counts_once_it_has_stayed_the_same() {
        let (path, mut watched) = watched("new");
        assert!(!watched.look() && !watched.look(), "it was there at the start");
        std::fs::write(&path, "tw").unwrap();
        assert!(!watched.look(), "may be half of it");
        std::fs::write(&path, "two").unwrap();
        assert!(!watched.look(), "it was half of it");
        assert!(watched.look());
        assert!(!watched.look() && !watched.look(), "once");
        std::fs::remove_file(&path).unwrap();
        assert!(!watched.look() && !watched.look(), "being replaced");
        std::fs::write(&path, "three").unwrap();
        assert!(!watched.look() && watched.look());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_somebody_else_has_read_is_not_new() {
        let (path, mut watched) = watched("handled");
        std::fs::write(&path, "two").unwrap();
        assert!(!watched.look());
        watched.handled();
        assert!(!watched.look() && !watched.look());
        std::fs::remove_file(&path).unwrap();
    }
}
