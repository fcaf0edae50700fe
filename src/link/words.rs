//! What failed, in the words of an operator: no names of a library's errors, and the setting that set a limit.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use pingora::{Error, ErrorType};

use crate::config;

/// How long something can take, and which setting says so.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// How long.
    pub time: Duration,
    /// The key of the config.
    pub setting: &'static str,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", config::duration(self.time), self.setting)
    }
}

/// The kind of an error when a host name has no address.
pub const UNRESOLVED: ErrorType = ErrorType::Custom("name not resolved");

/// What failed on the way to a backend, or with its answer.
#[must_use]
pub fn describe(error: &Error, limit: Limit) -> String {
    let with_cause = |what: &str| match cause(error) {
        Some(why) => format!("{what}: {why}"),
        None => what.to_owned(),
    };
    match error.etype() {
        kind if *kind == UNRESOLVED => with_cause("the name cannot be resolved"),
        ErrorType::ConnectTimedout => format!("no connection within {limit}"),
        ErrorType::ConnectRefused => "connection refused".to_owned(),
        ErrorType::ConnectNoRoute => "there is no route to its address".to_owned(),
        ErrorType::TLSHandshakeTimedout => format!("no TLS handshake within {limit}"),
        ErrorType::TLSHandshakeFailure | ErrorType::HandshakeError | ErrorType::InvalidCert => tls(error)
            .map_or_else(|| "the TLS handshake failed".to_owned(), |why| format!("the TLS handshake failed: {why}")),
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => format!("no answer within {limit}"),
        ErrorType::ConnectionClosed => "it closed the connection without an answer".to_owned(),
        ErrorType::ReadError | ErrorType::WriteError => with_cause("the connection broke"),
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::H2Error | ErrorType::InvalidH2 => {
            "its answer is not HTTP".to_owned()
        }
        ErrorType::CustomCode(_, status) | ErrorType::HTTPStatus(status) => format!("status {status}"),
        _ => with_cause("the connection failed"),
    }
}

/// What the system says of an error: `Connection reset by peer`.
#[must_use]
pub fn of_system(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
    text.split(" (os error").next().unwrap_or(text).to_owned()
}

fn cause(error: &Error) -> Option<String> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error.root_cause());
    while let Some(one) = cause {
        if let Some(error) = one.downcast_ref::<io::Error>() {
            return Some(of_system(error));
        }
        cause = one.source();
    }
    None
}

/// Why a TLS handshake failed. A certificate is at fault as a rule: Pingora keeps what rustls said in the middle of a longer
/// text.
fn tls(error: &Error) -> Option<String> {
    let (_, why) = error.context.as_ref()?.as_str().rsplit_once("cause: ")?;
    let why = why.rsplit_once(", SNI: ").map_or(why, |(why, _)| why);
    let known = CAUSES.iter().find(|(sign, _)| why.contains(sign));
    Some(known.map_or_else(|| in_lower_case(why), |(_, words)| (*words).to_owned()))
}

/// Splits names such as `BadSignature` into words.
fn in_lower_case(text: &str) -> String {
    let mut words = String::with_capacity(text.len() + 8);
    let mut before = ' ';
    for letter in text.chars() {
        if letter.is_ascii_uppercase() && before.is_ascii_lowercase() {
            words.push(' ');
            words.push(letter.to_ascii_lowercase());
        } else if letter.is_ascii_uppercase() && before == ' ' {
            words.push(letter.to_ascii_lowercase());
        } else {
            words.push(letter);
        }
        before = letter;
    }
    words
}

/// What rustls says, and what it means for whoever set the backend up.
const CAUSES: [(&str, &str); 9] = [
    ("UnknownIssuer", "its certificate is not trusted: name the authority that signed it in upstream_tls.ca"),
    // What `openssl req -x509` makes, if it is not told otherwise.
    ("CaUsedAsEndEntity", "its certificate is an authority's own: make one with basicConstraints=critical,CA:FALSE"),
    (
        "not valid for",
        "its certificate is for another name: set upstream_tls.server_name to a name that it has, or the url's host",
    ),
    ("BadSignature", "its certificate is not trusted: another authority than that of upstream_tls.ca has signed it"),
    ("NotValidForName", "its certificate is for another name: set upstream_tls.server_name to a name that it has"),
    ("certificate expired", "its certificate has expired"),
    ("not valid yet", "its certificate is not valid yet: compare the clocks"),
    ("InvalidContentType", "it does not speak TLS there: does its url start with http://?"),
    ("CertificateRequired", "it requires a certificate of the gateway: set upstream_tls.certificate and key"),
];

#[cfg(test)]
mod tests {
    use pingora::OrErr;

    use super::*;

    const LIMIT: Limit = Limit { time: Duration::from_secs(1), setting: "timeouts.connect" };

    #[test]
    fn no_kind_of_error_shows_a_librarys_name() {
        use ErrorType::*;
        let kinds = [
            ConnectTimedout,
            ConnectRefused,
            ConnectNoRoute,
            TLSHandshakeFailure,
            TLSHandshakeTimedout,
            InvalidCert,
            HandshakeError,
            ConnectError,
            BindError,
            AcceptError,
            SocketError,
            ConnectProxyFailure,
            InvalidHTTPHeader,
            H1Error,
            H2Error,
            H2Downgrade,
            InvalidH2,
            ReadError,
            WriteError,
            ReadTimedout,
            WriteTimedout,
            ConnectionClosed,
            HTTPStatus(500),
            InternalError,
            UnknownError,
            Custom("x"),
            CustomCode("x", 500),
            UNRESOLVED,
        ];
        for kind in kinds {
            let words = describe(&Error::explain(kind.clone(), "Peer: 10.0.0.1:80"), LIMIT);
            assert!(!words.contains(kind.as_str()) && !words.contains("10.0.0.1"), "{words}");
            let pairs = words.as_bytes().windows(2);
            assert!(
                !pairs.into_iter().any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase()),
                "{words}"
            );
        }
    }

    #[test]
    fn limit_is_named_with_its_setting() {
        let words = describe(&Error::new(ErrorType::ConnectTimedout), LIMIT);
        assert_eq!(words, "no connection within 1s (timeouts.connect)");
    }

    #[test]
    fn cause_of_the_system_has_no_number() {
        let system: Result<(), io::Error> = Err(io::Error::from_raw_os_error(99));
        let error = system.or_err(ErrorType::ConnectError, "failed").unwrap_err();
        assert_eq!(describe(&error, LIMIT), "the connection failed: Cannot assign requested address");
    }

    #[test]
    fn tls_error_says_what_to_do() {
        let words = |why: &str| {
            let context =
                format!("TLS connect() failed:  TLSHandshakeFailure context: tls connect error cause: {why}, SNI: a");
            describe(&Error::explain(ErrorType::TLSHandshakeFailure, context), LIMIT)
        };
        assert!(words("invalid peer certificate: UnknownIssuer").contains("upstream_tls.ca"));
        assert!(words("received corrupt message of type InvalidContentType").contains("does not speak TLS"));
        let other = words("received fatal alert: HandshakeFailure");
        assert_eq!(other, "the TLS handshake failed: received fatal alert: handshake failure");
    }
}
