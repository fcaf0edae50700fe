//! Streams of each API from real llama-servers: what is sent, and what a whole one consists of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::client::{Client, Req, header_of};
use crate::h2c::H2c;
use crate::wait::PATIENCE;

/// An API with streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    Chat,
    Messages,
    Responses,
}

/// The protocol of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

pub(crate) const KINDS: [(Api, Protocol); 6] = [
    (Api::Chat, Protocol::Http1),
    (Api::Messages, Protocol::Http2),
    (Api::Responses, Protocol::Http1),
    (Api::Chat, Protocol::Http2),
    (Api::Messages, Protocol::Http1),
    (Api::Responses, Protocol::Http2),
];

impl Api {
    /// A request; a byte of `prompt` is a token of the model.
    pub(crate) fn request(self, prompt: &str, max_tokens: usize, stream: bool) -> Req {
        let messages = json!([{"role": "user", "content": prompt}]);
        let (path, body) = match self {
            Api::Chat => (
                "/v1/chat/completions",
                json!({"messages": messages, "max_tokens": max_tokens, "stream": stream, "stream_options": {"include_usage": true}}),
            ),
            Api::Messages => (
                "/v1/messages",
                json!({"model": "m", "messages": messages, "max_tokens": max_tokens, "stream": stream}),
            ),
            Api::Responses => (
                "/v1/responses",
                json!({"model": "m", "input": prompt, "max_output_tokens": max_tokens, "stream": stream}),
            ),
        };
        let mut body = body;
        if !stream {
            body.as_object_mut().unwrap().remove("stream_options");
        }
        Req::post(path, body.to_string().as_bytes()).header("Content-Type", "application/json")
    }

    /// The types of a stream's events, each with its count.
    fn kinds(self, body: &str) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for data in body.split("\n\n").filter_map(data_of) {
            let kind = match serde_json::from_str::<Value>(&data) {
                Ok(event) if !event["error"].is_null() => "error".to_owned(),
                Ok(event) => match event["type"].as_str() {
                    Some(kind) => kind.to_owned(),
                    None if event["choices"][0]["delta"]["role"].is_string() => "role".to_owned(),
                    None if event["choices"][0]["finish_reason"].is_string() => "finish".to_owned(),
                    None => "chunk".to_owned(),
                },
                Err(_) => data,
            };
            *kinds.entry(kind).or_default() += 1;
        }
        kinds
    }

    /// The ids of the responses whose events are in a stream.
    fn ids(self, body: &str) -> BTreeSet<String> {
        let events =
            body.split("\n\n").filter_map(data_of).filter_map(|data| serde_json::from_str::<Value>(&data).ok());
        let id = |event: Value| match self {
            Api::Chat => event["id"].as_str().map(str::to_owned),
            // An event in its middle has no id; the first one is left out if the first token is no whole character.
            Api::Messages => Some(event["message"]["id"].as_str().unwrap_or("message").to_owned()),
            Api::Responses => event["response"]["id"].as_str().map(str::to_owned),
        };
        let mut ids: BTreeSet<String> = events.filter_map(id).collect();
        if ids.len() > 1 {
            ids.remove("message");
        }
        ids
    }

    /// Fails unless it is one whole stream.
    pub(crate) fn judge(self, body: &str) {
        let kinds = self.kinds(body);
        let once: &[&str] = match self {
            // llama-server leaves out what starts a message if its first token is no whole character.
            Api::Chat => &["finish", "[DONE]"],
            Api::Messages => &["message_delta", "message_stop"],
            // It starts a response anew with each token until one is a whole character.
            Api::Responses => &["response.completed"],
        };
        for kind in once {
            assert_eq!(kinds.get(*kind), Some(&1), "{self:?}: {kind} in {kinds:?}\n{body}");
        }
        for kind in ["role", "message_start", "content_block_start", "content_block_stop", "response.output_item.added"]
        {
            assert!(kinds.get(kind).is_none_or(|count| *count == 1), "{self:?}: {kind} in {kinds:?}\n{body}");
        }
        assert_eq!(kinds.get("error"), None, "{body}");
        let ids = self.ids(body);
        assert_eq!(ids.len(), 1, "{self:?}: events of one attempt: {ids:?}\n{body}");
        let last = body.split("\n\n").filter_map(data_of).last().unwrap();
        assert!(last.contains(once[once.len() - 1]), "{self:?} ends with {last}");
    }
}

/// The data of an event; `None` of a comment.
fn data_of(event: &str) -> Option<String> {
    let data = event.lines().filter_map(|line| line.strip_prefix("data:")).map(|line| line.trim_start());
    let data: Vec<&str> = data.collect();
    (!data.is_empty()).then(|| data.join("\n"))
}

/// What a client got of a stream.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) backend: String,
    pub(crate) body: String,
    pub(crate) whole: bool,
}

/// Sends a request and reads its stream; `on_head` runs when the head is there.
pub(crate) async fn stream(address: SocketAddr, protocol: Protocol, req: &Req, on_head: impl FnOnce() + Send) -> Got {
    match protocol {
        Protocol::Http1 => over_http1(address, req, on_head).await,
        Protocol::Http2 => over_http2(address, req, on_head).await,
    }
}

async fn over_http1(address: SocketAddr, req: &Req, on_head: impl FnOnce() + Send) -> Got {
    let mut client = Client::connect(address).await;
    client.write(&req.bytes()).await;
    let head = client.head().await;
    on_head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let backend = header_of(&head, "X-Ingle-Backend").unwrap().to_owned();
    let mut body = Vec::new();
    let whole = loop {
        match client.chunk().await {
            Some(piece) if piece.is_empty() => break true,
            Some(piece) => body.extend(piece),
            None => break false,
        }
    };
    Got { backend, body: String::from_utf8(body).unwrap(), whole }
}

async fn over_http2(address: SocketAddr, req: &Req, on_head: impl FnOnce() + Send) -> Got {
    let http2 = H2c::connect(address).await;
    let (head, mut stream) = http2.begin(req).await.into_parts();
    on_head();
    assert_eq!(head.status, 200);
    let backend = head.headers["x-ingle-backend"].to_str().unwrap().to_owned();
    let mut body = Vec::new();
    let whole = loop {
        match timeout(PATIENCE, stream.data()).await.expect("data in time") {
            Some(Ok(piece)) => {
                let piece: Bytes = piece;
                stream.flow_control().release_capacity(piece.len()).unwrap();
                body.extend(piece);
            }
            Some(Err(_)) => break false,
            None => break true,
        }
    };
    Got { backend, body: String::from_utf8(body).unwrap(), whole }
}
