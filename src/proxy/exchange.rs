//! One request from its head to the end of its response.

use std::sync::Arc;

use super::answer;
use super::attempt;
use super::body;
use super::client::Client;
use super::ctx::Ctx;
use super::refusal::{Refusal, Refused};
use super::response;
use super::retry::{self, Next, Over};
use super::wait;
use crate::api::Api;
use crate::config::ServerKind;
use crate::core::{Affinity, Selection, Verdict};
use crate::link::Link;
use crate::metrics::BrokenCause;

/// Serves a request whose head was read, and accepted or refused.
pub(super) async fn serve<C: Client>(client: &mut C, ctx: &mut Ctx, accepted: Result<(), Refused>) {
    let end = match accepted {
        Ok(()) => forward(client, ctx).await,
        Err(refused) => Err(refused.into()),
    };
    response::end(ctx);
    match end {
        // An early answer is not the end of the request.
        Ok(()) if client.lingers() => Box::pin(answer::linger(client)).await,
        Ok(()) => {}
        Err(Over::Refused(Refused::Answer(refusal))) if ctx.opening.is_sent => {
            let cause = if refusal.is_of_client() { None } else { Some(ctx.broken.unwrap_or(BrokenCause::Closed)) };
            ctx.record.broken(refusal.code, ctx.cut, cause);
            Box::pin(answer::break_stream(client, ctx, refusal)).await;
        }
        Err(Over::Refused(refused)) => Box::pin(answer::refuse(client, ctx, refused)).await,
        Err(Over::Gone(why)) => {
            ctx.record.client_left(why);
            Box::pin(client.break_off()).await;
        }
        Err(Over::Broken(why)) => {
            ctx.record.broken(&why, ctx.cut, ctx.broken);
            Box::pin(client.break_off()).await;
        }
    }
    ctx.record.end(client.body_received());
}

async fn forward<C: Client>(client: &mut C, ctx: &mut Ctx) -> Result<(), Over> {
    if ctx.asker.needs_no_key && !client.is_body_complete() {
        // A preflight has no body; anything else needs a key.
        return Err(Refusal::NO_KEY.into());
    }
    body::hold(client, ctx).await?;
    let mut next = Next::Elsewhere;
    loop {
        let (selection, fresh) = match (next, ctx.selection) {
            (Next::SameBackend, Some(selection)) => (selection, true),
            _ => (select(client, ctx).await?, false),
        };
        match attempt::run(client, ctx, selection, fresh).await {
            Ok(()) => return Ok(()),
            Err(failed) => next = retry::after(ctx, failed)?,
        }
    }
}

/// Selects a backend that was not tried yet. Waits for room if it has to.
async fn select<C: Client>(client: &mut C, ctx: &mut Ctx) -> Result<Selection, Over> {
    if !ctx.gateway().probed() {
        Box::pin(wait::for_first_probes(ctx)).await;
    }
    let mut verdict = ctx.select(wait::patience(ctx));
    // A query does not wait, and is no demand: a health check must not hang because a model loads.
    if ctx.kind.takes_slot() && ctx.snapshot.is_worth_waiting(&verdict, &ctx.tried) {
        verdict = Box::pin(wait::for_backend(client, ctx, verdict)).await?;
    }
    if let Verdict::Wait { member, .. } = verdict {
        verdict = Box::pin(wait::for_room(client, ctx, member)).await?;
    }
    let selection = match verdict {
        Verdict::Go(selection) => selection,
        Verdict::Full | Verdict::Wait { .. } => return Err(Refusal::OVERLOADED.into()),
        Verdict::Nobody => {
            ctx.record.error(states(ctx));
            return Err(Refusal::NONE_AVAILABLE.into());
        }
    };
    if let (Affinity::Spilled, Some(reason)) = (selection.affinity, selection.reason) {
        ctx.snapshot.metrics.spill(reason);
    }
    if ctx.form.upgrades && !has_websocket(ctx, selection) {
        return Err(Refusal::NO_WEBSOCKET.into());
    }
    ctx.tried.push(selection.member);
    ctx.selection = Some(selection);
    ctx.record.attempt(&ctx.snapshot, selection);
    Ok(selection)
}

/// Why no backend of the pool can take a request: `2 unhealthy, 1 draining`.
fn states(ctx: &Ctx) -> String {
    let state = |link: &Arc<Link>| if link.backend.draining() { "draining" } else { link.backend.state().as_str() };
    let states: Vec<&str> = ctx.snapshot.links.iter().map(state).collect();
    let counts = ["unhealthy", "warming", "draining", "healthy", "probation"].into_iter().filter_map(|name| {
        let count = states.iter().filter(|state| **state == name).count();
        (count > 0).then(|| format!("{count} {name}"))
    });
    let counts: Vec<String> = counts.collect();
    format!("no backend is left: {}", counts.join(", "))
}

/// Whether a backend may have a WebSocket at the path. Codex asks for one at `/v1/responses` first, and falls back to POST
/// at once after 426 only, which llama-server and vLLM do not send.
fn has_websocket(ctx: &Ctx, selection: Selection) -> bool {
    let server = ctx.snapshot.config.pool().backends[selection.member].server;
    server == ServerKind::Generic || ctx.api != Api::Responses
}
