//! One request and its answer.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::config::{LoadConfig, LoadError};
use super::reading::{EventStream, Reading};

/// How long idle connections are kept: shorter than real servers do.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// No connection.
    Connect,
    /// The connection ended or was not HTTP before the answer's head was complete.
    NoAnswer,
    /// An answer that is not 200.
    Status(u16),
    /// The connection ended in the middle of the body.
    Broken,
    /// The body ended properly, but its last event was missing, or it is no answer of the API.
    Incomplete,
    /// The answer was 200, but an error came in its body, whatever came after it.
    InBand,
    /// [`LoadConfig::timeout`] was over.
    Timeout,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::NoAnswer => f.write_str("no_answer"),
            Self::Status(code) => write!(f, "status_{code}"),
            Self::Broken => f.write_str("broken"),
            Self::Incomplete => f.write_str("incomplete"),
            Self::InBand => f.write_str("in_band"),
            Self::Timeout => f.write_str("timeout"),
        }
    }
}

/// What came of one request.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    pub(crate) error: Option<ErrorKind>,
    /// `X-Ingle-Backend` of the answer.
    pub(crate) backend: Option<String>,
    /// `X-Ingle-Affinity` of the answer.
    pub(crate) affinity: Option<String>,
    /// Time to the first token; of a plain answer, to its end.
    pub(crate) first_token: Option<Duration>,
    pub(crate) total: Duration,
    pub(crate) reading: Reading,
}

/// Sends requests over kept connections.
#[derive(Debug)]
pub(crate) struct Client {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    uris: Vec<Uri>,
    headers: HeaderMap,
    session_header: Option<HeaderName>,
    timeout: Duration,
}

impl Client {
    pub(crate) fn new(config: &LoadConfig) -> Result<Self, LoadError> {
        if config.urls.is_empty() {
            return Err(LoadError::NoUrl);
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(if config.keep_connections { usize::MAX } else { 0 })
            .pool_timer(TokioTimer::new())
            .build(connector);
        let uris = config.urls.iter().map(|url| parse_url(url, config.api.path())).collect::<Result<_, _>>()?;
        let session_header = config.session_header.as_deref().map(parse_name).transpose()?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in &config.headers {
            let value = HeaderValue::from_str(value).map_err(|_| LoadError::BadHeader(name.clone()))?;
            headers.append(parse_name(name)?, value);
        }
        if session_header.is_some() && HeaderValue::from_str(&config.session_prefix).is_err() {
            return Err(LoadError::BadHeader(config.session_prefix.clone()));
        }
        Ok(Self { http, uris, headers, session_header, timeout: config.timeout })
    }

    /// Sends `body` to URL number `url` (modulo their number) and reads the answer to its end.
    pub(crate) async fn exchange(&self, url: usize, session: Option<&str>, body: String) -> Exchange {
        let started = Instant::now();
        let mut exchange = Exchange::default();
        let sending = self.send(url, session, body, started, &mut exchange);
        match tokio::time::timeout(self.timeout, sending).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => exchange.error = Some(error),
            Err(_) => exchange.error = Some(ErrorKind::Timeout),
        }
        exchange.total = started.elapsed();
        exchange
    }

    async fn send(
        &self,
        url: usize,
        session: Option<&str>,
        body: String,
        started: Instant,
        exchange: &mut Exchange,
    ) -> Result<(), ErrorKind> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uris[url % self.uris.len()].clone();
        *request.headers_mut() = self.headers.clone();
        if let (Some(name), Some(id)) = (&self.session_header, session)
            && let Ok(id) = HeaderValue::from_str(id)
        {
            request.headers_mut().insert(name, id);
        }
        let answer = self
            .http
            .request(request)
            .await
            .map_err(|error| if error.is_connect() { ErrorKind::Connect } else { ErrorKind::NoAnswer })?;
        let text = |name| answer.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::to_owned);
        exchange.backend = text("x-ingle-backend");
        exchange.affinity = text("x-ingle-affinity");
        let status = answer.status().as_u16();
        let streams = text("content-type").is_some_and(|value| value.starts_with("text/event-stream"));
        let body = answer.into_body();
        if status != 200 {
            // Read to its end, so that the connection can be used again.
            let _ = body.collect().await;
            return Err(ErrorKind::Status(status));
        }
        if streams { read_stream(body, started, exchange).await } else { read_plain(body, started, exchange).await }
    }
}

async fn read_stream(mut body: Incoming, started: Instant, exchange: &mut Exchange) -> Result<(), ErrorKind> {
    let mut events = EventStream::default();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(if exchange.reading.error { ErrorKind::InBand } else { ErrorKind::Broken });
        };
        let Some(data) = frame.data_ref() else { continue };
        events.push(data, &mut exchange.reading);
        if exchange.first_token.is_none() && exchange.reading.has_output {
            exchange.first_token = Some(started.elapsed());
        }
    }
    match &exchange.reading {
        reading if reading.error => Err(ErrorKind::InBand),
        reading if !reading.is_done => Err(ErrorKind::Incomplete),
        _ => Ok(()),
    }
}

async fn read_plain(body: Incoming, started: Instant, exchange: &mut Exchange) -> Result<(), ErrorKind> {
    // An answer that is no stream starts with its first byte.
    exchange.reading.has_output = true;
    let body = body.collect().await.map_err(|_| ErrorKind::Broken)?.to_bytes();
    exchange.first_token = Some(started.elapsed());
    if !exchange.reading.take_json(&body) {
        return Err(ErrorKind::Incomplete);
    }
    if exchange.reading.error { Err(ErrorKind::InBand) } else { Ok(()) }
}

fn parse_url(url: &str, path: &str) -> Result<Uri, LoadError> {
    let whole = format!("{}{path}", url.trim_end_matches('/'));
    let uri: Uri = whole.parse().map_err(|_| LoadError::BadUrl(url.into()))?;
    if uri.scheme_str() == Some("http") && uri.host().is_some() { Ok(uri) } else { Err(LoadError::BadUrl(url.into())) }
}

fn parse_name(name: &str) -> Result<HeaderName, LoadError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| LoadError::BadHeader(name.into()))
}
