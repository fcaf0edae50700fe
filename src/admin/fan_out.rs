//! Calls that change the state of one server, sent to every backend.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use pingora::connectors::http::v1::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Answer, as_json, error};
use crate::certificates::connector_options;
use crate::gateway::Gateway;
use crate::link::Link;

/// A call, ready to be sent to any backend.
struct Call {
    head: RequestHeader,
    body: Bytes,
    authorization: Option<HeaderValue>,
}

/// What became of it at all backends, in the order of the config.
#[derive(Debug, Serialize)]
struct Answers {
    backends: Vec<BackendAnswer>,
}

/// What became of it at one backend.
#[derive(Debug, Default, Serialize)]
struct BackendAnswer {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// JSON as it came, or text.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The state in which it does not serve, so that the call was not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<&'static str>,
}

/// Sends a call of the admin listener to every backend that serves. It goes on if the admin leaves: a call that reached half
/// of the backends leaves them different from each other.
pub(super) async fn send(session: &mut ServerSession, gateway: &Arc<Gateway>, who: &str) -> Answer {
    let Some(body) = read_body(session).await else {
        return error(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body of such a call has at most 1 MiB.");
    };
    let own = session.req_header();
    tracing::info!(%who, path = own.uri.path(), "state change sent to every backend");
    let target = own.uri.path_and_query().map_or("/", |target| target.as_str());
    let Ok(mut head) = RequestHeader::build(own.method.clone(), target.as_bytes(), None) else {
        return error(StatusCode::BAD_REQUEST, "bad_target", "The request's target is malformed.");
    };
    if let Some(kind) = own.headers.get(header::CONTENT_TYPE) {
        // A value that was parsed is valid.
        let _ = head.insert_header(header::CONTENT_TYPE, kind);
    }
    // What opens the admin listener is not for backends.
    let authorization = own.headers.get(header::AUTHORIZATION).filter(|_| gateway.access.admins().is_none()).cloned();
    let call = Arc::new(Call { head, body, authorization });
    let gateway = Arc::clone(gateway);
    match tokio::spawn(async move { send_to_all(&gateway, &call).await }).await {
        Ok(answers) => {
            let mut sent = answers.backends.iter().filter(|answer| answer.skipped.is_none()).peekable();
            let is_done = |answer: &BackendAnswer| answer.status.is_some_and(|status| (200..300).contains(&status));
            let all_done = sent.peek().is_some() && sent.all(is_done);
            as_json(if all_done { StatusCode::OK } else { StatusCode::BAD_GATEWAY }, &answers)
        }
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The call failed; see the log."),
    }
}

/// The request's body; `None` if it is too large, or its client has left.
async fn read_body(session: &mut ServerSession) -> Option<Bytes> {
    let mut body = Vec::new();
    while let Some(piece) = session.read_request_body().await.ok()? {
        if body.len() + piece.len() > MAX_BODY {
            return None;
        }
        body.extend_from_slice(&piece);
    }
    Some(body.into())
}

async fn send_to_all(gateway: &Arc<Gateway>, call: &Arc<Call>) -> Answers {
    let snapshot = gateway.snapshot.load_full();
    let connector = Arc::new(Connector::new(Some(connector_options())));
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (index, link) in snapshot.links.iter().enumerate() {
        let (gateway, connector, turns) = (Arc::clone(gateway), Arc::clone(&connector), Arc::clone(&turns));
        let (link, call) = (Arc::clone(link), Arc::clone(call));
        tasks.spawn(async move {
            let _turn = turns.acquire().await;
            (index, send_to(&gateway, &connector, &link, &call).await)
        });
    }
    let mut answers = tasks.join_all().await;
    answers.sort_by_key(|(index, _)| *index);
    Answers { backends: answers.into_iter().map(|(_, answer)| answer).collect() }
}

async fn send_to(gateway: &Gateway, connector: &Connector, link: &Link, call: &Call) -> BackendAnswer {
    let name = link.backend.name().to_owned();
    let state = link.backend.state();
    if !state.serves() {
        return BackendAnswer { name, skipped: Some(state.as_str()), ..BackendAnswer::default() };
    }
    match timeout(LIMIT, exchange(gateway, connector, link, call)).await {
        Ok(Ok((status, body))) => {
            BackendAnswer { name, status: Some(status), body: Some(body), ..BackendAnswer::default() }
        }
        Ok(Err(error)) => BackendAnswer { name, error: Some(error), ..BackendAnswer::default() },
        Err(_) => {
            let error = Some(format!("no answer within {}s", LIMIT.as_secs()));
            BackendAnswer { name, error, ..BackendAnswer::default() }
        }
    }
}

async fn exchange(gateway: &Gateway, connector: &Connector, link: &Link, call: &Call) -> Result<(u16, Value), String> {
    let address = link.address.get().await.map_err(|error| error.to_string())?;
    let text = |error: Box<pingora::Error>| error.to_string();
    let peer = gateway.certificates.peer(address, link.address.origin()).map_err(text)?;
    let mut head = call.head.clone();
    head.insert_header(header::HOST, link.address.origin().authority()).map_err(text)?;
    head.insert_header(header::CONNECTION, "close").map_err(text)?;
    head.insert_header(header::CONTENT_LENGTH, call.body.len()).map_err(text)?;
    let own = link.authorization.load_full().map(|own| (*own).clone());
    if let Some(value) = own.or_else(|| call.authorization.clone()) {
        head.insert_header(header::AUTHORIZATION, value).map_err(text)?;
    }
    let (mut session, _) = connector.get_http_session(&peer).await.map_err(text)?;
    session.write_request_header(Box::new(head)).await.map_err(text)?;
    session.write_body(&call.body).await.map_err(text)?;
    session.finish_body().await.map_err(text)?;
    let status = loop {
        let head = session.read_resp_header_parts().await.map_err(text)?;
        if !head.status.is_informational() {
            break head.status.as_u16();
        }
    };
    let mut body = Vec::new();
    while let Some(piece) = session.read_body_ref().await.map_err(text)? {
        let room = MAX_ANSWER - body.len();
        body.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            break;
        }
    }
    let value = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into());
    Ok((status, value))
}

/// Bytes of a call's body.
const MAX_BODY: usize = 1 << 20;
/// Bytes of an answer that are shown.
const MAX_ANSWER: usize = 64 << 10;
/// For one backend. The admin listener ends a request after a minute.
const LIMIT: Duration = Duration::from_secs(50);
/// Backends that are asked at once.
const AT_ONCE: usize = 64;
