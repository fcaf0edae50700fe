//! Who may use the admin listener.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode, header};
use pingora::http::RequestHeader;

use super::{Answer, error};
use crate::gateway::Gateway;

/// The name of who asks; nobody's, where no keys are asked for. What load balancers ask of a process needs none.
///
/// # Errors
///
/// What to answer to who shows no key of the file.
pub(super) fn of(head: &RequestHeader, gateway: &Gateway) -> Result<String, Box<Answer>> {
    let Some(keys) = gateway.access.admins() else { return Ok(NOBODY.to_owned()) };
    if matches!(head.uri.path(), "/livez" | "/readyz") {
        return Ok(NOBODY.to_owned());
    }
    let shown = head.headers.get(header::AUTHORIZATION).and_then(key);
    match shown.map(|key| keys.admit(&key, true, gateway.clock.now())) {
        Some(Ok(admitted)) => Ok(admitted.name.to_string()),
        Some(Err(_)) | None => Err(Box::new(refusal())),
    }
}

/// The key of `Bearer KEY`, as scripts and Prometheus send it, or the password of `Basic`, as browsers do.
fn key(value: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, shown) = value.to_str().ok()?.split_once(' ')?;
    let shown = shown.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(shown.as_bytes().to_vec());
    }
    let pair = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(shown).ok()).flatten()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// A browser asks its user for a name, which does not matter, and a password: the key.
fn refusal() -> Answer {
    let mut answer =
        error(StatusCode::UNAUTHORIZED, "invalid_api_key", "Show a key of admin.keys_file, as Bearer or as password.");
    let challenge = HeaderValue::from_static("Basic realm=\"ingle admin: any name, the key as password\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    answer
}

const NOBODY: &str = "-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_as_bearer_or_as_password() {
        let shown = |text: &str| key(&HeaderValue::from_str(text).unwrap()).map(|key| String::from_utf8(key).unwrap());
        assert_eq!(shown("Bearer k").as_deref(), Some("k"));
        assert_eq!(shown("bearer  k").as_deref(), Some("k"));
        assert_eq!(shown("Basic YWRtaW46azpr").as_deref(), Some("k:k"), "admin:k:k");
        assert_eq!(shown("basic Oms=").as_deref(), Some("k"), ":k");
        for none in ["Bearer", "Basic k", "Basic", "Digest k", "Basic a2s="] {
            assert_eq!(shown(none), None, "{none}");
        }
    }
}
