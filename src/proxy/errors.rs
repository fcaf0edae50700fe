//! The gateway answers by itself: which refusal fits what went wrong, and how it is told.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::attempt::{FULL, NO_BACKEND};
use super::body::BODY_TOO_LARGE;
use super::ctx::Ctx;
use super::refusal::{Refusal, Refused};
use super::retry;
use crate::link::{self, Cut};

/// Answers a request that goes to no backend. True: it is answered.
pub(super) async fn refuse(session: &mut Session, ctx: &mut Ctx, refused: Refused) -> Result<bool> {
    match refused {
        Refused::Answer(refusal) => respond(session, ctx, refusal, None).await.map(|()| true),
        Refused::Later(refusal, wait) => {
            // Whole seconds (RFC 9110, section 10.2.3), never too few.
            let seconds = wait.as_millis().div_ceil(1000).max(1).to_string();
            respond_and_keep(session, ctx, refusal, HeaderValue::from_str(&seconds).ok()).await.map(|()| true)
        }
        Refused::Failed(error) => Err(error),
    }
}

/// Answers a request whose last attempt failed, if its client is still there.
pub(super) async fn answer(session: &mut Session, ctx: &mut Ctx, e: &Error) -> FailToProxy {
    let none = FailToProxy { error_code: 0, can_reuse_downstream: false };
    ctx.record.error(e, ctx.cut);
    if retry::response_begun(session) {
        return none;
    }
    let Some(refusal) = refusal_for(ctx, e) else { return none };
    let turned_away = ctx.turned_away.as_ref().filter(|_| refusal != Refusal::TIMEOUT);
    let retry_after = turned_away.and_then(|turned_away| turned_away.retry_after.clone());
    if let Err(error) = respond(session, ctx, refusal, retry_after).await {
        tracing::debug!(%error, "the client left before its answer");
    }
    FailToProxy { error_code: refusal.status.as_u16(), can_reuse_downstream: false }
}

/// What to answer to an error; nothing if the client has left.
fn refusal_for(ctx: &Ctx, e: &Error) -> Option<Refusal> {
    match (e.esource(), e.etype()) {
        (_, kind) if *kind == BODY_TOO_LARGE => Some(Refusal::BODY_TOO_LARGE),
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => Some(Refusal::SLOW_BODY),
        (
            ErrorSource::Downstream,
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError | ErrorType::WriteTimedout,
        ) => None,
        (ErrorSource::Downstream, ErrorType::H2Error | ErrorType::ConnectError) => None,
        (ErrorSource::Downstream, _) => Some(Refusal::MALFORMED),
        _ if link::is_ours(e) => Some(Refusal::NO_DESCRIPTORS),
        (ErrorSource::Upstream, kind) => Some(upstream_refusal(ctx, kind)),
        (_, kind) if *kind == FULL => Some(Refusal::OVERLOADED),
        (_, kind) if *kind == NO_BACKEND => Some(Refusal::NONE_AVAILABLE),
        _ => Some(Refusal::INTERNAL),
    }
}

fn upstream_refusal(ctx: &Ctx, kind: &ErrorType) -> Refusal {
    match (ctx.cut, ctx.turned_away.as_ref().map(|turned_away| turned_away.status)) {
        (Some(Cut::Upload), _) => Refusal::SLOW_BODY,
        (Some(Cut::FirstByte | Cut::Idle | Cut::Total), _) => Refusal::TIMEOUT,
        (_, Some(StatusCode::TOO_MANY_REQUESTS)) => Refusal::BUSY,
        (_, Some(StatusCode::SERVICE_UNAVAILABLE)) => Refusal::NONE_AVAILABLE,
        _ if *kind == ErrorType::ConnectTimedout => Refusal::TIMEOUT,
        _ => Refusal::FAILED,
    }
}

async fn respond(
    session: &mut Session,
    ctx: &mut Ctx,
    refusal: Refusal,
    retry_after: Option<HeaderValue>,
) -> Result<()> {
    let (mut head, body) = written(session, ctx, refusal, retry_after)?;
    head.insert_header(header::CONNECTION, "close")?;
    session.as_downstream_mut().write_error_response(head, body).await?;
    linger(session).await;
    Ok(())
}

/// [`respond`], but the client keeps its connection if its request is over: it did nothing wrong, and to come again it would
/// need another one.
async fn respond_and_keep(
    session: &mut Session,
    ctx: &mut Ctx,
    refusal: Refusal,
    retry_after: Option<HeaderValue>,
) -> Result<()> {
    let small = !ctx.form.chunked && ctx.form.length.unwrap_or(0) <= WORTH_READING && !ctx.form.expects_continue;
    let over = session.as_downstream_mut().is_body_empty()
        || small && {
            linger(session).await;
            session.as_downstream_mut().is_body_done()
        };
    if !over {
        return respond(session, ctx, refusal, retry_after).await;
    }
    let (head, body) = written(session, ctx, refusal, retry_after)?;
    let downstream = session.as_downstream_mut();
    downstream.write_response_header(Box::new(head)).await?;
    if body.is_empty() { downstream.finish_body().await } else { downstream.write_response_body(body, true).await }
}

/// The head and the body of an answer, which counts from now on.
fn written(
    session: &Session,
    ctx: &mut Ctx,
    refusal: Refusal,
    retry_after: Option<HeaderValue>,
) -> Result<(ResponseHeader, Bytes)> {
    ctx.record.answer(refusal.status.as_u16(), refusal.code);
    let body = refusal.body();
    let mut head = ResponseHeader::build(refusal.status, Some(4))?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    if matches!(refusal.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        head.insert_header(header::RETRY_AFTER, retry_after.unwrap_or(HeaderValue::from_static(RETRY_AFTER)))?;
    }
    if refusal.status == StatusCode::UNAUTHORIZED {
        head.insert_header("WWW-Authenticate", "Bearer")?;
    }
    let body = if session.req_header().method == Method::HEAD { Bytes::new() } else { body };
    Ok((head, body))
}

/// Reads what the client is still sending, for a moment: a connection that is closed with bytes unread is reset, and
/// a reset may overtake the answer (RFC 9112, section 9.6).
async fn linger(session: &mut Session) {
    let session = session.as_downstream_mut();
    if !session.is_body_done() {
        session.set_total_drain_timeout(Some(LINGER));
        let _ = tokio::time::timeout(LINGER, session.drain_request_body()).await;
    }
}

/// Seconds after which a client may try again: the default interval of probes.
const RETRY_AFTER: &str = "2";
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of a body that are read so that its connection can be kept.
const WORTH_READING: u64 = 64 << 10;
