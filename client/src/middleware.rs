use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next, Result};

use crate::Affinity;

/// Middleware for reqwest-middleware that sets the session's header on requests.
///
/// The session is that of the code that awaits `send()`. For one request, `with_extension(id)` sets another
/// [`SessionId`](crate::SessionId) and `with_extension(NoSession)` sets none.
///
/// Add it before retries, so that every attempt carries the same id. Redirects happen below all middleware: give the
/// client [`same_origin_redirects`](crate::same_origin_redirects).
///
/// ```no_run
/// use ingle_client::{Affinity, AffinityMiddleware, SessionExt, SessionId, same_origin_redirects};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = reqwest::Client::builder().redirect(same_origin_redirects()).build()?;
/// let client = reqwest_middleware::ClientBuilder::new(client)
///     .with(AffinityMiddleware::new(Affinity::for_origin("http://gateway:8080")?))
///     .build();
/// client.get("http://gateway:8080/v1/models").send().in_session(SessionId::new("chat-7")?).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest-middleware")))]
pub struct AffinityMiddleware {
    affinity: Affinity,
}

impl AffinityMiddleware {
    /// Middleware that sets the header as `affinity` says.
    #[must_use]
    pub fn new(affinity: Affinity) -> AffinityMiddleware {
        AffinityMiddleware { affinity }
    }
}

#[async_trait::async_trait]
impl Middleware for AffinityMiddleware {
    async fn handle(&self, mut request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        self.affinity.apply_to_reqwest_with(extensions, &mut request);
        next.run(request, extensions).await
    }
}
