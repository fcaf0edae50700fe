//! PEM files of certificates, keys and authorities: whatever is in them, what is said of them shows nothing of a key.
//!
//! An input is the length of the certificate's file, that file, and the key's file.

use ingle::tls::Identity;

use crate::input::Input;

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let length = usize::from(input.u16());
    let (certificate, key) = (input.take(length), input.rest());
    match Identity::parse(certificate, key) {
        Ok(identity) => {
            assert!(identity.names().iter().all(|name| *name == name.to_lowercase()));
            shows_nothing(&format!("{identity:?}"), key);
            let again = Identity::parse(certificate, key).unwrap();
            assert_eq!((again.names(), again.not_after()), (identity.names(), identity.not_after()));
            // A server can be made of it.
            ingle::tls::server(&[identity.into()], None).unwrap();
        }
        Err(flaw) => shows_nothing(&format!("{flaw:?}"), key),
    }
}

/// No line of a key's file, nor a longer piece of one, is in what is said.
fn shows_nothing(said: &str, key: &[u8]) {
    for piece in key.windows(16).filter(|piece| piece.iter().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(b))) {
        let piece = std::str::from_utf8(piece).unwrap();
        assert!(!said.contains(piece), "{piece} is of the key: {said}");
    }
}
