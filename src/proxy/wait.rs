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
use crate::link::{Link, Waiter};
use crate::metrics::QueueExit;

/// Whether the request may wait: the pool lets it, and it has not waited yet. While it waits its client is watched, which
/// takes a body that is wholly here; one that is still coming would be held up, so its request goes elsewhere at once.
pub(super) fn patience(ctx: &Ctx) -> Patience {
    if !ctx.kind.takes_slot() {
        return Patience::NeedsNoRoom;
    }
    let lets = ctx.snapshot.config.pool().overload.queue_wait.is_some();
    if lets && !ctx.waited && ctx.body.is_here() { patience_of(ctx) } else { Patience::Spills }
}

/// How a request waits that may. Between holders of keys, a full queue is no reason to refuse the one that has little in it.
fn patience_of(ctx: &Ctx) -> Patience {
    if ctx.asker.admitted.is_some() { Patience::Displaces } else { Patience::Waits }
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
    let counted = link.backend.queue();
    let max = ctx.snapshot.config.pool().overload.max_waiting as usize;
    let Some(mut place) = link.queue.join(waiter(ctx), max) else {
        drop(counted);
        return Ok(ctx.select(Patience::Spills));
    };
    let mut exit = Exit { link: &link, how: QueueExit::Left };
    let verdict = loop {
        tokio::select! {
            biased;
            () = poll_fn(|context| client.poll_gone(context)) => return Err(Refused::Gone.into()),
            () = place.called() => {}
            () = sleep_until(until) => break None,
        }
        if place.is_displaced() {
            break None;
        }
        ctx.renew();
        let here = ctx.snapshot.links.iter().position(|other| Arc::ptr_eq(&other.queue, &link.queue));
        let again = match here {
            Some(member) if place.is_first() => Patience::Called(member),
            Some(member) => Patience::InLine(member),
            None => patience_of(ctx),
        };
        match ctx.select(again) {
            Verdict::Wait { member, .. } if Some(member) == here => {}
            verdict => break Some(verdict),
        }
    };
    let is_here =
        |ctx: &Ctx, selection: Selection| Arc::ptr_eq(&ctx.snapshot.links[selection.member].backend, &link.backend);
    if verdict.and_then(Verdict::selection).is_some_and(|selection| is_here(ctx, selection)) {
        place.take_room();
    }
    drop((place, counted));
    // Who has waited for long enough waits no more, and does not stand in its own way.
    let verdict = verdict.unwrap_or_else(|| ctx.select(Patience::Spills));
    exit.how = match verdict {
        Verdict::Go(selection) if is_here(ctx, selection) => QueueExit::Served,
        Verdict::Go(_) | Verdict::Wait { .. } => QueueExit::Spilled,
        Verdict::Full | Verdict::Nobody => QueueExit::Refused,
    };
    Ok(verdict)
}

/// Whose request waits: holders of API keys take turns.
fn waiter(ctx: &Ctx) -> Waiter {
    let admitted = ctx.asker.admitted.as_ref();
    let holder = admitted.map(|admitted| Arc::clone(&admitted.name));
    Waiter { holder, weight: admitted.map_or(1, |admitted| admitted.weight) }
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
