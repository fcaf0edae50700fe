//! Chunk extensions (RFC 9112, section 7.1.1).

use super::Malformed;
use super::fields::is_token;

/// How far the extensions of a chunk have come. No recipient uses them, but strict ones refuse those that break the
/// grammar. Whitespace, which the grammar calls bad, is refused as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Extension {
    /// After a semicolon.
    #[default]
    Start,
    Name,
    /// After the equals sign.
    Equals,
    Value,
    Quoted,
    /// After a backslash within quotes.
    Escaped,
    /// After the closing quote.
    QuoteEnd,
}

impl Extension {
    /// Whether the line can end here.
    pub(super) fn can_end(self) -> bool {
        matches!(self, Extension::Name | Extension::Value | Extension::QuoteEnd)
    }

    /// Takes the next byte.
    pub(super) fn next(self, byte: u8) -> Result<Extension, Malformed> {
        Ok(match (self, byte) {
            (Extension::Start | Extension::Name, _) if is_token(byte) => Extension::Name,
            (Extension::Equals | Extension::Value, _) if is_token(byte) => Extension::Value,
            (Extension::Name, b'=') => Extension::Equals,
            (Extension::Equals, b'"') => Extension::Quoted,
            (Extension::Quoted, b'"') => Extension::QuoteEnd,
            (Extension::Quoted, b'\\') => Extension::Escaped,
            (Extension::Quoted | Extension::Escaped, b'\t' | b' '..=b'~' | 0x80..) => Extension::Quoted,
            (_, b';') if self.can_end() => Extension::Start,
            _ => return Err(Malformed("invalid chunk extension")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_valid(extensions: &str) -> bool {
        let mut bytes = extensions.bytes();
        bytes.try_fold(Extension::default(), Extension::next).is_ok_and(Extension::can_end)
    }

    #[test]
    fn grammar_is_that_of_the_rfc_without_whitespace() {
        for good in ["a", "a=b", "a;b=c;d", "a=\"\"", "a=\"b;\\\"c\\\\\"", "a=\"\t\u{e9}\";b", "!#=~"] {
            assert!(is_valid(good), "{good:?}");
        }
        for bad in ["", ";", "a;", "=b", "a=", "a=b=c", "a=\"", "a=\"b\"c", "a=\"\\", "a=\"\x7f\"", " a", "a =b", "a\r"]
        {
            assert!(!is_valid(bad), "{bad:?}");
        }
    }
}
