use std::fmt;

use http::Uri;

/// Scheme, host and port of a server, the port always explicit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

/// Why a text is no origin that a session may be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidOrigin {
    /// Not a URL with a scheme and a host.
    NotAUrl,
    /// A scheme other than `http`, `https`, `ws` and `wss`.
    UnknownScheme,
}

impl Origin {
    /// The origin of a URL; its path and query do not count.
    pub(crate) fn parse(url: &str) -> Result<Origin, InvalidOrigin> {
        let uri: Uri = url.trim_ascii().parse().map_err(|_| InvalidOrigin::NotAUrl)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(InvalidOrigin::NotAUrl);
        };
        let default_port = default_port(scheme).ok_or(InvalidOrigin::UnknownScheme)?;
        // `Uri` takes a port that is no number below 65536 for none.
        let has_bad_port = authority.port().is_none() && !authority.as_str().ends_with(authority.host());
        if authority.host().is_empty() || has_bad_port {
            return Err(InvalidOrigin::NotAUrl);
        }
        Ok(Origin {
            scheme: scheme.to_ascii_lowercase(),
            host: authority.host().to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(default_port),
        })
    }

    /// Whether a request to this URI goes to this origin. One without a host goes nowhere that is known.
    pub(crate) fn is_of(&self, uri: &Uri) -> bool {
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return false;
        };
        self.is(scheme, host, uri.port_u16().or_else(|| default_port(scheme)))
    }

    pub(crate) fn is(&self, scheme: &str, host: &str, port: Option<u16>) -> bool {
        port == Some(self.port) && scheme.eq_ignore_ascii_case(&self.scheme) && host.eq_ignore_ascii_case(&self.host)
    }
}

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidOrigin::NotAUrl => "an origin needs a scheme and a host, such as http://gateway:8080",
            InvalidOrigin::UnknownScheme => "the scheme of an origin is http, https, ws or wss",
        })
    }
}

impl std::error::Error for InvalidOrigin {}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_of(origin: &str, uri: &'static str) -> bool {
        Origin::parse(origin).unwrap().is_of(&Uri::from_static(uri))
    }

    #[test]
    fn path_query_user_and_case_do_not_count() {
        assert!(is_of("http://gateway:8080", "http://gateway:8080/v1/models?a=b"));
        assert!(is_of("http://gateway:8080/v1/", "http://gateway:8080/health"));
        assert!(is_of("HTTP://Gateway:8080", "http://gateWAY:8080/"));
        assert!(is_of("http://gateway:8080", "http://user:word@gateway:8080/"));
        assert!(is_of("http://[::1]:8080", "http://[::1]:8080/"));
    }

    #[test]
    fn default_ports_are_explicit() {
        assert!(is_of("http://gateway", "http://gateway:80/"));
        assert!(is_of("https://gateway:443", "https://gateway/"));
        assert!(is_of("ws://gateway", "ws://gateway:80/"));
    }

    #[test]
    fn scheme_host_and_port_all_count() {
        for uri in ["https://gateway:8080/", "http://other:8080/", "http://gateway:8081/", "http://gateway/"] {
            assert!(!is_of("http://gateway:8080", uri), "{uri}");
        }
        assert!(!is_of("http://gateway:8080", "http://gateway:8080@evil.example/"));
        assert!(!is_of("http://gateway:8080", "http://gateway.evil.example:8080/"));
        assert!(!is_of("http://gateway:8080", "/v1/models"));
    }

    #[test]
    fn other_texts_are_errors() {
        for text in ["", "gateway", "gateway:8080", "/v1", "http://", "http:///x", "http://h:99999", "http://h:x"] {
            assert_eq!(Origin::parse(text), Err(InvalidOrigin::NotAUrl), "{text:?}");
        }
        assert_eq!(Origin::parse("ftp://gateway"), Err(InvalidOrigin::UnknownScheme));
    }
}
