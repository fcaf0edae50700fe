//! A small HTTP server that remembers what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

/// Answers until it is dropped:
/// - `/redirect?URL`: 307 to the URL
/// - `/busy`: 503 twice, then 200
/// - a chat completion as OpenAI does, streamed or not
/// - anything else: 200
pub(crate) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
}

/// One request: its path and every value of its session header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) sessions: Vec<String>,
}

impl Server {
    pub(crate) async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, Arc::clone(&seen))).abort_handle();
        Server { address, seen, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The session of each request, which has at most one.
    pub(crate) fn sessions(&self) -> Vec<Option<String>> {
        let one = |mut seen: Seen| {
            assert!(seen.sessions.len() <= 1, "{seen:?}");
            seen.sessions.pop()
        };
        self.seen().into_iter().map(one).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut connections = JoinSet::new(); // they end with the server
    while let Ok((stream, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, &seen));
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
        });
    }
}

async fn answer(request: Request<Incoming>, seen: &Mutex<Vec<Seen>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let sessions = head.headers.get_all("x-session-id").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
    let times = {
        let mut seen = seen.lock().unwrap();
        seen.push(Seen { path: path.clone(), sessions });
        seen.iter().filter(|s| s.path == path).count()
    };
    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();

    let response = Response::builder();
    let response = match path.as_str() {
        "/redirect" => response
            .status(StatusCode::TEMPORARY_REDIRECT)
            .header(header::LOCATION, head.uri.query().unwrap_or_default())
            .body(Bytes::new()),
        "/busy" if times <= 2 => response.status(StatusCode::SERVICE_UNAVAILABLE).body(Bytes::new()),
        "/v1/chat/completions" if serde_json::from_slice::<serde_json::Value>(&body).unwrap()["stream"] == true => {
            response.header(header::CONTENT_TYPE, "text/event-stream").body(Bytes::from_static(CHUNKS))
        }
        "/v1/chat/completions" => {
            response.header(header::CONTENT_TYPE, "application/json").body(Bytes::from_static(COMPLETION))
        }
        _ => response.body(Bytes::from_static(b"ok")),
    };
    Ok(response.unwrap().map(Full::new))
}

const COMPLETION: &[u8] = br#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,
    "finish_reason":"stop","message":{"role":"assistant","content":"hello"}}]}"#;

const CHUNKS: &[u8] = br#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"hel"}}]}

data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}

data: [DONE]

"#;
