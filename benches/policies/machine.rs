//! One simulated backend: a serial prefill of what is not cached, slots, a cache of blocks.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use lru::LruCache;

use crate::trace::{BLOCK_TOKENS, Line};

/// How fast a machine is and what it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    /// Tokens of prompt per second, of all requests together.
    pub(crate) prefill: f64,
    /// Tokens of answer per second, of each request.
    pub(crate) decode: f64,
    /// Requests that it works on at once, from the start of their prefill to their end.
    pub(crate) slots: usize,
    /// Blocks of its cache.
    pub(crate) blocks: usize,
}

pub(crate) struct Machine {
    pub(crate) model: Model,
    pub(crate) alive: bool,
    /// Counts its lives, so that events of an earlier one are told apart.
    pub(crate) life: u32,
    cache: LruCache<u32, (), ahash::RandomState>,
    queue: VecDeque<(usize, f64)>,
    /// The request whose prompt is read, and when that is done.
    reading: Option<(usize, f64)>,
    /// Those that are answered, with their ends.
    decoding: Vec<(usize, f64)>,
    /// Seconds of prefill so far.
    pub(crate) busy: f64,
}

/// A prompt began to be read.
pub(crate) struct Started {
    pub(crate) turn: usize,
    pub(crate) done: f64,
    pub(crate) computed: u32,
}

impl Machine {
    pub(crate) fn new(model: Model) -> Machine {
        let blocks = NonZeroUsize::new(model.blocks).unwrap_or(NonZeroUsize::MIN);
        let mut cache = LruCache::unbounded_with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4));
        cache.resize(blocks);
        Machine {
            model,
            alive: true,
            life: 0,
            cache,
            queue: VecDeque::new(),
            reading: None,
            decoding: Vec::new(),
            busy: 0.0,
        }
    }

    /// Tokens of a prompt that are not cached now.
    pub(crate) fn uncached(&self, line: &Line) -> u32 {
        let known = line.hash_ids.iter().take_while(|id| self.cache.contains(id)).count();
        let known = u32::try_from(known).unwrap_or(u32::MAX).saturating_mul(BLOCK_TOKENS);
        line.input_length.saturating_sub(known)
    }

    pub(crate) fn arrive(&mut self, turn: usize, line: &Line) {
        let work = f64::from(self.uncached(line)) / self.model.prefill;
        self.queue.push_back((turn, work));
    }

    /// Begins the next prompt, if there is one, a free slot, and nothing else is being read.
    pub(crate) fn start(&mut self, lines: &[Line], now: f64) -> Option<Started> {
        if self.reading.is_some() || self.decoding.len() >= self.model.slots {
            return None;
        }
        let (request, _) = self.queue.pop_front()?;
        let line = &lines[request];
        let computed = self.uncached(line);
        // The last block is the oldest: a prefix without its end is worth something, an end without its prefix nothing.
        for id in line.hash_ids.iter().rev() {
            self.cache.put(*id, ());
        }
        let took = f64::from(computed) / self.model.prefill;
        self.busy += took;
        self.reading = Some((request, now + took));
        Some(Started { turn: request, done: now + took, computed })
    }

    /// The prompt has been read; the answer ends at the time that is returned.
    pub(crate) fn first_token(&mut self, lines: &[Line], now: f64) -> Option<(usize, f64)> {
        let (request, _) = self.reading.take()?;
        let end = now + f64::from(lines[request].output_length) / self.model.decode;
        self.decoding.push((request, end));
        Some((request, end))
    }

    pub(crate) fn end(&mut self, request: usize) {
        self.decoding.retain(|(decoding, _)| *decoding != request);
    }

    /// Everything is lost: those without a first token, and those with one.
    pub(crate) fn die(&mut self) -> (Vec<usize>, Vec<usize>) {
        self.alive = false;
        self.life += 1;
        self.cache.clear();
        let waiting = self.reading.take().map(|(request, _)| request).into_iter();
        let waiting = waiting.chain(self.queue.drain(..).map(|(request, _)| request)).collect();
        (waiting, self.decoding.drain(..).map(|(request, _)| request).collect())
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.queued() + self.working()
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Requests that hold a slot.
    pub(crate) fn working(&self) -> usize {
        self.decoding.len() + usize::from(self.reading.is_some())
    }

    /// Seconds until a prompt that came now would be begun, as one who sees everything estimates it.
    pub(crate) fn backlog(&self, now: f64) -> f64 {
        let reading = self.reading.map_or(0.0, |(_, done)| done - now);
        let queued: f64 = self.queue.iter().map(|(_, work)| work).sum();
        let missing = (self.in_flight() + 1).saturating_sub(self.model.slots);
        if missing == 0 {
            return reading + queued;
        }
        let mut ends: Vec<f64> = self.decoding.iter().map(|(_, end)| end - now).collect();
        ends.sort_by(f64::total_cmp);
        let free = ends.get(missing - 1).or(ends.last()).copied().unwrap_or(0.0);
        free.max(reading + queued)
    }
}
