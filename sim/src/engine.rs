//! The machine behind the HTTP server: slots, serial prefill, prefix cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

use crate::cache::PrefixCache;
use crate::config::SimConfig;
use crate::tokens::BlockChain;

/// Slots are given in order of arrival; prefill is one request after the other, in the order of their slots.
#[derive(Debug)]
pub(crate) struct Engine {
    config: Arc<SimConfig>,
    slots: Semaphore,
    /// When the last prefill ended on the model's clock.
    prefill_end: tokio::sync::Mutex<Instant>,
    cache: Mutex<PrefixCache>,
    counters: Mutex<Counters>,
    processing: AtomicUsize,
    prefilling: AtomicUsize,
    deferred: AtomicUsize,
    held: AtomicUsize,
}

/// What `/metrics` counts; a killed server starts again at 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) prompt_tokens: usize,
    pub(crate) cached_tokens: usize,
    pub(crate) output_tokens: usize,
    pub(crate) prompt_seconds: f64,
    pub(crate) output_seconds: f64,
    pub(crate) requests: usize,
}

/// A request whose prompt is computed. It holds a slot until dropped.
#[derive(Debug)]
pub(crate) struct Prefilled<'e> {
    pub(crate) prompt_tokens: usize,
    pub(crate) cached_tokens: usize,
    pub(crate) time: Duration,
    /// When the first token is due on the model's clock.
    pub(crate) end: Instant,
    _slot: Slot<'e>,
}

impl Engine {
    pub(crate) fn new(config: Arc<SimConfig>) -> Self {
        let block_tokens = config.block_tokens.max(1);
        Self {
            slots: Semaphore::new(config.slots.max(1)),
            prefill_end: tokio::sync::Mutex::new(Instant::now()),
            cache: Mutex::new(PrefixCache::new(config.cache_tokens / block_tokens)),
            counters: Mutex::default(),
            processing: AtomicUsize::new(0),
            prefilling: AtomicUsize::new(0),
            deferred: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            config,
        }
    }

    /// Waits for a slot. Dropping the future leaves the queue.
    pub(crate) async fn slot(&self, prompt: &BlockChain) -> Slot<'_> {
        let waiting = Gauge::enter(&self.deferred);
        let permit = self.slots.acquire().await.ok();
        drop(waiting);
        Slot {
            start: Instant::now(),
            _permit: permit,
            _processing: Gauge::enter(&self.processing),
            _held: Gauge::enter_with(&self.held, prompt.tokens()),
            prefilling: Some(Gauge::enter(&self.prefilling)),
        }
    }

    /// Waits for this prompt's prefill. Dropping the future gives everything back.
    pub(crate) async fn prefill<'e>(&'e self, mut slot: Slot<'e>, prompt: &BlockChain) -> Prefilled<'e> {
        let mut turn = PrefillTurn { end: self.prefill_end.lock().await, done: None };
        let cached_tokens = self.cached_tokens(prompt);
        let prompt_tokens = prompt.tokens();
        let time = self.config.wall_time(prompt_tokens - cached_tokens, self.config.prefill_rate);
        // From the end of the previous one, not from now: a late timer must not slow the model down.
        let end = (*turn.end).max(slot.start) + time;
        if !time.is_zero() {
            sleep_until(end).await;
        }
        turn.done = Some(end);
        drop(turn);
        slot.prefilling = None;
        self.cache.lock().insert(prompt.blocks());
        let mut counters = self.counters.lock();
        counters.requests += 1;
        counters.prompt_tokens += prompt_tokens;
        counters.cached_tokens += cached_tokens;
        counters.prompt_seconds += time.as_secs_f64();
        Prefilled { prompt_tokens, cached_tokens, time, end, _slot: slot }
    }

    /// A request was answered in full; `text` is its prompt with the answer appended.
    pub(crate) fn finished(&self, text: &BlockChain, output_tokens: usize, time: Duration) {
        if self.config.cache_output {
            self.cache.lock().insert(text.blocks());
        }
        let mut counters = self.counters.lock();
        counters.output_tokens += output_tokens;
        counters.output_seconds += time.as_secs_f64();
    }

    /// As a restarted process: cold cache, counters at 0.
    pub(crate) fn restart(&self) {
        self.cache.lock().clear();
        *self.counters.lock() = Counters::default();
    }

    pub(crate) fn counters(&self) -> Counters {
        *self.counters.lock()
    }

    /// Requests that hold a slot.
    pub(crate) fn processing(&self) -> usize {
        self.processing.load(Ordering::Relaxed)
    }

    /// Those of them whose prompt is not computed yet.
    pub(crate) fn prefilling(&self) -> usize {
        self.prefilling.load(Ordering::Relaxed)
    }

    /// Requests that wait for a slot.
    pub(crate) fn deferred(&self) -> usize {
        self.deferred.load(Ordering::Relaxed)
    }

    /// Prompt tokens of the requests that hold a slot.
    pub(crate) fn held_tokens(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// At least one token is always computed: real servers need it for the first logits.
    fn cached_tokens(&self, prompt: &BlockChain) -> usize {
        let block = self.config.block_tokens.max(1);
        let most = prompt.tokens().saturating_sub(1) / block;
        self.cache.lock().matched(prompt.blocks()).min(most) * block
    }
}

/// The right to be worked on, until dropped.
#[derive(Debug)]
pub(crate) struct Slot<'e> {
    /// When it was given.
    start: Instant,
    _permit: Option<SemaphorePermit<'e>>,
    _processing: Gauge<'e>,
    _held: Gauge<'e>,
    /// Until the prompt is computed.
    prefilling: Option<Gauge<'e>>,
}

/// The right to prefill. An abandoned prefill ends now, a finished one at its time on the model's clock.
struct PrefillTurn<'e> {
    end: tokio::sync::MutexGuard<'e, Instant>,
    done: Option<Instant>,
}

impl Drop for PrefillTurn<'_> {
    fn drop(&mut self) {
        *self.end = self.done.unwrap_or_else(Instant::now);
    }
}

/// Counts something up while it lives.
#[derive(Debug)]
pub(crate) struct Gauge<'a>(&'a AtomicUsize, usize);

impl<'a> Gauge<'a> {
    pub(crate) fn enter(count: &'a AtomicUsize) -> Self {
        Self::enter_with(count, 1)
    }

    fn enter_with(count: &'a AtomicUsize, amount: usize) -> Self {
        count.fetch_add(amount, Ordering::Relaxed);
        Self(count, amount)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(text: &str) -> BlockChain {
        let mut chain = BlockChain::new(4);
        chain.push(text.as_bytes());
        chain
    }

    fn engine(change: impl FnOnce(&mut SimConfig)) -> Engine {
        let mut config = SimConfig { block_tokens: 4, ..SimConfig::default() };
        change(&mut config);
        Engine::new(Arc::new(config))
    }

    async fn prefill<'e>(engine: &'e Engine, prompt: &BlockChain) -> Prefilled<'e> {
        engine.prefill(engine.slot(prompt).await, prompt).await
    }

    #[tokio::test(start_paused = true)]
    async fn prefill_is_serial_and_of_uncached_tokens() {
        let engine = engine(|c| c.prefill_rate = 100.0);
        let start = Instant::now();
        let (a, b) = (chain(&"a".repeat(400)), chain(&"b".repeat(400)));
        let (first, second) = tokio::join!(prefill(&engine, &a), prefill(&engine, &b));
        assert_eq!(first.end - start, Duration::from_secs(1));
        assert_eq!(second.end - start, Duration::from_secs(2), "one after the other");
        assert_eq!(engine.processing(), 2);
        drop((first, second));
        let warm = prefill(&engine, &a).await;
        assert_eq!(warm.cached_tokens, 96, "one token is always computed, so the last block counts as missing");
        assert_eq!(warm.time, Duration::from_millis(40));
    }

    #[tokio::test(start_paused = true)]
    async fn abandoned_prefill_frees_slot_and_queue() {
        let engine = engine(|c| (c.prefill_rate, c.slots) = (100.0, 1));
        let (long, short) = (chain(&"a".repeat(40_000)), chain("bbbb"));
        let abandoned = tokio::time::timeout(Duration::from_secs(3), prefill(&engine, &long)).await;
        assert!(abandoned.is_err());
        let start = Instant::now();
        let next = prefill(&engine, &short).await;
        assert_eq!(next.end - start, Duration::from_millis(10));
        drop(next);
        assert_eq!((engine.processing(), engine.prefilling(), engine.deferred()), (0, 0, 0));
        assert_eq!(engine.cached_tokens(&long), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn request_without_a_slot_is_deferred() {
        let engine = engine(|c| (c.slots, c.time_scale) = (1, 0.0));
        let (a, b) = (chain("aaaa"), chain("bbbb"));
        let first = prefill(&engine, &a).await;
        let mut second = std::pin::pin!(prefill(&engine, &b));
        tokio::select! { _ = &mut second => panic!("there is one slot only"), () = tokio::task::yield_now() => {} }
        assert_eq!((engine.processing(), engine.prefilling(), engine.deferred()), (1, 0, 1));
        drop(first);
        second.await;
        assert_eq!(engine.deferred(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn prefill_starts_with_the_slot() {
        let engine = engine(|c| (c.slots, c.prefill_rate) = (1, 100.0));
        let (a, b) = (chain("aaaa"), chain(&"b".repeat(400)));
        let first = prefill(&engine, &a).await;
        let start = Instant::now();
        let answer = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(prefill(&engine, &b), answer);
        assert_eq!(second.end - start, Duration::from_secs(6), "it waited 5 s for its slot");
    }
}
