//! Waiting: for room, and for a gateway that has just begun to know who is there.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::client::Client;
use super::ctx::Ctx;
use super::refusal::Refused;
use super::retry::Over;
use crate::core::{Patience, Selection, Verdict};
use crate::link::Link;
use crate::metrics::QueueExit;

/// Whether the request may wait: the pool lets it, and it has not waited yet. While it waits its client is watched, which
/// takes a body that is wholly here; one that is still coming would be held up, so its request goes elsewhere at once.
pub(super) fn patience(ctx: &Ctx) -> Patience {
    if !ctx.kind.takes_slot() {
        return Patience::NeedsNoRoom;
    }
    let lets = ctx.snapshot.config.pool().overload.queue_wait.is_some();
    if lets && !ctx.waited && ctx.body.is_here() { Patience::Waits } else { Patience::Spills }
}

/// Waits in the line of a member, at most as long as the pool lets it, until there is room there or elsewhere; then says
/// where to go. A client that leaves meanwhile leaves the line.
///
/// # Errors
/// The client left.
pub(super) async fn for_room<C: Client>(client: &mut C, ctx: &mut Ctx, member: usize) -> Result<Verdict, Over> {
    ctx.waited = true;
    let until = Instant::now() + ctx.snapshot.config.pool().overload.queue_wait.unwrap_or_default();
    let mut member = member;
    loop {
        match in_line(client, ctx, member, until).await? {
            Verdict::Wait { member: other, .. } => member = other,
            verdict => return Ok(verdict),
        }
    }
}

/// The wait in one line. The verdict is to wait in another one if a reload has removed this one.
async fn in_line<C: Client>(client: &mut C, ctx: &mut Ctx, member: usize, until: Instant) -> Result<Verdict, Over> {
    let link = Arc::clone(&ctx.snapshot.links[member]);
    let mut exit = Exit { link: &link, how: QueueExit::Left };
    let verdict = {
        let _counted = link.backend.queue();
        let place = link.queue.join();
        loop {
            tokio::select! {
                biased;
                () = poll_fn(|context| client.poll_gone(context)) => return Err(Refused::Gone.into()),
                () = place.called() => {}
                () = sleep_until(until) => break None,
            }
            ctx.renew();
            let here = ctx.snapshot.links.iter().position(|other| Arc::ptr_eq(&other.queue, &link.queue));
            let patience = match here {
                Some(member) if place.is_first() => Patience::Called(member),
                Some(member) => Patience::InLine(member),
                None => Patience::Waits,
            };
            match ctx.select(patience) {
                Verdict::Wait { member, .. } if Some(member) == here => {}
                verdict => break Some(verdict),
            }
        }
    };
    // Who has waited for long enough waits no more, and does not stand in its own way.
    let verdict = verdict.unwrap_or_else(|| ctx.select(Patience::Spills));
    let is_here = |selection: Selection| Arc::ptr_eq(&ctx.snapshot.links[selection.member].backend, &link.backend);
    exit.how = match verdict {
        Verdict::Go(selection) if is_here(selection) => QueueExit::Served,
        Verdict::Go(_) | Verdict::Wait { .. } => QueueExit::Spilled,
        Verdict::Full | Verdict::Nobody => QueueExit::Refused,
    };
    Ok(verdict)
}

/// Waits, for a moment, until a gateway that has just begun knows who is there. Before, a backend that was not probed yet
/// would look as if it were down beside one that was, and its sessions would leave their caches for nothing.
pub(super) async fn for_first_probes(ctx: &Ctx) {
    if !ctx.gateway().probed() {
        // Who answers no probe for longer has to be taken for down.
        let _ = timeout(FIRST_PROBES, ctx.gateway().until_probed()).await;
    }
}

/// Waits while no backend can serve the request and one may come, at most as long as the pool allows; returns the verdict
/// then. Requests beyond `hold.max_requests` are not held, nor sent to a backend that loads.
///
/// # Errors
/// The client left.
pub(super) async fn for_backend<C: Client>(client: &mut C, ctx: &mut Ctx, verdict: Verdict) -> Result<Verdict, Over> {
    let hold = &ctx.snapshot.config.pool().hold;
    let Some(limit) = hold.timeout else { return Ok(verdict) };
    let Some(_held) = ctx.snapshot.held.take(1, hold.max_requests as usize) else { return Ok(Verdict::Nobody) };
    let waited = Duration::from_millis(ctx.now().saturating_sub(ctx.started));
    let until = Instant::now() + limit.saturating_sub(waited);
    let mut changes = ctx.snapshot.changes.subscribe();
    loop {
        ctx.renew();
        let verdict = ctx.select(patience(ctx));
        if Instant::now() >= until || !ctx.snapshot.is_worth_waiting(&verdict, &ctx.tried) {
            return Ok(verdict);
        }
        tokio::select! {
            biased;
            () = poll_fn(|context| client.poll_gone(context)) => return Err(Refused::Gone.into()),
            _ = changes.changed() => {}
            () = sleep_until(until) => {}
        }
    }
}

/// The end of a wait, counted however it comes.
struct Exit<'a> {
    link: &'a Link,
    how: QueueExit,
}

impl Drop for Exit<'_> {
    fn drop(&mut self) {
        self.link.metrics.queue_exit(self.how);
    }
}

/// The longest that a request waits for the first round of probes.
const FIRST_PROBES: Duration = Duration::from_secs(2);
