//! What a client sent becomes a session key.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::hash::Seed;

/// A session, as far as selection knows it: a 64-bit hash of the client's id.
///
/// The id itself is a secret of the user. It is not kept, so no table, log or page can show it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(u64);

/// Why a value is no session id. Such a request is served as one without a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

impl SessionKey {
    /// The key of a session id as a client sent it.
    ///
    /// Blanks around the id do not count. `None` if nothing is left: an empty value is as if absent.
    ///
    /// # Errors
    ///
    /// [`Invalid`] if the id is longer than `max_length` bytes or has anything but visible ASCII and inner spaces.
    pub fn parse(value: &[u8], max_length: usize, seed: Seed) -> Result<Option<SessionKey>, Invalid> {
        let id = value.trim_ascii();
        if id.is_empty() {
            return Ok(None);
        }
        if id.len() > max_length || !id.iter().all(|b| matches!(b, b' '..=b'~')) {
            return Err(Invalid);
        }
        Ok(Some(SessionKey(xxh3_64_with_seed(id, seed.get()))))
    }

    /// The session of a request, and which of the headers that may carry one had it: the first of them, in order of
    /// precedence, that is present and not empty. `headers` has all values that the request has of each. `None` if
    /// there is no session.
    ///
    /// # Errors
    ///
    /// [`Invalid`] if that header's value is none, or it has several that differ: a shared fallback would put strangers
    /// on one backend, and the next header's turn it is not.
    pub fn find<'a, V: Iterator<Item = &'a [u8]>>(
        headers: impl Iterator<Item = V>,
        max_length: usize,
        seed: Seed,
    ) -> Result<Option<(usize, SessionKey)>, Invalid> {
        for (index, values) in headers.enumerate() {
            let mut found = None;
            for value in values {
                match (found, SessionKey::parse(value, max_length, seed)?) {
                    (Some(one), Some(other)) if one != other => return Err(Invalid),
                    (_, Some(key)) => found = Some(key),
                    (_, None) => {}
                }
            }
            if let Some(key) = found {
                return Ok(Some((index, key)));
            }
        }
        Ok(None)
    }

    /// A key from its 64 bits, for tests and simulations.
    #[must_use]
    pub fn from_bits(bits: u64) -> SessionKey {
        SessionKey(bits)
    }

    /// The 64 bits that [`hash`](super::hash) mixes with a backend's name.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionKey({self})")
    }
}

/// How a session appears in logs: 12 hexadecimal digits, from which nobody gets the id back, and which with a
/// `hash_seed` nobody can test a guess against either.
impl std::fmt::Display for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:012x}", self.0 >> 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &[u8]) -> Result<Option<SessionKey>, Invalid> {
        SessionKey::parse(value, 16, Seed::new(""))
    }

    #[test]
    fn empty_and_blank_values_are_no_session() {
        for value in [&b""[..], b" ", b"\t  "] {
            assert_eq!(parse(value), Ok(None));
        }
    }

    #[test]
    fn blanks_around_an_id_do_not_count() {
        assert_eq!(parse(b"  chat 7\t"), parse(b"chat 7"));
        assert_ne!(parse(b"chat 7"), parse(b"chat7"));
    }

    #[test]
    fn control_bytes_non_ascii_and_long_ids_are_invalid() {
        for value in [&b"a\0b"[..], b"a\tb", "caf\u{e9}".as_bytes(), b"\xff", b"\x7f", b"seventeen-bytes-x"] {
            assert_eq!(parse(value), Err(Invalid), "{value:?}");
        }
        assert!(parse(b"sixteen-bytes-xx").is_ok_and(|key| key.is_some()));
    }

    #[test]
    fn a_log_line_shows_neither_the_id_nor_the_whole_hash() {
        let key = SessionKey::from_bits(0x1234_5678_9abc_def0);
        assert_eq!(key.to_string(), "123456789abc");
        assert_eq!(format!("{key:?}"), "SessionKey(123456789abc)");
    }
}
