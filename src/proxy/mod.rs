//! The proxy: Pingora's phases, each handed to the file that knows.
//!
//! One request, straight down and straight up:
//!
//! | phase | file | what |
//! |---|---|---|
//! | `on_connection_reuse` | `connections.rs` | whose connection it is, so that it is not idle |
//! | `request_filter` | `head.rs`, `form.rs`, `limits.rs`, `access.rs`, `body.rs`, `reframe.rs` | refuse what is malformed, too much, or may not come; find the session, hold the body |
//! | `upstream_peer` | `attempt.rs`, `wait.rs` | select a backend, wait for room, count the request there |
//! | `fail_to_connect`, `error_while_proxy` | `retry.rs` | whose fault it was, and whether another attempt helps |
//! | `upstream_request_filter` | `attempt.rs`, `head.rs` | what the backend is told besides, and needs to read the head |
//! | `upstream_response_*` | `response.rs` | first byte, affinity headers, the tail with the usage figures |
//! | `fail_to_proxy` | `errors.rs`, `refusal.rs` | the gateway's own answers |
//! | drop | `record.rs` | every count, whatever way a request ends |
//!
//! Connections come in through `connections.rs`, over TLS by `handshake.rs`; those of HTTP/2 go on in `http2.rs`.

mod access;
mod attempt;
mod body;
mod connections;
mod ctx;
mod errors;
mod form;
mod handshake;
mod head;
mod http2;
mod limits;
mod record;
mod reframe;
mod refusal;
mod response;
mod retry;
mod wait;

use std::any::Any;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, Result};

use connections::Busy;
pub use connections::Connections;

use crate::gateway::Gateway;
use ctx::Ctx;

/// The proxy.
pub struct Proxy {
    gateway: Arc<Gateway>,
}

impl Proxy {
    /// A proxy for the gateway's listeners.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Proxy {
        Proxy { gateway }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    /// Boxed: Pingora moves it three times.
    type CTX = Box<Ctx>;

    fn new_ctx(&self) -> Box<Ctx> {
        Box::new(Ctx::new(&self.gateway))
    }

    /// None: compression would buffer streams.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    /// Told of each HTTP/1.1 request, the first one of a connection too: `connections.rs` sees to that.
    fn on_connection_reuse(&self, _session: &mut Session, ctx: &mut Box<Ctx>, told: Box<dyn Any + Send + Sync>) {
        ctx.busy = Busy::begin(told);
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<bool> {
        let held = match head::accept(session, ctx) {
            Ok(()) => body::hold(session, ctx).await,
            Err(refused) => Err(refused),
        };
        match held {
            Ok(()) => Ok(false),
            Err(refused) => errors::refuse(session, ctx, refused).await,
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<Box<HttpPeer>> {
        attempt::begin(session, ctx).await
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        peer: &HttpPeer,
        ctx: &mut Box<Ctx>,
        e: Box<Error>,
    ) -> Box<Error> {
        retry::after_connect(ctx, peer.address().as_inet().copied(), e)
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        fd: RawFd,
        digest: Option<&Digest>,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        attempt::connected(session, fd, digest, ctx);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        attempt::adapt(session, upstream, ctx)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        body::forward(session, body, end, ctx)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        response::head(session, response, ctx)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        response::frame(session, response, ctx);
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Ctx>,
    ) -> Result<Option<Duration>> {
        response::body(body.as_ref(), end, ctx);
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        e: Box<Error>,
        ctx: &mut Box<Ctx>,
        reused: bool,
    ) -> Box<Error> {
        retry::after_send(session, ctx, e, reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Box<Ctx>) -> FailToProxy {
        errors::answer(session, ctx, e).await
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, ctx: &mut Box<Ctx>) {
        response::end(ctx);
        ctx.record.end(session, e);
    }

    /// The access log and `errors.rs` say it better.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Box<Ctx>, _e: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Box<Ctx>,
        _e: &Error,
        _context: pingora::proxy::ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
