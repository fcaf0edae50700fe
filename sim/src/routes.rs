//! Which endpoint answers a request.

use crate::api::Api;
use crate::completion;
use crate::config::ServerKind;
use crate::request::Request;
use crate::server::Shared;
use crate::shape::{llama, vllm};
use crate::wire::{Applied, End, Wire};

/// Answers one request on its connection.
pub(crate) async fn answer(shared: &Shared, request: &Request, wire: &mut Wire<'_>) -> Result<(), End> {
    shared.faults.thawed().await;
    let path = request.path();
    let api = Api::of(path);
    let _in_flight = api.map(|_| shared.ledger.completion(request.session()));
    if let Some(fault) = shared.faults.at_request(path)
        && wire.apply(fault).await? == Applied::Answered
    {
        return Ok(());
    }
    if shared.answers_loading() {
        return wire.whole(503, &[], llama::LOADING.as_bytes()).await;
    }
    match (request.method.as_str(), api) {
        ("POST", Some(api)) => completion::answer(shared, request, api, wire).await,
        _ => small(shared, request, wire).await,
    }
}

/// The endpoints that answer at once.
async fn small(shared: &Shared, request: &Request, wire: &mut Wire<'_>) -> Result<(), End> {
    let reading = matches!(request.method.as_str(), "GET" | "HEAD");
    let answer = match shared.config.server {
        _ if request.method == "POST" && request.path() == COUNT_TOKENS => {
            Some(completion::count_tokens(shared, request))
        }
        ServerKind::LlamaServer if reading => llama::get(shared, request.path()),
        ServerKind::LlamaServer => None,
        ServerKind::Vllm => vllm::endpoint(shared, &request.method, request.path()),
    };
    let answer = answer.unwrap_or_else(|| match shared.config.server {
        ServerKind::LlamaServer => Answer::error(404, llama::NOT_FOUND),
        ServerKind::Vllm => Answer::error(404, r#"{"detail":"Not Found"}"#),
    });
    wire.whole(answer.code, &answer.headers, answer.body.as_bytes()).await
}

/// A small answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(body: String) -> Self {
        Self { code: 200, headers: Vec::new(), body }
    }

    pub(crate) fn text(content_type: &str, body: String) -> Self {
        Self { code: 200, headers: vec![("Content-Type".into(), content_type.into())], body }
    }

    pub(crate) fn error(code: u16, body: &str) -> Self {
        Self { code, headers: Vec::new(), body: body.into() }
    }
}

/// Counts the tokens of a request to Messages.
pub(crate) const COUNT_TOKENS: &str = "/v1/messages/count_tokens";
