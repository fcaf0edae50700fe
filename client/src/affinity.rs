use std::sync::Arc;

use http::{Extensions, HeaderMap, HeaderName, Request, Uri};

use crate::origin::Origin;
use crate::{InvalidOrigin, SessionId, current};

/// `X-Session-Id`, the header that the gateway looks at unless it is configured otherwise.
pub static X_SESSION_ID: HeaderName = HeaderName::from_static("x-session-id");

/// Which requests carry the session, and in which header. All adapters share this.
///
/// What a request carries, the first that applies:
/// 1. the header it has already: that stays as it is;
/// 2. nothing, if its extensions hold [`NoSession`];
/// 3. the [`SessionId`] in its extensions;
/// 4. the session of the code that makes it, [`current`];
/// 5. nothing.
///
/// And it carries 3 and 4 only to the origins named here, because a session id is nobody else's business.
///
/// ```
/// use http::{HeaderMap, Uri};
/// use ingle_client::{Affinity, Applied, SessionId, sync_scope};
///
/// let affinity = Affinity::for_origin("http://gateway:8080")?;
/// let mut headers = HeaderMap::new();
/// let applied = sync_scope(SessionId::new("chat-7")?, || {
///     affinity.apply(&Uri::from_static("http://gateway:8080/v1/models"), &mut headers)
/// });
/// assert_eq!(applied, Applied::Set);
/// assert_eq!(headers["x-session-id"], "chat-7");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Affinity {
    header: HeaderName,
    /// None: every origin.
    origins: Option<Arc<[Origin]>>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The header was set.
    Set,
    /// The request had the header already, perhaps an empty one. It was left alone.
    AlreadyPresent,
    /// There is no session.
    NoSession,
    /// There is a session, and the request goes elsewhere, or its URI does not say where to.
    OriginNotAllowed,
}

/// In a request's extensions: no session, whatever code makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSession;

impl Affinity {
    /// Sessions go to this origin: scheme, host and port. A base URL will do, its path does not count.
    ///
    /// # Errors
    ///
    /// [`InvalidOrigin`] if this is no `http`, `https`, `ws` or `wss` URL with a host.
    pub fn for_origin(url: impl AsRef<str>) -> Result<Affinity, InvalidOrigin> {
        let origin = Origin::parse(url.as_ref())?;
        Ok(Affinity { header: X_SESSION_ID.clone(), origins: Some(Arc::new([origin])) })
    }

    /// Sessions go to this origin, too.
    ///
    /// # Errors
    ///
    /// As [`Affinity::for_origin`].
    pub fn and_origin(mut self, url: impl AsRef<str>) -> Result<Affinity, InvalidOrigin> {
        let origin = Origin::parse(url.as_ref())?;
        self.origins = self.origins.map(|known| known.iter().cloned().chain([origin]).collect());
        Ok(self)
    }

    /// Sessions go wherever the requests go, redirects included.
    ///
    /// For clients that talk to nobody but the gateway, and those whose requests do not say where they go: a bare
    /// hyper connection and tonic's `Channel` take URIs without a host.
    #[must_use]
    pub fn any_origin() -> Affinity {
        Affinity { header: X_SESSION_ID.clone(), origins: None }
    }

    /// Another header than [`X_SESSION_ID`]; the gateway's `affinity.headers` must name it.
    #[must_use]
    pub fn header_name(mut self, name: HeaderName) -> Affinity {
        self.header = name;
        self
    }

    /// Sets the header for the [`current`] session on a request to `uri`.
    ///
    /// The one primitive of this crate: with it, any client that has a `HeaderMap` can take part.
    pub fn apply(&self, uri: &Uri, headers: &mut HeaderMap) -> Applied {
        self.set(self.allows(uri), current(), headers)
    }

    /// Sets the header on a request, whose extensions may hold a [`SessionId`] or [`NoSession`].
    pub fn apply_to<B>(&self, request: &mut Request<B>) -> Applied {
        let (allowed, session) = (self.allows(request.uri()), session_of(request.extensions()));
        self.set(allowed, session, request.headers_mut())
    }

    /// Sets the header for the [`current`] session on a reqwest request.
    ///
    /// For those who build requests and execute them. What reqwest keeps in a request's extensions is its own;
    /// an opt-out is [`without_session`](crate::SessionExt::without_session) around the code that calls this.
    #[cfg(feature = "reqwest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
    pub fn apply_to_reqwest(&self, request: &mut reqwest::Request) -> Applied {
        self.apply_to_reqwest_with(&Extensions::new(), request)
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn apply_to_reqwest_with(&self, extensions: &Extensions, request: &mut reqwest::Request) -> Applied {
        let url = request.url();
        let allowed = self.allows_any(|origin| match url.host_str() {
            Some(host) => origin.is(url.scheme(), host, url.port_or_known_default()),
            None => false,
        });
        self.set(allowed, session_of(extensions), request.headers_mut())
    }

    fn allows(&self, uri: &Uri) -> bool {
        self.allows_any(|origin| origin.is_of(uri))
    }

    fn allows_any(&self, is_it: impl FnMut(&Origin) -> bool) -> bool {
        self.origins.as_ref().is_none_or(|known| known.iter().any(is_it))
    }

    fn set(&self, allowed: bool, session: Option<SessionId>, headers: &mut HeaderMap) -> Applied {
        if headers.contains_key(&self.header) {
            return Applied::AlreadyPresent;
        }
        match session {
            None => Applied::NoSession,
            Some(_) if !allowed => Applied::OriginNotAllowed,
            Some(id) => {
                headers.insert(self.header.clone(), id.into());
                Applied::Set
            }
        }
    }
}

fn session_of(extensions: &Extensions) -> Option<SessionId> {
    match extensions.get::<NoSession>() {
        Some(NoSession) => None,
        None => extensions.get::<SessionId>().cloned().or_else(current),
    }
}
