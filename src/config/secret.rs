//! Secrets that stand in files of their own.

use std::fmt;
use std::path::Path;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use crate::tls;

/// A secret that the gateway itself needs. Nothing shows it.
#[derive(Clone)]
pub struct Secret(String);

/// More than any service gives out, in bytes.
const LONGEST: usize = 4096;

impl Secret {
    /// Reads a file that holds the secret and nothing else; blanks and line ends around it don't count.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, without any of its contents: it can't be read, is empty, or holds something else
    /// than one word of at most 4 KiB of visible ASCII.
    pub fn read(path: &Path) -> Result<Secret, String> {
        Secret::parse(&tls::read(path)?)
    }

    /// Takes the contents of such a file.
    ///
    /// # Errors
    ///
    /// As [`Secret::read`].
    pub fn parse(contents: &[u8]) -> Result<Secret, String> {
        match contents.trim_ascii() {
            [] => Err("is empty".into()),
            word if word.len() > LONGEST => Err(format!("is longer than {LONGEST} bytes")),
            word if word.iter().all(u8::is_ascii_graphic) => Ok(Secret(String::from_utf8_lossy(word).into_owned())),
            _ => Err("holds something else than one word of visible ASCII".into()),
        }
    }

    /// The secret.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The SHA-256 of a secret that others have. Comparing takes the same time wherever two differ, so how long it took
/// tells nobody how much of a guess was right.
///
/// A plain hash will do for keys that are random. For passwords, which people think up, it would be too fast.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of a secret.
    #[must_use]
    pub fn of(secret: &[u8]) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, secret).as_ref());
        Digest(bytes)
    }

    /// Reads 64 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Digest> {
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
        }
        Some(Digest(bytes))
    }

    /// As it is written in a file.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Digest) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

impl std::hash::Hash for Digest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_sha256sum() {
        let digest = Digest::of(b"abc");
        // FIPS 180-4, the example of one block.
        assert_eq!(digest.to_hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Digest::parse(&digest.to_hex().to_uppercase()), Some(digest));
        assert_ne!(Digest::of(b"abd"), digest);
        for wrong in ["", "ba78", &"g".repeat(64), &"0".repeat(66), &"é".repeat(32)] {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_secret_is_one_word_and_shown_nowhere() {
        let file = std::env::temp_dir().join(format!("ingle-secret-{}", std::process::id()));
        let read = |contents: &[u8]| {
            std::fs::write(&file, contents).unwrap();
            Secret::read(&file)
        };
        let secret = read(b" sk-top-secret\r\n").unwrap();
        assert_eq!(secret.reveal(), "sk-top-secret");
        assert_eq!(format!("{secret:?}"), "Secret");
        for wrong in [&b""[..], b"\n", b"sk-two words", b"sk-two\nlines", "sk-\u{e9}".as_bytes(), b"sk-\xff"] {
            let said = read(wrong).unwrap_err();
            assert!(!said.contains("sk-"), "{said}");
        }
        assert_eq!(read(&[b'a'; 4097]).unwrap_err(), "is longer than 4096 bytes");
        std::fs::remove_file(&file).unwrap();
        assert!(Secret::read(&file).unwrap_err().starts_with("cannot be read: No such file"));
    }
}
