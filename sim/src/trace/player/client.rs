//! One request and its streamed answer.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::super::fleet::Fleet;
use crate::load::reading::{EventStream, Reading};

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection, or it ended without an answer.
    NoAnswer,
    /// An answer that is not 200.
    Status,
    /// The answer was cut, or has an error in it.
    Cut,
    /// It took too long.
    Timeout,
}

impl Failure {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NoAnswer => "no answer",
            Self::Status => "status",
            Self::Cut => "cut",
            Self::Timeout => "timeout",
        }
    }
}

/// Sends requests over kept connections.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    timeout: Duration,
}

impl Client {
    pub(super) fn new(timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { http, timeout }
    }

    /// A chat request of about `bytes` bytes.
    pub(super) fn request(
        &self,
        url: &str,
        session: Option<&String>,
        turn: usize,
        bytes: usize,
    ) -> Request<Full<Bytes>> {
        let mut body = Vec::with_capacity(bytes + BEFORE.len() + AFTER.len());
        body.extend_from_slice(BEFORE);
        body.resize(body.len() + bytes.saturating_sub(BEFORE.len() + AFTER.len()), b'x');
        body.extend_from_slice(AFTER);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = http::Method::POST;
        // A URL that nothing can be done with fails as a connection does.
        *request.uri_mut() = format!("{url}/v1/chat/completions").parse().unwrap_or_else(|_| Uri::from_static("/"));
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(Fleet::TURN_HEADER, HeaderValue::from(turn));
        if let Some(id) = session.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert("x-session-id", id);
        }
        request
    }

    /// Sends it and reads the answer to its end. `on_first_token` is called with the first output of a good one: heads,
    /// comments and events that announce output are none.
    pub(super) async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        on_first_token: impl FnOnce(),
    ) -> Result<(), Failure> {
        tokio::time::timeout(self.timeout, self.read(request, on_first_token)).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn read(&self, request: Request<Full<Bytes>>, on_first_token: impl FnOnce()) -> Result<(), Failure> {
        let answer = self.http.request(request).await.map_err(|_| Failure::NoAnswer)?;
        let good = answer.status() == 200;
        let mut body = answer.into_body();
        if !good {
            // Read to its end, so that the connection can be used again.
            let _ = body.collect().await;
            return Err(Failure::Status);
        }
        let mut on_first_token = Some(on_first_token);
        let (mut events, mut reading) = (EventStream::default(), Reading::default());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Failure::Cut)?;
            let Some(data) = frame.data_ref() else { continue };
            events.push(data, &mut reading);
            if let Some(on_first_token) = on_first_token.take_if(|_| reading.has_output) {
                on_first_token();
            }
        }
        if reading.is_done && !reading.error { Ok(()) } else { Err(Failure::Cut) }
    }
}

const BEFORE: &[u8] =
    br#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":""#;
const AFTER: &[u8] = br#""}]}"#;
/// Longer than a replay's lulls, shorter than any proxy closes.
const POOL_IDLE: Duration = Duration::from_secs(3);
