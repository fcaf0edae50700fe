//! One attempt at one backend: connect, send the request, read the response, relay it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use pingora::Error;
use pingora::prelude::timeout;
use pingora::protocols::{Stream, TcpKeepalive};
use pingora::upstreams::peer::HttpPeer;

use super::body::{Body, upload_due};
use super::client::Client;
use super::ctx::Ctx;
use super::judge;
use super::pipe::{FromClient, Pipe, Stop, Upload};
use super::relay::{Flow, relay};
use super::response::{self, Accepted};
use super::{first_token, retry, tunnel};
use crate::api;
use crate::core::{Millis, Selection};
use crate::gateway::Gateway;
use crate::http1::ResponseHead;
use crate::link::{Attempt, ConnectionOrigin, Link, Terms, UNRESOLVED};

/// Why an attempt failed.
pub(super) enum Failed {
    /// No connection could be made, to this address if the name has one.
    Connect(Box<Error>, Option<SocketAddr>),
    /// It stopped before the head of a response.
    Before {
        stop: Stop,
        /// Whether the connection had served others before, and nothing came for this request.
        reused: bool,
        /// Milliseconds since the attempt started.
        after: Millis,
    },
    /// It stopped after the head of a stream, before its first output.
    BeforeToken {
        stop: Stop,
        /// Milliseconds since the attempt started.
        after: Millis,
    },
    /// The answer was given up for another attempt.
    TurnedAway,
    /// The answer can't continue the stream whose head the client has.
    Other,
    /// It stopped after the response had started.
    Broken(Stop),
}

/// A connection to a backend.
struct Connected {
    stream: Stream,
    origin: ConnectionOrigin,
    reused: bool,
}

/// Makes an attempt, over a fresh connection if `fresh`.
pub(super) async fn run<C: Client>(
    client: &mut C,
    ctx: &mut Ctx,
    selection: Selection,
    fresh: bool,
) -> Result<(), Failed> {
    let link = Arc::clone(&ctx.snapshot.links[selection.member]);
    let there = match ctx.kind.takes_slot() {
        true => ctx.snapshot.pool.enter(&selection, ctx.now()),
        false => ctx.snapshot.pool.enter_query(&selection),
    };
    ctx.seat = Some(link.queue.seat(there));
    // A body that can't be sent again must not meet a connection that the backend has closed.
    let reusable = if fresh || !ctx.body.is_here() { None } else { take_idle(ctx, &link) };
    let Connected { mut stream, origin, reused } = match reusable {
        Some(connected) => connected,
        // In a box: few requests need it.
        None => Box::pin(connect(client, ctx, &link)).await?,
    };
    let attempt = enter(ctx, client.body_received(), &link);
    let after = |ctx: &Ctx| ctx.now().saturating_sub(attempt.started());
    let mut pipe = Pipe {
        client,
        backend: &mut stream,
        upload: upload(ctx, &link),
        attempt: &attempt,
        clock: ctx.gateway().clock,
    };
    let mut was_silent = true;
    let mut reply = match receive(&mut pipe, ctx, &mut was_silent).await {
        Ok(Accepted::Reply(reply)) => reply,
        Ok(Accepted::GivenUp) => return Err(Failed::TurnedAway),
        Ok(Accepted::Other(flow, body)) => return Err(Box::pin(explain(&mut pipe, ctx, flow, body)).await),
        Err(stop) => return Err(Failed::Before { stop, reused: reused && was_silent, after: after(ctx) }),
    };
    pipe.upload.clear();
    if reply.held.is_some() {
        let waited = first_token::wait(&mut pipe, ctx, &mut reply).await;
        waited.map_err(|stop| Failed::BeforeToken { stop, after: after(ctx) })?;
    } else if let Some(head) = reply.head.take() {
        reply.flow.send_head(pipe.client, head).map_err(|_| Failed::Broken(Stop::Gone))?;
    }
    if reply.switches {
        return Box::pin(tunnel::run(&mut pipe, &mut reply.flow, ctx)).await.map_err(Failed::Broken);
    }
    relay(&mut pipe, &mut reply.flow, |piece| response::note_body(ctx, piece)).await.map_err(Failed::Broken)?;
    judge::completed(ctx);
    if reply.keep_alive && reply.flow.is_clean() && pipe.upload.is_complete() {
        keep(ctx.gateway(), ctx.snapshot.idle_connections, &link, stream, origin);
    }
    Ok(())
}

/// An idle connection to the backend, if there is one.
fn take_idle(ctx: &Ctx, link: &Link) -> Option<Connected> {
    let origin = origin(ctx, link, link.address.current()?);
    let stream = link.idle.take(origin, ctx.snapshot.keep_alive, ctx.now())?;
    Some(Connected { stream, origin, reused: true })
}

/// Keeps a connection for other requests, if there is room.
fn keep(gateway: &Gateway, max: usize, link: &Link, stream: Stream, origin: ConnectionOrigin) {
    if let Some(share) = gateway.idle_connections.take(1, max) {
        link.idle.put(stream, origin, share, gateway.clock.now());
    }
}

fn origin(ctx: &Ctx, link: &Link, address: SocketAddr) -> ConnectionOrigin {
    ConnectionOrigin { address, tls_generation: ctx.gateway().certificates.generation(link.address.origin()) }
}

/// Makes a connection, unless the client leaves meanwhile.
async fn connect<C: Client>(client: &mut C, ctx: &Ctx, link: &Link) -> Result<Connected, Failed> {
    let mut connecting = pin!(new_connection(ctx, link));
    poll_fn(|context| match connecting.as_mut().poll(context) {
        Poll::Ready(connected) => Poll::Ready(connected),
        Poll::Pending => {
            client.poll_gone(context).map(|()| Err(Failed::Before { stop: Stop::Gone, reused: false, after: 0 }))
        }
    })
    .await
}

async fn new_connection(ctx: &Ctx, link: &Link) -> Result<Connected, Failed> {
    let limit = ctx.snapshot.config.pool().timeouts.connect;
    let address = link.address.get_within(limit).await.map_err(|error| {
        Failed::Connect(Error::because(UNRESOLVED, "can't resolve the backend's name", error), None)
    })?;
    let origin = origin(ctx, link, address);
    let failed = |error| Failed::Connect(error, Some(address));
    let mut peer = ctx.gateway().certificates.peer(address, link.address.origin()).map_err(failed)?;
    tune(&mut peer, limit);
    let stream = ctx.gateway().connector.new_stream(&peer).await.map_err(failed)?;
    Ok(Connected { stream, origin, reused: false })
}

fn tune(peer: &mut HttpPeer, limit: Duration) {
    peer.options.connection_timeout = Some(limit);
    peer.options.total_connection_timeout = Some(limit);
    peer.options.tcp_keepalive = Some(TCP_KEEPALIVE);
}

/// From now on the attempt can be cut.
fn enter(ctx: &Ctx, received: u64, link: &Link) -> Attempt {
    let movable = ctx.body.is_replayable() && retry::has_another(ctx);
    let (now, grace) = (ctx.now(), ctx.snapshot.config.limits.header_timeout);
    let due = (!ctx.body.is_here()).then(|| upload_due(grace, ctx.started, now, received));
    let (started, deadlines, produces) = (ctx.started, ctx.snapshot.deadlines, ctx.kind.takes_slot());
    link.attempts.enter(Terms { movable, produces, started, deadlines }, now, due)
}

/// The request for this backend. A body that is not held can be sent once.
fn upload(ctx: &mut Ctx, link: &Link) -> Upload {
    let framing = ctx.body.framing(ctx.form.length);
    let expects_continue = ctx.form.expects_continue && !ctx.body.is_here();
    let head = ctx.head.write(link, framing, expects_continue);
    match &mut ctx.body {
        Body::Empty | Body::Sent => Upload::whole(head, Bytes::new()),
        Body::Held { bytes, .. } => Upload::whole(head, bytes.clone()),
        Body::Streamed { start, .. } => {
            let start = std::mem::take(start);
            ctx.body = Body::Sent;
            let limits = &ctx.snapshot.config.limits;
            let (chunked, max) = (ctx.form.length.is_none(), limits.max_body);
            Upload::streamed(
                head,
                start,
                FromClient { chunked, max, grace: limits.header_timeout, started: ctx.started },
            )
        }
    }
}

/// Sends the request and reads the head of its response. Once anything came, `was_silent` is false: then the backend has
/// seen the request.
async fn receive<C: Client>(
    pipe: &mut Pipe<'_, C>,
    ctx: &mut Ctx,
    was_silent: &mut bool,
) -> Result<Accepted<C::Head>, Stop> {
    let mut seen = Vec::new();
    loop {
        let is_open = poll_fn(|context| {
            pipe.poll_read(context, |_, _, bytes| {
                seen.extend_from_slice(bytes);
                !bytes.is_empty()
            })
        });
        if !is_open.await? {
            return Err(Stop::Closed);
        }
        *was_silent = false;
        loop {
            match parse(&mut seen, pipe, ctx)? {
                Parsed::Incomplete => break,
                Parsed::Interim(response) => pipe.write_all(&response).await?,
                Parsed::Final(accepted) => return Ok(accepted),
            }
        }
    }
}

/// What the first bytes of a response are.
enum Parsed<H> {
    Incomplete,
    /// An interim response, as this client gets it.
    Interim(Vec<u8>),
    Final(Accepted<H>),
}

/// Takes a head off `seen`. Not in [`receive`], whose state would have room for all fields.
fn parse<C: Client>(seen: &mut Vec<u8>, pipe: &mut Pipe<'_, C>, ctx: &mut Ctx) -> Result<Parsed<C::Head>, Stop> {
    let mut slots = ResponseHead::slots();
    let Some(head) = ResponseHead::parse(seen, &mut slots, ctx.form.is_head).map_err(Stop::Malformed)? else {
        return Ok(Parsed::Incomplete);
    };
    if head.is_interim() {
        let mut out = Vec::new();
        pipe.client.write_interim(&head, &mut out);
        let length = head.length;
        seen.drain(..length);
        return Ok(Parsed::Interim(out));
    }
    response::accept(&head, &seen[head.length..], pipe.client, ctx, pipe.attempt).map(Parsed::Final)
}

/// Reads the message of an answer that can't continue the client's stream.
async fn explain<C: Client>(pipe: &mut Pipe<'_, C>, ctx: &mut Ctx, mut flow: Flow, mut body: Vec<u8>) -> Failed {
    let rest = async {
        while !flow.is_complete() && body.len() < MAX_EXPLANATION {
            poll_fn(|context| {
                pipe.poll_read(context, |_, _, bytes| flow.hold(bytes, |payload| body.extend_from_slice(payload)))
            })
            .await??;
        }
        Ok::<(), Stop>(())
    };
    // What has come by then may be enough.
    let _ = timeout(MAX_WAIT, rest).await;
    if let Some(turned_away) = &mut ctx.turned_away {
        turned_away.message = api::message(&body).unwrap_or_default();
    }
    Failed::Other
}

/// Bytes of an answer that are read for its message.
const MAX_EXPLANATION: usize = 64 << 10;
/// How long an answer is waited for whose head has come.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// A backend that vanishes without a FIN (power, cable, kernel) is noticed after about a minute: by keep-alive probes
/// while it should be answering, by the user timeout (RFC 5482) while it should be acknowledging a request.
const TCP_KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(30),
    interval: Duration::from_secs(10),
    count: 3,
    user_timeout: Duration::from_secs(30),
};
