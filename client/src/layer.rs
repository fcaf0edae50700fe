use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use crate::Affinity;

/// A tower layer that sets the session's header on requests: `http::Request`, and with the feature `reqwest`
/// `reqwest::Request`.
///
/// The session is that of the code that calls the service, read in the call. So this layer belongs outside of
/// whatever calls from a task of its own: `tower::buffer`, and retries that are made in the background. Outside of
/// retries in general, every attempt carries the same id. Inside of `FollowRedirect` it looks at every hop anew.
///
/// ```
/// use http::Request;
/// use ingle_client::{Affinity, AffinityLayer, SessionExt, SessionId};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service = ServiceBuilder::new()
///     .layer(AffinityLayer::new(Affinity::for_origin("http://gateway:8080")?))
///     .service(service_fn(async |request: Request<()>| Ok::<_, std::io::Error>(request)));
///
/// let request = Request::post("http://gateway:8080/v1/chat/completions").body(())?;
/// let sent = service.oneshot(request).in_session(SessionId::new("chat-7")?).await?;
/// assert_eq!(sent.headers()["x-session-id"], "chat-7");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub struct AffinityLayer {
    affinity: Affinity,
}

/// A service whose requests carry the session's header. Made by [`AffinityLayer`].
#[derive(Clone, Debug)]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub struct AffinityService<S> {
    inner: S,
    affinity: Affinity,
}

impl AffinityLayer {
    /// A layer that sets the header as `affinity` says.
    #[must_use]
    pub fn new(affinity: Affinity) -> AffinityLayer {
        AffinityLayer { affinity }
    }
}

impl<S> Layer<S> for AffinityLayer {
    type Service = AffinityService<S>;

    fn layer(&self, inner: S) -> AffinityService<S> {
        AffinityService { inner, affinity: self.affinity.clone() }
    }
}

impl<S, B> Service<http::Request<B>> for AffinityService<S>
where
    S: Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> S::Future {
        self.affinity.apply_to(&mut request);
        self.inner.call(request)
    }
}

#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(all(feature = "tower", feature = "reqwest"))))]
impl<S> Service<reqwest::Request> for AffinityService<S>
where
    S: Service<reqwest::Request>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: reqwest::Request) -> S::Future {
        self.affinity.apply_to_reqwest(&mut request);
        self.inner.call(request)
    }
}
