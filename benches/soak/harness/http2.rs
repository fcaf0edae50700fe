//! A client of HTTP/2 without TLS, to the same ends.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use h2::Reason;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::http1::{Answer, Broken, PATIENCE, STREAM_TYPE};

/// A connection that several clients share; there is another one when this one takes no more requests.
pub(crate) struct Shared {
    to: SocketAddr,
    /// What its clients show.
    key: Arc<str>,
    current: tokio::sync::Mutex<Option<Arc<Connection>>>,
}

/// A connection with any number of requests.
pub(crate) struct Connection {
    key: Arc<str>,
    requests: SendRequest<Bytes>,
    task: JoinHandle<()>,
    left: Mutex<usize>,
}

/// Why there is no whole answer.
pub(crate) enum Failure {
    /// The gateway says that it has not begun with it, and will take none on this connection.
    NotTaken,
    Broken(Broken),
}

impl Shared {
    pub(crate) fn new(to: SocketAddr, key: &str) -> Shared {
        Shared { to, key: key.into(), current: tokio::sync::Mutex::default() }
    }

    /// The connection for the next request.
    pub(crate) async fn connection(&self) -> Result<Arc<Connection>, Broken> {
        let mut current = self.current.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| connection.takes_one()) {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(Connection::open(self.to, &self.key).await?);
        *current = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// The next request gets another connection than this one.
    pub(crate) async fn give_up(&self, connection: &Arc<Connection>) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            *current = None;
        }
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn exchange(&self, session: Option<&str>, body: &Bytes) -> Result<Answer, Failure> {
        let connection = self.connection().await.map_err(Failure::Broken)?;
        let exchange = tokio::time::timeout(PATIENCE, connection.exchange(session, body));
        let answer = exchange
            .await
            .unwrap_or_else(|_| Err(Failure::Broken(Broken::early(format!("no end after {PATIENCE:?}")))));
        if answer.is_err() {
            self.give_up(&connection).await;
        }
        answer
    }
}

impl Connection {
    async fn open(to: SocketAddr, key: &Arc<str>) -> Result<Connection, Broken> {
        let early = |what: String| Broken::early(format!("connect: {what}"));
        let stream = TcpStream::connect(to).await.map_err(|error| early(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| early(error.to_string()))?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(8 << 20);
        let (requests, connection) = builder.handshake(stream).await.map_err(|error| early(error.to_string()))?;
        // How it ends shows in the streams.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { key: Arc::clone(key), requests, task, left: Mutex::new(REQUESTS) })
    }

    fn takes_one(&self) -> bool {
        let mut left = self.left.lock();
        *left = left.saturating_sub(1);
        *left > 0 && !self.task.is_finished()
    }

    async fn exchange(&self, session: Option<&str>, body: &Bytes) -> Result<Answer, Failure> {
        let (parts, mut stream) = self.begin(session, body).await?.into_parts();
        let mut bytes = BytesMut::new();
        let read = async {
            while let Some(piece) = stream.data().await {
                let piece = piece?;
                stream.flow_control().release_capacity(piece.len())?;
                bytes.extend_from_slice(&piece);
            }
            Ok(())
        };
        match read.await {
            Ok(()) => {
                let (status, backend) = (parts.status.as_u16(), header(&parts.headers, "x-ingle-backend"));
                Ok(Answer { status, backend, close: false, body: bytes.freeze() })
            }
            Err(error) => Err(Failure::Broken(broken(&parts.headers, &bytes, &error))),
        }
    }

    /// Sends a request and waits for the answer's head. The stream is reset when what is returned drops.
    pub(crate) async fn begin(&self, session: Option<&str>, body: &Bytes) -> Result<Response<h2::RecvStream>, Failure> {
        let mut request = Request::post("http://soak/v1/chat/completions").header("Content-Type", "application/json");
        request = request.header("Authorization", format!("Bearer {}", self.key));
        if let Some(session) = session {
            request = request.header("X-Session-Id", session);
        }
        // Without its length a large body can't be sent again when a backend dies (docs/failure-modes.md).
        if body.len() > SMALL || body.len().is_multiple_of(2) {
            request = request.header("Content-Length", body.len());
        }
        let request = request.body(()).map_err(|error| Failure::Broken(Broken::early(error.to_string())))?;
        // Before it is sent: whatever the connection died of, nobody has begun with it.
        let mut requests = self.requests.clone().ready().await.map_err(|_| Failure::NotTaken)?;
        let (response, mut sink) = requests.send_request(request, false).map_err(|_| Failure::NotTaken)?;
        let mut rest = body.clone();
        while !rest.is_empty() {
            sink.reserve_capacity(rest.len());
            let room = std::future::poll_fn(|cx| sink.poll_capacity(cx)).await;
            // What went wrong is told to who waits for the response.
            let Some(Ok(room)) = room else { break };
            let piece = rest.split_to(room.min(rest.len()));
            if sink.send_data(piece, rest.is_empty()).is_err() {
                break;
            }
        }
        response.await.map_err(|error| {
            not_taken(&error).unwrap_or_else(|| Failure::Broken(Broken::early(format!("before the answer: {error}"))))
        })
    }
}

/// An answer with these headers that broke after this much of its body.
pub(crate) fn broken(headers: &HeaderMap, body: &[u8], error: &h2::Error) -> Broken {
    let streams = header(headers, "content-type").is_some_and(|value| value.starts_with(STREAM_TYPE));
    Broken::after_head(header(headers, "x-ingle-backend"), streams, body, error.to_string())
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// RFC 9113, 6.8 and 8.7: a stream above the last one of a GOAWAY, or one that is refused, was not processed.
fn not_taken(error: &h2::Error) -> Option<Failure> {
    let goaway = error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
    let refused = error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
    (goaway || refused).then_some(Failure::NotTaken)
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A body that the gateway holds whatever is known of its length.
const SMALL: usize = 40 * 1024;
/// After so many requests a client goes on with another connection.
const REQUESTS: usize = 2_000;
