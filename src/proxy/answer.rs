//! The gateway's own answers, on their way to the client.

use std::borrow::Cow;
use std::future::poll_fn;
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use pingora::prelude::timeout;

use super::client::{Added, Client};
use super::ctx::Ctx;
use super::refusal::{Probe, Refusal, Refused};
use super::relay::Flow;
use crate::api::ApiError;
use crate::http1::{Field, Framing, ResponseHead};

/// Answers a request that no backend answers.
pub(super) async fn refuse<C: Client>(client: &mut C, ctx: &mut Ctx, refused: Refused) {
    // While it is answered it takes hardly any memory, and no descriptor: a refused request must not take the room of others.
    ctx.refused = ctx.gateway().refused.take(1, usize::MAX);
    let is_written = match refused {
        Refused::Probe(probe) => answer_probe(client, ctx, probe).await,
        Refused::Answer(refusal) | Refused::Later(refusal, _) if ctx.is_preflight() && is_passing(refusal) => {
            allow(client, ctx).await
        }
        Refused::Answer(refusal) => {
            let turned_away = ctx.turned_away.as_ref().filter(|_| refusal != Refusal::TIMEOUT);
            let retry_after = turned_away.and_then(|turned_away| turned_away.retry_after.clone());
            respond_and_close(client, ctx, refusal, retry_after).await
        }
        Refused::Later(refusal, wait) => {
            // Whole seconds (RFC 9110, section 10.2.3), never too few.
            let seconds = wait.as_millis().div_ceil(1000).max(1).to_string();
            respond_and_keep(client, ctx, refusal, seconds.into_bytes()).await
        }
        Refused::Gone => return,
    };
    if !is_written {
        tracing::debug!("the client left before its answer");
        client.close_after();
    }
}

/// Answers, and closes the connection. False if the client did not take the answer.
async fn respond_and_close<C: Client>(
    client: &mut C,
    ctx: &mut Ctx,
    refusal: Refusal,
    retry_after: Option<Vec<u8>>,
) -> bool {
    client.close_after();
    let is_written = write(client, ctx, refusal, retry_after).await;
    if is_written && client.lingers() {
        linger(client).await;
    }
    is_written
}

/// Answers, but the client keeps its connection if the rest of its request is small: it did nothing wrong, and to try again
/// it would need another connection.
async fn respond_and_keep<C: Client>(client: &mut C, ctx: &mut Ctx, refusal: Refusal, retry_after: Vec<u8>) -> bool {
    let small = !ctx.form.chunked && ctx.form.length.unwrap_or(0) <= WORTH_READING && !ctx.form.expects_continue;
    if small && client.lingers() {
        linger(client).await;
    }
    if client.lingers() {
        return respond_and_close(client, ctx, refusal, Some(retry_after)).await;
    }
    write(client, ctx, refusal, Some(retry_after)).await
}

/// Writes the answer, which counts from now on.
async fn write<C: Client>(client: &mut C, ctx: &mut Ctx, refusal: Refusal, retry_after: Option<Vec<u8>>) -> bool {
    let body = ctx.api.body(&error(ctx, refusal, &message(ctx, refusal)));
    ctx.record.answer(refusal);
    let length = body.len().to_string();
    let cors = ctx.cors.take();
    let mut fields = vec![field("Content-Type", b"application/json"), field("Content-Length", length.as_bytes())];
    if matches!(
        refusal.status,
        StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
    ) {
        fields.push(field("Retry-After", retry_after.as_deref().unwrap_or(RETRY_AFTER)));
    }
    if refusal.status == StatusCode::UNAUTHORIZED {
        fields.push(field("WWW-Authenticate", b"Bearer"));
    }
    if let Some(cors) = &cors {
        cors.add_to_error(&mut fields);
    }
    send(client, ctx, refusal.status, &fields, body.into_bytes()).await
}

/// Answers a load balancer.
async fn answer_probe<C: Client>(client: &mut C, ctx: &mut Ctx, probe: Probe) -> bool {
    let (status, body) = probe.answer();
    ctx.record.probe(status.as_u16());
    let length = body.len().to_string();
    let fields = [
        field("Content-Type", b"text/plain; charset=utf-8"),
        field("Content-Length", length.as_bytes()),
        field("Cache-Control", b"no-store"),
    ];
    send(client, ctx, status, &fields, body.as_bytes().to_vec()).await
}

/// Answers a preflight that no backend can answer.
async fn allow<C: Client>(client: &mut C, ctx: &mut Ctx) -> bool {
    ctx.record.preflight();
    let Some(cors) = ctx.cors.take() else { return false };
    send(client, ctx, StatusCode::NO_CONTENT, &cors.allow(), Vec::new()).await
}

/// Whether a refusal is about the moment. A preflight that gets one is allowed, so that the page can read the answer to its
/// request.
fn is_passing(refusal: Refusal) -> bool {
    refusal.status.is_server_error() || refusal.status == StatusCode::TOO_MANY_REQUESTS
}

async fn send<C: Client>(client: &mut C, ctx: &Ctx, status: StatusCode, fields: &[Field<'_>], body: Vec<u8>) -> bool {
    let reason = status.canonical_reason().unwrap_or_default();
    let head = ResponseHead::own(status.as_u16(), reason, fields, body.len() as u64);
    let head = client.head(&head, &Added::default());
    let mut out = if ctx.form.is_head { Vec::new() } else { body };
    if client.send_head(head, &mut out).is_err() {
        return false;
    }
    let write = async { write_all(client, &out).await && client.finish(None).is_ok() };
    timeout(MAX_WRITE, write).await.unwrap_or(false)
}

async fn write_all<C: Client>(client: &mut C, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        match poll_fn(|context| client.poll_write(context, rest)).await {
            Ok(written) if written > 0 => rest = &rest[written..],
            _ => return false,
        }
    }
    poll_fn(|context| client.poll_flush(context)).await.is_ok()
}

/// Ends a stream of which the client has the head and no output: with an error event, and a connection that breaks, since a
/// clean end would be an empty answer.
pub(super) async fn break_stream<C: Client>(client: &mut C, ctx: &mut Ctx, refusal: Refusal) {
    let mut flow = Flow::held(Framing::UntilClose, client, std::mem::take(&mut ctx.opening.unwritten));
    let message = message(ctx, refusal);
    flow.push_payload(ctx.api.event(&error(ctx, refusal, &message)).as_bytes());
    // An error means that the client has left.
    let _ = timeout(MAX_WRITE, write_all(client, &flow.take_unwritten())).await;
    client.break_off().await;
}

/// An error of the gateway.
fn error<'a>(ctx: &'a Ctx, refusal: Refusal, message: &'a str) -> ApiError<'a> {
    // Within a stream, the status that the backend sent.
    let sent = ctx.turned_away.as_ref().map(|turned_away| turned_away.status).filter(|_| refusal == Refusal::NO_STREAM);
    ApiError {
        status: sent.unwrap_or(refusal.status.as_u16()),
        code: refusal.code,
        message,
        request_id: ctx.record.request_id(),
    }
}

/// The message of an error: the backend's own where that is what went wrong, else the gateway's, with the cause.
fn message(ctx: &Ctx, refusal: Refusal) -> Cow<'static, str> {
    let of_backend = [Refusal::BUSY, Refusal::NONE_AVAILABLE, Refusal::ALL_FAILED, Refusal::NO_STREAM];
    let turned_away = ctx.turned_away.as_ref().filter(|_| of_backend.contains(&refusal));
    if let Some(turned_away) = turned_away.filter(|turned_away| !turned_away.message.is_empty()) {
        return turned_away.message.clone().into();
    }
    let has_cause = [Refusal::TIMEOUT, Refusal::FAILED, Refusal::ALL_FAILED].contains(&refusal);
    // Details, such as names in a certificate, are for the operator alone.
    match ctx.record.why().filter(|_| has_cause).and_then(|why| why.split(": ").next()) {
        Some(why) => format!("{} Cause: {why}.", refusal.message).into(),
        None => refusal.message.into(),
    }
}

fn field<'a>(name: &'a str, value: &'a [u8]) -> Field<'a> {
    Field { name, value }
}

/// Reads the rest of the request, for a moment.
pub(super) async fn linger<C: Client>(client: &mut C) {
    let mut dropped = BytesMut::new();
    let rest = async {
        while matches!(poll_fn(|context| client.poll_body(context, &mut dropped)).await, Ok(read) if read > 0) {
            dropped.clear();
        }
    };
    let _ = timeout(LINGER, rest).await;
}

/// Seconds after which a client can try again: the default interval of probes.
const RETRY_AFTER: &[u8] = b"2";
const LINGER: Duration = Duration::from_secs(1);
/// For a client that does not read.
const MAX_WRITE: Duration = Duration::from_secs(5);
/// Bytes of a body that are read so that its connection can be kept.
const WORTH_READING: u64 = 64 << 10;
