//! The gateway's own bounds, as they are met: a connection that is turned away, a request that is refused before its body
//! is read.

use std::net::IpAddr;
use std::time::Duration;

use pingora::prelude::timeout;
use pingora::protocols::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ctx::Ctx;
use super::refusal::{Refusal, Refused};
use crate::core::clients::ClientId;
use crate::metrics::Shed;

/// Refuses a request for which there is no room, or whose client asks too often. What runs goes on.
pub(super) fn admit(ctx: &mut Ctx) -> Result<(), Refused> {
    let Err((shed, refused)) = check(ctx) else { return Ok(()) };
    let gateway = ctx.gateway();
    gateway.metrics.limits.shed(shed);
    ctx.refused = gateway.refused.take(1, usize::MAX);
    Err(refused)
}

fn check(ctx: &Ctx) -> Result<(), (Shed, Refused)> {
    let gateway = ctx.gateway();
    gateway.admit(&ctx.snapshot).map_err(|shed| match shed {
        Shed::Descriptors => (shed, Refusal::NO_DESCRIPTORS.into()),
        _ => (shed, Refusal::NO_MEMORY.into()),
    })?;
    let (Some(rate), Some(client)) = (ctx.snapshot.client_rate, ctx.asker.address.map(id)) else { return Ok(()) };
    gateway
        .clients
        .ask(client, rate, ctx.now())
        .map_err(|wait| (Shed::ClientRequests, Refused::Later(Refusal::TOO_OFTEN, Duration::from_millis(wait))))
}

/// Who has this address, to `limits.per_client`.
pub(super) fn id(address: IpAddr) -> ClientId {
    match address.to_canonical() {
        IpAddr::V4(address) => ClientId::v4(address.into()),
        IpAddr::V6(address) => ClientId::v6(address.into()),
    }
}

/// Says why, and closes. What the client has sent is read first: a connection that is closed with bytes unread is reset,
/// and a reset may overtake the answer.
pub(super) async fn turn_away(mut stream: Stream, shed: Shed) {
    let answer = async {
        let _ = timeout(GLANCE, stream.read(&mut [0; 4096])).await;
        stream.write_all(&answer_to(shed)).await
    };
    let _ = timeout(Duration::from_secs(1), answer).await;
}

fn answer_to(shed: Shed) -> Vec<u8> {
    let refusal = match shed {
        Shed::Connections => Refusal::TOO_MANY_CONNECTIONS,
        Shed::ClientConnections | Shed::ClientRequests => Refusal::TOO_MANY_OF_CLIENT,
        Shed::Descriptors => Refusal::NO_DESCRIPTORS,
        Shed::Memory => Refusal::NO_MEMORY,
    };
    let body = refusal.body();
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: application/json\r\nRetry-After: 2\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        refusal.status,
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

/// How long a client that is turned away is listened to.
pub(super) const GLANCE: Duration = Duration::from_millis(100);
/// So many are listened to at once; more are closed without a word. Each has a descriptor.
pub(super) const MOST_TURNED_AWAY: usize = 16;
