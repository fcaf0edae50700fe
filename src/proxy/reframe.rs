//! A chunked body that was read to its end is made one that Pingora sends, and sends again.
//!
//! Pingora begins a request's body, on every attempt, with its retry buffer. A body beyond 64 KiB has overflowed that:
//! Pingora then takes it for sent, never calls the body filter and sends none of it. With a declared length the buffer
//! can be switched on for the end alone (`body.rs`), but nobody knows the end of a chunked body before it is there.
//!
//! So the session is given a second request to read, [`STAND_IN`], as if the client had pipelined it. Its body is one
//! byte, which goes into the retry buffer; the body filter replaces it with the whole body. The real head, with a length
//! in the place of the chunks, is put back then. It is still the same session: its connection, its timeouts and the
//! watch for a client that leaves are as they were. Trailers are lost, as Pingora would lose them.
//!
//! What of Pingora 0.9.1 this leans on (`pingora-core`, `protocols/http/v1/server.rs` and `body.rs`):
//! - `read_request` takes a pipelined prefix that has a whole head without touching the socket; of all settings it
//!   changes only the keep-alive.
//! - The first read of a body empties the retry buffer, and forgets that it had overflowed.
//! - A malformed chunk ends a body there and then, and leaves alone what the client has sent beyond its own body. A
//!   well-formed end would drop that, and the rest of a pipelined request would be read as a request of its own. As it
//!   is, Pingora sees that there is something and closes the connection after the response, as it does without us.
//!
//! [`with_length`] checks what comes of it and fails otherwise: better no answer than half a body.

use bytes::BytesMut;
use http::header;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

/// Makes a chunked HTTP/1.1 body of `length` bytes, more than none and read to its end, one with a declared length.
/// From now on Pingora calls the body filter once on each attempt, with one byte and `end`.
///
/// # Errors
/// Pingora does not do what this leans on, or the session is not of HTTP/1.1. The request cannot be answered then.
pub(super) async fn with_length(session: &mut Session, length: usize) -> Result<()> {
    let downstream = session.as_downstream_mut();
    if downstream.as_http1().is_none() || !downstream.is_body_done() || downstream.is_body_empty() {
        return Err(unexpected());
    }
    let keepalive = downstream.get_keepalive();
    let mut head = downstream.req_header().clone();
    head.remove_header(&header::TRANSFER_ENCODING);
    head.remove_header(&header::TRAILER);
    head.insert_header(header::CONTENT_LENGTH, length)?;

    let outcome = read_stand_in(downstream).await;
    *downstream.req_header_mut() = head;
    // `Connection: close`, which the head may say, goes first.
    downstream.set_keepalive(keepalive);
    outcome
}

async fn read_stand_in(downstream: &mut ServerSession) -> Result<()> {
    downstream.set_pipelined_prefix(BytesMut::from(STAND_IN));
    let is_read = downstream.read_request().await?;
    downstream.enable_retry_buffering();
    let byte = downstream.read_request_body().await?;
    let is_cut = downstream.read_request_body().await.is_err();
    let is_kept = byte.is_some() && byte == downstream.get_retry_buffer();
    let is_over = downstream.is_body_done() && !downstream.is_body_empty();
    if is_read && is_cut && is_kept && is_over { Ok(()) } else { Err(unexpected()) }
}

/// Bytes of the request's body that have come from the client.
pub(super) fn received(session: &Session) -> u64 {
    let downstream = session.as_downstream();
    let stand_in = downstream.as_http1().is_some_and(|session| STAND_IN.starts_with(&session.get_headers_raw_bytes()));
    let all = downstream.body_bytes_read();
    // Its one byte is counted too.
    all.saturating_sub(usize::from(stand_in)) as u64
}

fn unexpected() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "a chunked body could not be given a length")
}

/// A head as Pingora wants one, one byte in a chunk, and what is no chunk.
const STAND_IN: &[u8] = b"POST / HTTP/1.1\r\nHost: stand-in\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n!";
