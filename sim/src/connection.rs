//! The life of one client connection.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;

use crate::config::ServerKind;
use crate::request::{ReadError, Request, read_request, wait_for_request};
use crate::routes;
use crate::server::Shared;
use crate::stats::{Disconnect, Progress};
use crate::wire::{End, Head, Wire};

/// Pipelined bytes that are held while an answer runs.
const MAX_PIPELINED: usize = 64 * 1024;

/// Serves requests until one side has had enough.
pub(crate) async fn serve(shared: Arc<Shared>, mut stream: TcpStream) {
    let _open = shared.ledger.connection();
    if shared.faults.at_accept() {
        return;
    }
    let _ = stream.set_nodelay(true);
    let mut buffer = BytesMut::new();
    let limit = shared.config.keep_alive.max_requests;
    for served in 0usize.. {
        if !wait_for_request(&mut stream, &mut buffer, shared.config.keep_alive.idle).await {
            return;
        }
        shared.faults.thawed().await;
        if served > 0 && shared.faults.at_reuse() {
            return;
        }
        let last = limit > 0 && served + 1 >= limit;
        let keep = match read_request(&mut stream, &mut buffer, shared.config.max_body).await {
            Ok(request) => answer(&shared, &mut stream, &mut buffer, request, last).await,
            Err(ReadError::Gone) => return,
            Err(error) => {
                refuse(&shared, &mut stream, &error).await;
                return;
            }
        };
        if !keep || last {
            return;
        }
    }
}

/// Answers one request; `false` when the connection is over.
async fn answer(shared: &Shared, stream: &mut TcpStream, buffer: &mut BytesMut, request: Request, last: bool) -> bool {
    shared.ledger.request(request.path(), request.session(), || request.record());
    if buffer.is_empty() {
        // An open stream needs no read buffer.
        *buffer = BytesMut::new();
    }
    let progress = Progress::default();
    let close = !request.keeps_alive() || (last && shared.config.keep_alive.announce);
    let outcome = {
        let (mut input, output) = stream.split();
        let mut wire = Wire::new(output, &shared.faults, &progress, head(shared, Some(&request), close));
        tokio::select! {
            biased;
            result = routes::answer(shared, &request, &mut wire) => result.map(|()| wire.closes()),
            () = client_gone(&mut input, buffer) => Err(End::Gone),
        }
    };
    match outcome {
        Ok(closes) => !closes,
        Err(End::Close) => false,
        Err(End::Reset) => {
            // If it fails the socket is broken already, which is what was asked for.
            let _ = stream.set_zero_linger();
            false
        }
        Err(End::Gone) => {
            let phase = progress.phase();
            let session = request.session().map(str::to_owned);
            shared.ledger.disconnected(Disconnect {
                at: Instant::now(),
                path: request.path().to_owned(),
                session,
                phase,
            });
            false
        }
    }
}

/// Returns when the client has closed its side. Both real servers take a half-closed connection for a lost one.
pub(crate) async fn client_gone(input: &mut ReadHalf<'_>, buffer: &mut BytesMut) {
    loop {
        match input.read_buf(buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) if buffer.len() > MAX_PIPELINED => std::future::pending().await,
            Ok(_) => {}
        }
    }
}

async fn refuse(shared: &Shared, stream: &mut TcpStream, error: &ReadError) {
    shared.ledger.malformed();
    let code = if matches!(error, ReadError::TooLarge) { 413 } else { 400 };
    let progress = Progress::default();
    let mut wire = Wire::new(stream.split().1, &shared.faults, &progress, head(shared, None, true));
    // The client may be gone; the connection ends either way.
    let _ = wire.whole(code, &[], b"").await;
}

fn head<'a>(shared: &'a Shared, request: Option<&Request>, close: bool) -> Head<'a> {
    let config = &shared.config;
    let max = if config.keep_alive.max_requests == 0 { 100 } else { config.keep_alive.max_requests };
    Head {
        server: config.server,
        name: &config.name,
        close,
        http10: request.is_some_and(|request| request.http10),
        bodiless: request.is_some_and(|request| request.method == "HEAD"),
        close_after_stream: config.keep_alive.close_after_stream,
        promise: (config.keep_alive.idle.as_secs().max(1), max),
    }
}

impl Shared {
    /// What llama-server answers to everything while it loads; vLLM does not listen then.
    pub(crate) fn answers_loading(&self) -> bool {
        self.config.server == ServerKind::LlamaServer && self.is_loading()
    }
}
