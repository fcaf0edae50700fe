//! An HTTP/2 client without TLS.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::Req;
use crate::harness::PATIENCE;

/// A connection.
pub(crate) struct H2c {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

impl H2c {
    pub(crate) async fn connect(address: SocketAddr) -> H2c {
        H2c::with_window(address, 65_535).await
    }

    /// `window`: how many bytes of each response may come before they are read.
    pub(crate) async fn with_window(address: SocketAddr, window: u32) -> H2c {
        H2c::over(TcpStream::connect(address).await.unwrap(), window).await
    }

    /// On a connection that is there, such as one over TLS.
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, window: u32) -> H2c {
        let handshake = h2::client::Builder::new().initial_window_size(window).handshake(stream);
        let (requests, connection) = handshake.await.unwrap();
        // How it ends shows in the streams.
        let connection = tokio::spawn(async move { drop(connection.await) });
        H2c { requests, connection }
    }

    /// Sends a request, its length declared or not, and reads the whole response.
    pub(crate) async fn send(&self, req: &Req, declare_length: bool) -> Response<Vec<u8>> {
        timeout(PATIENCE, self.exchange(req, declare_length)).await.expect("an answer").expect("no stream error")
    }

    /// Only the response's head; the stream is reset when the response drops.
    pub(crate) async fn begin(&self, req: &Req) -> Response<h2::RecvStream> {
        let mut requests = self.requests.clone().ready().await.unwrap();
        let (response, mut body) = requests.send_request(head(req, true), false).unwrap();
        body.send_data(Bytes::from(req.body.clone()), true).unwrap();
        timeout(PATIENCE, response).await.expect("a head").unwrap()
    }

    /// Sends a head that promises the body and then only `part` of it; the response's status, if there is one.
    pub(crate) async fn stall(&self, req: &Req, part: usize) -> Option<u16> {
        let mut requests = self.requests.clone().ready().await.unwrap();
        let (response, mut body) = requests.send_request(head(req, true), false).unwrap();
        body.send_data(Bytes::copy_from_slice(&req.body[..part]), false).unwrap();
        let response = timeout(PATIENCE, response).await.expect("an answer or an end");
        response.ok().map(|response| response.status().as_u16())
    }

    /// As [`H2c::send`], for what may fail.
    pub(crate) async fn exchange(&self, req: &Req, declare_length: bool) -> Result<Response<Vec<u8>>, h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        let empty = req.body.is_empty();
        let (response, mut body) = requests.send_request(head(req, declare_length), empty)?;
        let mut rest = Bytes::from(req.body.clone());
        while !rest.is_empty() {
            body.reserve_capacity(rest.len());
            let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await;
            let Some(Ok(room)) = room else { break };
            let piece = rest.split_to(room.min(rest.len()));
            body.send_data(piece, rest.is_empty())?;
        }
        let (parts, mut stream) = response.await?.into_parts();
        let mut bytes = Vec::new();
        while let Some(piece) = stream.data().await {
            let piece = piece?;
            stream.flow_control().release_capacity(piece.len())?;
            bytes.extend(piece);
        }
        Ok(Response::from_parts(parts, bytes))
    }
}

impl Drop for H2c {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn head(req: &Req, declare_length: bool) -> Request<()> {
    let mut head = Request::builder().method(req.method.as_str()).uri(format!("http://llm.test{}", req.path));
    for (name, value) in req.headers.iter().filter(|(name, _)| name != "Host") {
        head = head.header(name, value);
    }
    if declare_length && !req.body.is_empty() {
        head = head.header("Content-Length", req.body.len());
    }
    head.body(()).unwrap()
}
