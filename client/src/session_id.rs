use std::fmt;
use std::str::FromStr;

use http::HeaderValue;

/// The id of one conversation, as it goes over the wire.
///
/// It has 1 to [`SessionId::MAX_LEN`] bytes of visible ASCII, with spaces only inside: exactly what the gateway takes
/// for a session. What would be a session to you and none to the gateway is an error here instead of a cold cache there.
///
/// Cloning is cheap. `Debug` never shows the id, and neither does the `Debug` of a request that carries it (the
/// header value is marked sensitive): ids often hold names of people or tickets. `Display` is how to ask for it.
///
/// ```
/// use ingle_client::SessionId;
///
/// let id = SessionId::new("C99999/1708531200.000100")?;
/// assert_eq!(id.as_str(), "C99999/1708531200.000100");
/// assert_eq!(format!("{id:?}"), "SessionId(24 bytes)");
/// # Ok::<_, ingle_client::InvalidSessionId>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(HeaderValue);

/// Why a text is no session id. Offsets and lengths are bytes of the text without the blanks around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidSessionId {
    /// Nothing is left without the blanks around it. To send no session, set none.
    Empty,
    /// Longer than [`SessionId::MAX_LEN`] bytes.
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A byte that is neither visible ASCII nor a space.
    BadByte {
        /// Offset of the first such byte.
        at: usize,
        /// The byte.
        byte: u8,
    },
}

impl SessionId {
    /// The longest id in bytes: the gateway's default for `affinity.max_length`.
    pub const MAX_LEN: usize = 256;

    /// An id from a text; blanks around it do not count.
    ///
    /// # Errors
    ///
    /// [`InvalidSessionId`] if the gateway would not take it for a session. Ids that hold other characters, or more
    /// than the wire should see, can go through `SessionId::hashed`.
    pub fn new(text: impl AsRef<str>) -> Result<SessionId, InvalidSessionId> {
        let id = text.as_ref().trim_ascii();
        if id.is_empty() {
            return Err(InvalidSessionId::Empty);
        }
        if id.len() > Self::MAX_LEN {
            return Err(InvalidSessionId::TooLong { len: id.len() });
        }
        if let Some((at, byte)) = id.bytes().enumerate().find(|(_, b)| !is_allowed(*b)) {
            return Err(InvalidSessionId::BadByte { at, byte });
        }
        Ok(SessionId::from_allowed(id))
    }

    /// The id of any bytes: their SHA-256 as 64 lower-case hexadecimal digits.
    ///
    /// For ids in other scripts, longer ids, and ids that should not be readable on the way. The hash is part of this
    /// crate's contract: the same bytes give the same id in every version, process and language
    /// (`printf %s TEXT | sha256sum`), so a conversation keeps its place when clients are mixed. Nothing is trimmed.
    ///
    /// A hash hides, it does not make anonymous: who can guess the text can check the guess. Where that matters, use
    /// a random id for each conversation.
    ///
    /// ```
    /// let id = ingle_client::SessionId::hashed("überraschung@example.org");
    /// assert_eq!(id.as_str(), "63235619ea91ff91e00afa605ce0d2776c3bcf03ba2c76b9bc07fa0192974ec7");
    /// ```
    #[cfg(feature = "hash")]
    #[must_use]
    pub fn hashed(bytes: impl AsRef<[u8]>) -> SessionId {
        use sha2::{Digest, Sha256};
        use std::fmt::Write;

        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(bytes.as_ref()) {
            let _ = write!(hex, "{byte:02x}"); // a String takes everything
        }
        SessionId::from_allowed(&hex)
    }

    /// The id of a part of this conversation with a context of its own, such as a sub-agent: `parent/name`.
    ///
    /// A sub-agent shares little of its parent's prompt. With an id of its own it gets a home of its own, and ten of
    /// them do not queue up on one GPU.
    ///
    /// # Errors
    ///
    /// [`InvalidSessionId`] if `name` is no session id (offsets are of `name`), or both together are too long.
    pub fn child(&self, name: impl AsRef<str>) -> Result<SessionId, InvalidSessionId> {
        let name = SessionId::new(name)?;
        SessionId::new(format!("{self}/{name}"))
    }

    /// The id as text.
    #[must_use]
    #[expect(clippy::expect_used, reason = "every constructor goes through from_allowed")]
    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("visible ASCII")
    }

    /// The id as a header value, marked as sensitive.
    #[must_use]
    pub fn as_header_value(&self) -> &HeaderValue {
        &self.0
    }

    #[expect(clippy::expect_used, reason = "callers have checked or made every byte")]
    fn from_allowed(id: &str) -> SessionId {
        let mut value = HeaderValue::from_str(id).expect("visible ASCII");
        value.set_sensitive(true);
        SessionId(value)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({} bytes)", self.0.len())
    }
}

impl FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(text: &str) -> Result<SessionId, InvalidSessionId> {
        SessionId::new(text)
    }
}

impl TryFrom<&str> for SessionId {
    type Error = InvalidSessionId;

    fn try_from(text: &str) -> Result<SessionId, InvalidSessionId> {
        SessionId::new(text)
    }
}

impl TryFrom<String> for SessionId {
    type Error = InvalidSessionId;

    fn try_from(text: String) -> Result<SessionId, InvalidSessionId> {
        SessionId::new(text)
    }
}

impl From<SessionId> for HeaderValue {
    fn from(id: SessionId) -> HeaderValue {
        id.0
    }
}

impl fmt::Display for InvalidSessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidSessionId::Empty => write!(f, "the session id is empty"),
            InvalidSessionId::TooLong { len } => {
                write!(f, "the session id has {len} bytes, {} are allowed", SessionId::MAX_LEN)
            }
            InvalidSessionId::BadByte { at, byte } => {
                write!(f, "byte {at} of the session id is 0x{byte:02x}; visible ASCII and spaces are allowed")
            }
        }
    }
}

impl std::error::Error for InvalidSessionId {}

fn is_allowed(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blanks_around_an_id_do_not_count() {
        assert_eq!(SessionId::new(" \tchat 7\r\n").unwrap().as_str(), "chat 7");
    }

    #[test]
    fn empty_and_blank_texts_are_errors() {
        for text in ["", " ", "\t \n"] {
            assert_eq!(SessionId::new(text), Err(InvalidSessionId::Empty), "{text:?}");
        }
    }

    #[test]
    fn the_longest_id_has_256_bytes_without_its_blanks() {
        assert!(SessionId::new(format!(" {} ", "x".repeat(256))).is_ok());
        assert_eq!(SessionId::new("x".repeat(257)), Err(InvalidSessionId::TooLong { len: 257 }));
    }

    #[test]
    fn other_bytes_are_named_with_their_place() {
        for (text, at, byte) in [("a\0", 1, 0), (" a\tb", 1, b'\t'), ("a\r\nX: y", 1, b'\r'), ("\x7f", 0, 0x7f)] {
            assert_eq!(SessionId::new(text), Err(InvalidSessionId::BadByte { at, byte }), "{text:?}");
        }
        let error = SessionId::new("café").unwrap_err();
        assert_eq!(error.to_string(), "byte 3 of the session id is 0xc3; visible ASCII and spaces are allowed");
    }

    #[test]
    fn a_child_is_named_under_its_parent() {
        let parent = SessionId::new("chat-7").unwrap();
        assert_eq!(parent.child(" agent-3").unwrap().as_str(), "chat-7/agent-3");
        assert_eq!(parent.child(""), Err(InvalidSessionId::Empty));
        assert_eq!(parent.child("x".repeat(250)), Err(InvalidSessionId::TooLong { len: 257 }));
    }

    #[test]
    fn debug_never_shows_the_id() {
        let id = SessionId::new("patient-4711").unwrap();
        let mut headers = http::HeaderMap::new();
        headers.insert("x-session-id", id.as_header_value().clone());
        for shown in [format!("{id:?}"), format!("{:?}", Some(&id)), format!("{headers:?}")] {
            assert!(!shown.contains("4711"), "{shown}");
        }
    }

    #[test]
    fn conversions_validate_and_display_gives_the_id_back() {
        let id: SessionId = "chat 7 ".parse().unwrap();
        assert_eq!(SessionId::try_from("chat 7"), Ok(id.clone()));
        assert_eq!(SessionId::try_from(String::from("chat 7")), Ok(id.clone()));
        assert_eq!(id.to_string(), "chat 7");
        assert_eq!(HeaderValue::from(id), "chat 7");
        assert!("".parse::<SessionId>().is_err());
    }

    /// The vectors of FIPS 180-2: a changed hash would move every conversation.
    #[cfg(feature = "hash")]
    #[test]
    fn hashed_is_sha_256() {
        assert_eq!(
            SessionId::hashed("abc").as_str(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(SessionId::hashed("").as_str(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_what_the_gateway_accepts(text in "[ -~\\t\\u{0}-\\u{ff}]{0,300}") {
            let trimmed = text.trim_ascii();
            let accepted = (1..=256).contains(&trimmed.len()) && trimmed.bytes().all(|b| (0x20..0x7f).contains(&b));
            let id = SessionId::new(&text);
            prop_assert_eq!(id.is_ok(), accepted);
            if let Ok(id) = id {
                prop_assert_eq!(id.as_str(), trimmed);
                prop_assert_eq!(SessionId::new(id.as_str()).unwrap(), id);
            }
        }
    }
}
