use futures_util::stream::{self, StreamExt};
use http::{Extensions, StatusCode};
use ingle_client::{Affinity, AffinityMiddleware, NoSession, SessionExt, same_origin_redirects};
use reqwest::redirect::Policy;
use reqwest::{Method, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};

use crate::server::Server;
use crate::{direct, id};

fn client(server: &Server) -> ClientWithMiddleware {
    client_with(server, same_origin_redirects())
}

fn client_with(server: &Server, redirects: Policy) -> ClientWithMiddleware {
    let client = direct().redirect(redirects).build().unwrap();
    let affinity = Affinity::for_origin(server.url("/v1")).unwrap();
    ClientBuilder::new(client).with(AffinityMiddleware::new(affinity)).build()
}

fn chat(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[tokio::test]
async fn the_header_is_there_inside_and_absent_outside() {
    let server = Server::start().await;
    let client = client(&server);
    client.get(server.url("/")).send().await.unwrap();
    let turn = async {
        client.get(server.url("/")).send().await.unwrap();
        client.get(server.url("/")).send().without_session().await.unwrap();
        tokio::join!(client.get(server.url("/")).send(), client.get(server.url("/")).send()).0.unwrap();
    };
    turn.in_session(id("a")).await;
    assert_eq!(server.sessions(), [None, chat("a"), None, chat("a"), chat("a")]);
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn spawned_tasks_send_it_if_they_were_given_it() {
    let server = Server::start().await;
    let request = client(&server).get(server.url("/"));
    let (bare, ours) = (request.try_clone().unwrap().send(), request.send());
    let turn = async {
        tokio::spawn(bare).await.unwrap().unwrap();
        ingle_client::spawn(ours).await.unwrap().unwrap();
    };
    turn.in_session(id("a")).await;
    assert_eq!(server.sessions(), [None, chat("a")]);
}

#[tokio::test]
async fn a_lazy_stream_sends_from_inside_its_session() {
    let server = Server::start().await;
    let client = client(&server);
    let pages = stream::iter(0..2).then(|_| client.get(server.url("/")).send());
    let pages = async { pages.in_current_session() }.in_session(id("a")).await;
    let pages: Vec<_> = pages.collect().await;
    assert!(pages.iter().all(Result::is_ok));
    assert_eq!(server.sessions(), [chat("a"), chat("a")]);
}

#[tokio::test]
async fn requests_may_have_their_own_header_or_extension() {
    let server = Server::start().await;
    let client = client(&server);
    let turn = async {
        client.get(server.url("/")).header("X-Session-Id", "mine").send().await.unwrap();
        client.get(server.url("/")).with_extension(id("b")).send().await.unwrap();
        client.get(server.url("/")).with_extension(NoSession).send().await.unwrap();
    };
    turn.in_session(id("a")).await;
    assert_eq!(server.sessions(), [chat("mine"), chat("b"), None]);
}

#[tokio::test]
async fn other_origins_get_nothing() {
    let (server, other) = (Server::start().await, Server::start().await);
    client(&server).get(other.url("/")).send().in_session(id("a")).await.unwrap();
    assert_eq!(other.sessions(), [None]);
}

#[tokio::test]
async fn a_redirect_does_not_leak_the_session() {
    let (server, other) = (Server::start().await, Server::start().await);
    let away = server.url(&format!("/redirect?{}", other.url("/")));

    let answer = client(&server).post(&away).send().in_session(id("a")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(answer.headers()["location"], other.url("/"));
    assert_eq!(other.seen(), []);

    // Why the policy is there. Once reqwest itself drops the header, it can go.
    client_with(&server, Policy::default()).post(&away).send().in_session(id("a")).await.unwrap();
    assert_eq!(other.sessions(), [chat("a")]);
}

#[tokio::test]
async fn a_redirect_on_the_origin_is_followed() {
    let server = Server::start().await;
    let answer = client(&server).post(server.url("/redirect?/v2")).send().in_session(id("a")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(server.sessions(), [chat("a"), chat("a")]);
    assert_eq!(server.seen()[1].path, "/v2");
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let server = Server::start().await;
    let client = direct().redirect(same_origin_redirects()).build().unwrap();
    let circle = client.get(server.url("/redirect?")).send().await; // an empty Location is the same URL again
    assert!(circle.unwrap_err().is_redirect());
    assert_eq!(server.seen().len(), 11);
}

/// Retries a 503.
struct WhileBusy;

#[async_trait::async_trait]
impl Middleware for WhileBusy {
    async fn handle(&self, r: Request, e: &mut Extensions, next: Next<'_>) -> reqwest_middleware::Result<Response> {
        loop {
            let answer = next.clone().run(r.try_clone().unwrap(), e).await?;
            if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
                return Ok(answer);
            }
        }
    }
}

#[tokio::test]
async fn retries_carry_the_same_id() {
    let server = Server::start().await;
    let affinity = AffinityMiddleware::new(Affinity::for_origin(server.url("")).unwrap());
    let client = ClientBuilder::new(direct().build().unwrap()).with(affinity).with(WhileBusy).build();
    let answer = client.get(server.url("/busy")).send().in_session(id("a")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(server.sessions(), [chat("a"), chat("a"), chat("a")]);
}

#[tokio::test]
async fn requests_built_by_hand_can_take_part() {
    let server = Server::start().await;
    let affinity = Affinity::for_origin(server.url("")).unwrap();
    let mut request = Request::new(Method::GET, server.url("/").parse().unwrap());
    ingle_client::sync_scope(id("a"), || affinity.apply_to_reqwest(&mut request));
    direct().build().unwrap().execute(request).await.unwrap();
    assert_eq!(server.sessions(), [chat("a")]);
}
