use std::convert::Infallible;
use std::future::ready;

use bytes::Bytes;
use http::{HeaderName, Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use ingle_client::{Affinity, AffinityLayer, NoSession, SessionExt, sync_scope};
use tower::buffer::BufferLayer;
use tower::retry::{Policy, RetryLayer};
use tower::util::BoxCloneService;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::id;
use crate::server::Server;

const GATEWAY: &str = "http://gateway:8080";

/// Answers with the session header of what it was sent.
type Echo = BoxCloneService<Request<()>, Option<String>, Infallible>;

fn echo(affinity: Affinity) -> Echo {
    let session = |request: Request<()>| {
        let value = request.headers().get("x-session-id").map(|v| v.to_str().unwrap().to_owned());
        ready(Ok(value))
    };
    BoxCloneService::new(ServiceBuilder::new().layer(AffinityLayer::new(affinity)).service(service_fn(session)))
}

fn gateway() -> Echo {
    echo(Affinity::for_origin(GATEWAY).unwrap())
}

fn post(url: &str) -> Request<()> {
    Request::post(url).body(()).unwrap()
}

fn chat(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[tokio::test]
async fn the_header_is_there_inside_and_absent_outside() {
    let url = &format!("{GATEWAY}/v1/chat/completions");
    assert_eq!(gateway().oneshot(post(url)).await.unwrap(), None);
    assert_eq!(gateway().oneshot(post(url)).in_session(id("a")).await.unwrap(), chat("a"));
    let sidecar = async { gateway().oneshot(post(url)).without_session().await };
    assert_eq!(sidecar.in_session(id("a")).await.unwrap(), None);
}

#[tokio::test]
async fn a_header_that_is_there_is_kept() {
    let mut request = post(GATEWAY);
    request.headers_mut().insert("x-session-id", "mine".parse().unwrap());
    request.extensions_mut().insert(id("extension"));
    assert_eq!(gateway().oneshot(request).in_session(id("a")).await.unwrap(), chat("mine"));
}

#[tokio::test]
async fn extensions_win_over_the_ambient_session() {
    let mut request = post(GATEWAY);
    request.extensions_mut().insert(id("b"));
    assert_eq!(gateway().oneshot(request.clone()).in_session(id("a")).await.unwrap(), chat("b"));
    assert_eq!(gateway().oneshot(request.clone()).await.unwrap(), chat("b"));
    request.extensions_mut().insert(NoSession);
    assert_eq!(gateway().oneshot(request).in_session(id("a")).await.unwrap(), None);
}

#[tokio::test]
async fn other_origins_get_nothing() {
    for url in ["http://other:8080/", "https://gateway:8080/", "http://gateway/", "/v1/models"] {
        assert_eq!(gateway().oneshot(post(url)).in_session(id("a")).await.unwrap(), None, "{url}");
        let mut request = post(url);
        request.extensions_mut().insert(id("extension"));
        assert_eq!(gateway().oneshot(request).await.unwrap(), None, "{url}");
    }
}

#[tokio::test]
async fn more_origins_or_any_may_be_named() {
    let two = Affinity::for_origin(GATEWAY).unwrap().and_origin("https://other/v1").unwrap();
    for (url, expected) in [("https://other/", chat("a")), (GATEWAY, chat("a")), ("https://third/", None)] {
        assert_eq!(echo(two.clone()).oneshot(post(url)).in_session(id("a")).await.unwrap(), expected, "{url}");
    }
    for url in ["https://third/", "/v1/models"] {
        let any = echo(Affinity::any_origin().and_origin(GATEWAY).unwrap());
        assert_eq!(any.oneshot(post(url)).in_session(id("a")).await.unwrap(), chat("a"), "{url}");
    }
}

#[tokio::test]
async fn another_header_name_is_another_header() {
    let affinity = Affinity::any_origin().header_name(HeaderName::from_static("x-session-affinity"));
    let service = ServiceBuilder::new().layer(AffinityLayer::new(affinity)).service(service_fn(async |r| {
        let request: Request<()> = r;
        Ok::<_, Infallible>(request)
    }));
    let sent = service.oneshot(post(GATEWAY)).in_session(id("a")).await.unwrap();
    assert_eq!(sent.headers().len(), 1);
    assert_eq!(sent.headers()["x-session-affinity"], "a");
}

#[tokio::test]
async fn the_session_is_read_in_the_call() {
    let mut service = gateway();
    service.ready().await.unwrap();
    let answer = sync_scope(id("a"), || service.call(post(GATEWAY)));
    assert_eq!(answer.in_session(id("later")).await.unwrap(), chat("a"));
}

#[tokio::test]
async fn outside_of_a_buffer_the_worker_task_needs_no_session() {
    let inner =
        service_fn(|request: Request<()>| ready(Ok::<_, BoxError>(request.headers().get("x-session-id").cloned())));
    let affinity = Affinity::for_origin(GATEWAY).unwrap();
    let service = ServiceBuilder::new().layer(AffinityLayer::new(affinity)).layer(BufferLayer::new(1)).service(inner);
    let sent = service.oneshot(post(GATEWAY)).in_session(id("a")).await.unwrap();
    assert_eq!(sent.unwrap(), "a");
}

/// Retries a 503.
#[derive(Clone)]
struct WhileBusy;

impl<B, R, E> Policy<Request<B>, http::Response<R>, E> for WhileBusy
where
    Request<B>: Clone,
{
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Request<B>, result: &mut Result<http::Response<R>, E>) -> Option<Self::Future> {
        let busy = result.as_ref().is_ok_and(|r| r.status() == StatusCode::SERVICE_UNAVAILABLE);
        busy.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}

#[tokio::test]
async fn hyper_sends_it_and_retries_carry_the_same_id() {
    let server = Server::start().await;
    let client = ServiceBuilder::new()
        .layer(AffinityLayer::new(Affinity::for_origin(server.url("")).unwrap()))
        .layer(RetryLayer::new(WhileBusy))
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    let request = Request::post(server.url("/busy")).body(Full::default()).unwrap();
    let response = client.oneshot(request).in_session(id("a")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(server.sessions(), [chat("a"), chat("a"), chat("a")]);
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn reqwest_clients_are_services_too() {
    let (server, other) = (Server::start().await, Server::start().await);
    let client = ServiceBuilder::new()
        .layer(AffinityLayer::new(Affinity::for_origin(server.url("")).unwrap()))
        .service(crate::direct().build().unwrap());
    for url in [server.url("/"), other.url("/")] {
        let request = reqwest::Request::new(http::Method::GET, url.parse().unwrap());
        client.clone().oneshot(request).in_session(id("a")).await.unwrap();
    }
    assert_eq!((server.sessions(), other.sessions()), (vec![chat("a")], vec![None]));
}
