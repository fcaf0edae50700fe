//! HTTP/2 towards clients: a connection with its bounds, and a client with one stream.
//!
//! Pingora's server reads the requests. Frames that break the protocol, and floods of those that are allowed
//! (continuations, resets before a stream was looked at), end the connection: the `h2` crate sees to that. What it can't
//! see is a client that opens streams and resets each a moment later (CVE-2023-44487, slowly): each would be work for a
//! backend. So that is counted here.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::http::ResponseHeader;
use pingora::prelude::sleep;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, HttpSession, default_h2_options};
use pingora::server::ShutdownWatch;
use tokio::sync::Notify;

use super::client::{Added, BodyError, Client, Coding, Connection};
use super::ctx::Ctx;
use super::http1::is_own;
use super::{exchange, head};
use crate::config::Limits;
use crate::gateway::Gateway;
use crate::http1::{Framing, MAX_TRAILERS, ResponseHead, parse_trailers};

/// Serves a connection until its end, with the limits that were valid at its start.
pub(super) async fn serve(
    gateway: Arc<Gateway>,
    listener: SocketAddr,
    stream: Stream,
    limits: &Limits,
    shutdown: &ShutdownWatch,
) {
    let mut server = HttpServerOptions::default();
    server.h2c = true;
    server.h2_idle_timeout = Some(limits.header_timeout);
    let streams = Arc::<Streams>::default();
    let connection = Arc::new(Connection::new(&stream, listener, Some(Arc::clone(&streams))));
    let app = Arc::new(Http2App { gateway, connection, server, bounds: bounds(limits) });
    tokio::select! {
        _ = app.process_new(stream, shutdown) => {}
        () = streams.abused() => tracing::info!("connection closed: its client resets nearly every stream it opens"),
    }
}

/// To Pingora, each connection is an application.
struct Http2App {
    gateway: Arc<Gateway>,
    connection: Arc<Connection>,
    server: HttpServerOptions,
    bounds: H2Options,
}

#[async_trait]
impl HttpServerApp for Http2App {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if let ServerSession::H2(session) = session {
            let mut ctx = Box::new(Ctx::new(&self.gateway, &self.connection));
            let accepted = head::accept(session.req_header(), None, &mut ctx);
            exchange::serve(&mut Http2 { session, body: None }, &mut ctx, accepted).await;
        }
        None
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.bounds.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.server)
    }
}

/// A client that sent a request over HTTP/2.
struct Http2 {
    session: HttpSession,
    /// The body of the response, once its head was sent.
    body: Option<SendStream<Bytes>>,
}

/// The head of a response over HTTP/2.
struct Http2Head {
    /// `None` if the status is none.
    fields: Option<Box<ResponseHeader>>,
    /// Whether no body follows.
    is_empty: bool,
}

impl Client for Http2 {
    type Head = Http2Head;

    fn poll_body(&mut self, context: &mut Context<'_>, into: &mut BytesMut) -> Poll<Result<usize, BodyError>> {
        loop {
            match ready!(self.session.poll_read_body_bytes(context)) {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => {
                    into.extend_from_slice(&piece);
                    return Poll::Ready(Ok(piece.len()));
                }
                None => return Poll::Ready(Ok(0)),
                Some(Err(_)) => return Poll::Ready(Err(BodyError::Gone)),
            }
        }
    }

    fn body_at_hand(&mut self, _length: usize) -> Option<Bytes> {
        None
    }

    fn is_body_complete(&self) -> bool {
        self.session.is_body_done()
    }

    fn body_received(&self) -> u64 {
        self.session.body_bytes_read() as u64
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.body {
            Some(body) => body.poll_reset(context).map(drop),
            None => Pin::new(&mut self.session.idle()).poll(context).map(drop),
        }
    }

    fn head(&mut self, response: &ResponseHead<'_, '_>, added: &Added<'_>) -> Self::Head {
        let is_empty = response.framing == Framing::Length(0);
        let fields = ResponseHeader::build_no_case(response.status, Some(response.fields.len() + 4)).map(|mut head| {
            for field in response.forwarded().filter(|field| !is_own(field.name)) {
                if let Ok(value) = HeaderValue::from_bytes(field.value) {
                    // An error means that HTTP/2 can't carry it.
                    let _ = head.append_header(field.name.to_ascii_lowercase(), value);
                }
            }
            if let Some((backend, affinity)) = added.placement {
                let _ = head.insert_header("x-ingle-backend", backend.clone());
                let _ = head.insert_header("x-ingle-affinity", HeaderValue::from_static(affinity));
            }
            if added.unbuffered {
                let _ = head.insert_header("x-accel-buffering", "no");
            }
            Box::new(head)
        });
        Http2Head { fields: fields.ok(), is_empty }
    }

    fn send_head(&mut self, head: Http2Head, _out: &mut Vec<u8>) -> io::Result<()> {
        let fields = head.fields.ok_or(io::ErrorKind::InvalidData)?;
        self.session.write_response_header(fields, head.is_empty).map_err(|_| gone())?;
        self.body = self.session.take_response_body_writer().filter(|_| !head.is_empty);
        Ok(())
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(body) = self.body.as_mut().filter(|_| !bytes.is_empty()) else { return Poll::Ready(Ok(bytes.len())) };
        body.reserve_capacity(bytes.len());
        // `poll_capacity` is ready for new capacity only.
        while body.capacity() == 0 {
            match ready!(body.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(gone())),
            }
        }
        let piece = &bytes[..bytes.len().min(body.capacity())];
        let sent = body.send_data(Bytes::copy_from_slice(piece), false);
        Poll::Ready(sent.map(|()| piece.len()).map_err(|_| gone()))
    }

    fn poll_flush(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self, trailers: Option<&[u8]>) -> io::Result<()> {
        let Some(mut body) = self.body.take() else { return Ok(()) };
        match trailers.map(fields).filter(|fields| !fields.is_empty()) {
            Some(fields) => body.send_trailers(fields),
            None => body.send_data(Bytes::new(), true),
        }
        .map_err(|_| gone())
    }

    fn coding(&self, _framing: Framing) -> Coding {
        Coding::Payload
    }

    /// Pingora's server can't send any.
    fn write_interim(&mut self, _response: &ResponseHead<'_, '_>, _out: &mut Vec<u8>) {}

    /// An upgrade is of HTTP/1.1.
    fn poll_read_upgraded<R>(
        &mut self,
        _context: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Poll<io::Result<R>> {
        Poll::Ready(Ok(take(&[])))
    }

    fn lingers(&self) -> bool {
        false
    }

    /// A reset drops what h2 has not written yet, and h2 does not say when it has, so this waits for a moment.
    async fn break_off(&mut self) {
        if let Some(mut body) = self.body.take() {
            sleep(FLUSH).await;
            body.send_reset(Reason::INTERNAL_ERROR);
        }
    }

    fn close_after(&mut self) {}
}

fn fields(trailers: &[u8]) -> HeaderMap {
    let mut slots = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let parsed = parse_trailers(trailers, &mut slots).unwrap_or_default().iter();
    let field = |field: &httparse::Header<'_>| {
        Some((HeaderName::from_bytes(field.name.as_bytes()).ok()?, HeaderValue::from_bytes(field.value).ok()?))
    };
    parsed.filter_map(field).collect()
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

fn bounds(limits: &Limits) -> H2Options {
    let mut bounds = default_h2_options();
    // HTTP/2 counts 32 bytes for each field besides name and value (RFC 9113, section 6.5.2), `limits` counts 4.
    let list = limits.max_header_bytes.saturating_add(MAX_FIELDS * (32 - 4));
    bounds.max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX));
    bounds.max_concurrent_streams(limits.http2_streams);
    bounds.max_send_buffer_size(MAX_UNSENT);
    // Streams that the client reset before Pingora looked at them; more end the connection.
    bounds.max_pending_accept_reset_streams(20);
    // Streams that we reset for an error of theirs; more end the connection.
    bounds.max_local_error_reset_streams(Some(MOST_ERRORS));
    bounds
}

/// How the streams of one connection ended.
#[derive(Default)]
pub(super) struct Streams {
    all: AtomicU32,
    given_up: AtomicU32,
    abused: Notify,
}

impl Streams {
    /// One has ended, perhaps because its client gave it up, after this time.
    pub(super) fn ended(&self, left: bool, after: Duration) {
        let all = self.all.fetch_add(1, Ordering::Relaxed) + 1;
        if left && after < HARDLY_A_WAIT {
            let given_up = self.given_up.fetch_add(1, Ordering::Relaxed) + 1;
            if given_up >= FORGIVEN && given_up > all / 2 {
                self.abused.notify_one();
            }
        }
    }

    async fn abused(&self) {
        self.abused.notified().await;
    }
}

/// How long what was written has to leave before its stream is reset.
const FLUSH: Duration = Duration::from_millis(20);
/// Streams of one connection that we reset for an error of its client.
const MOST_ERRORS: usize = 100;
/// Bytes of a stream's response that wait for a client that does not read; h2's own default is 400 KiB.
const MAX_UNSENT: usize = 64 << 10;
/// As many fields as a head may have over HTTP/1.1 (Pingora's bound).
const MAX_FIELDS: usize = 256;
/// Who gives up so soon has hardly waited for an answer.
const HARDLY_A_WAIT: Duration = Duration::from_secs(1);
/// So many streams may be given up so soon, whatever the others do: a harness that is stopped drops all it has.
const FORGIVEN: u32 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_abused(streams: &Streams) -> bool {
        tokio::time::timeout(Duration::ZERO, streams.abused()).await.is_ok()
    }

    #[tokio::test]
    async fn giving_up_is_abuse_if_it_is_most_of_what_a_client_does() {
        let streams = Streams::default();
        for _ in 1..FORGIVEN {
            streams.ended(true, Duration::ZERO);
        }
        assert!(!is_abused(&streams).await, "forgiven");
        for _ in 0..1000 {
            streams.ended(false, Duration::ZERO);
            streams.ended(true, HARDLY_A_WAIT);
        }
        streams.ended(true, Duration::ZERO);
        assert!(!is_abused(&streams).await, "few among many, and others had waited");
        for _ in 0..2500 {
            streams.ended(true, Duration::ZERO);
        }
        assert!(is_abused(&streams).await);
    }
}
