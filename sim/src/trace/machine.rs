//! One backend on the clock of the trace.
//!
//! Prompts are computed one after the other, in order of arrival; only what the prefix cache lacks costs time. Answers
//! are generated side by side, each at the same speed. A request holds a slot from the beginning of its prefill to the
//! end of its answer. Time is an argument: the same machine serves a simulation and a server that waits in real time.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::cache::PrefixCache;

use super::line::BLOCK_TOKENS;

/// What a backend is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// Prompt tokens computed in a second.
    pub prefill_rate: f64,
    /// Tokens generated in a second for each request.
    pub decode_rate: f64,
    /// Requests that may be in prefill or generating at once.
    pub slots: usize,
    /// Blocks of [`BLOCK_TOKENS`] that the prefix cache holds.
    pub cache_blocks: usize,
}

impl Default for Model {
    /// A GPU with a mid-sized model: 8,000 tokens/s of prefill, 40 of decode, 16 slots, 1.5 M tokens of cache (the KV
    /// cache and a tier of host memory).
    fn default() -> Self {
        Self { prefill_rate: 8_000.0, decode_rate: 40.0, slots: 16, cache_blocks: 3_000 }
    }
}

/// A request to a [`Machine`].
#[derive(Clone, Debug)]
pub struct Job {
    /// The caller's name for it.
    pub id: u64,
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens of the answer.
    pub output: u32,
    /// The prompt's blocks.
    pub blocks: Arc<[u64]>,
}

/// What happened to a job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Its first token is there.
    FirstToken {
        /// Which job.
        id: u64,
        /// When.
        at: f64,
        /// Prompt tokens that were in the cache.
        cached: u32,
        /// When its last token will be there.
        end: f64,
    },
    /// Its last token is there.
    End {
        /// Which job.
        id: u64,
        /// When.
        at: f64,
    },
}

impl Step {
    /// When it happened.
    #[must_use]
    pub fn at(&self) -> f64 {
        match self {
            Self::FirstToken { at, .. } | Self::End { at, .. } => *at,
        }
    }
}

/// One backend. Call [`advance`](Self::advance) before anything that changes it, with times that never go back.
#[derive(Debug)]
pub struct Machine {
    model: Model,
    cache: PrefixCache,
    queue: VecDeque<Job>,
    prefill: Option<Prefill>,
    /// Jobs that generate, and when they end.
    decoding: Vec<(u64, f64)>,
    busy: f64,
}

#[derive(Debug)]
struct Prefill {
    job: Job,
    cached: u32,
    start: f64,
    end: f64,
}

impl Machine {
    /// An idle machine with a cold cache.
    #[must_use]
    pub fn new(model: Model) -> Self {
        Self {
            cache: PrefixCache::new(model.cache_blocks),
            model,
            queue: VecDeque::new(),
            prefill: None,
            decoding: Vec::new(),
            busy: 0.0,
        }
    }

    /// A request arrives.
    pub fn arrive(&mut self, job: Job, now: f64) {
        self.queue.push_back(job);
        self.begin(now);
    }

    /// A client leaves. What was computed of an unfinished prompt is lost.
    pub fn leave(&mut self, id: u64, now: f64) {
        self.queue.retain(|job| job.id != id);
        self.decoding.retain(|(other, _)| *other != id);
        if let Some(prefill) = self.prefill.take_if(|prefill| prefill.job.id == id) {
            self.busy += now - prefill.start;
        }
        self.begin(now);
    }

    /// When the next [`Step`] is due, if nothing arrives or leaves until then.
    #[must_use]
    pub fn next(&self) -> Option<f64> {
        let first_token = self.prefill.as_ref().map(|prefill| prefill.end);
        first_token.into_iter().chain(self.first_free_slot()).min_by(f64::total_cmp)
    }

    /// What happened up to `now`, in order.
    pub fn advance(&mut self, now: f64) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(at) = self.next().filter(|at| *at <= now) {
            steps.push(self.step(at));
            self.begin(at);
        }
        steps
    }

    /// The machine dies: jobs and cache are lost. It can be used again at once, cold.
    pub fn die(&mut self, now: f64) {
        self.busy += self.prefill.take().map_or(0.0, |prefill| now - prefill.start);
        self.queue.clear();
        self.decoding.clear();
        self.cache.clear();
    }

    /// Prompt tokens of this job that are in the cache now. One token is always computed: real servers need it.
    #[must_use]
    pub fn cached(&self, job: &Job) -> u32 {
        let blocks = u32::try_from(self.cache.matched(&job.blocks)).unwrap_or(u32::MAX);
        blocks.saturating_mul(BLOCK_TOKENS).min(job.prompt.saturating_sub(1))
    }

    /// Seconds from `now` to the first token of `job` if it arrived now: the queue, the slots and the cache as they are.
    #[must_use]
    pub fn expected_first_token(&self, job: &Job, now: f64) -> f64 {
        let mut prefill_end = self.prefill.as_ref().map_or(now, |prefill| prefill.end);
        let mut slots: Vec<f64> = self.decoding.iter().map(|(_, end)| *end).collect();
        slots.extend(self.prefill.as_ref().map(|p| p.end + self.decode_time(&p.job)));
        for job in self.queue.iter().chain([job]) {
            slots.sort_by(|a, b| b.total_cmp(a));
            let free = if slots.len() < self.model.slots { now } else { slots.pop().unwrap_or(now) };
            prefill_end = prefill_end.max(free) + self.prefill_time(job.prompt - self.cached(job));
            slots.push(prefill_end + self.decode_time(job));
        }
        prefill_end - now
    }

    /// Requests that wait, compute or generate.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.waiting() + self.running()
    }

    /// Requests that wait for their prefill.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Requests that hold a slot.
    #[must_use]
    pub fn running(&self) -> usize {
        self.decoding.len() + usize::from(self.prefill.is_some())
    }

    /// Share of the cache that is in use.
    #[must_use]
    pub fn cache_use(&self) -> f64 {
        self.cache.len() as f64 / self.model.cache_blocks.max(1) as f64
    }

    /// Seconds of prefill so far, given-up ones included.
    #[must_use]
    pub fn busy(&self) -> f64 {
        self.busy
    }

    /// What it is like.
    #[must_use]
    pub fn model(&self) -> Model {
        self.model
    }

    fn first_free_slot(&self) -> Option<f64> {
        self.decoding.iter().map(|(_, end)| *end).min_by(f64::total_cmp)
    }

    /// The one thing that is due at `at`.
    fn step(&mut self, at: f64) -> Step {
        if let Some(prefill) = self.prefill.take_if(|prefill| prefill.end <= at) {
            self.cache.insert(&prefill.job.blocks);
            self.busy += prefill.end - prefill.start;
            let end = prefill.end + self.decode_time(&prefill.job);
            self.decoding.push((prefill.job.id, end));
            return Step::FirstToken { id: prefill.job.id, at: prefill.end, cached: prefill.cached, end };
        }
        let ended = (0..self.decoding.len()).min_by(|a, b| self.decoding[*a].1.total_cmp(&self.decoding[*b].1));
        let (id, at) = self.decoding.swap_remove(ended.unwrap_or_default());
        Step::End { id, at }
    }

    /// Begins the next prefill, if there is one, and a slot.
    fn begin(&mut self, now: f64) {
        if self.prefill.is_some() || self.decoding.len() >= self.model.slots {
            return;
        }
        if let Some(job) = self.queue.pop_front() {
            let cached = self.cached(&job);
            let end = now + self.prefill_time(job.prompt - cached);
            self.prefill = Some(Prefill { job, cached, start: now, end });
        }
    }

    fn prefill_time(&self, tokens: u32) -> f64 {
        f64::from(tokens) / self.model.prefill_rate
    }

    /// From the first token to the last.
    fn decode_time(&self, job: &Job) -> f64 {
        f64::from(job.output.saturating_sub(1)) / self.model.decode_rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(slots: usize, cache_blocks: usize) -> Machine {
        Machine::new(Model { prefill_rate: 512.0, decode_rate: 1.0, slots, cache_blocks })
    }

    fn job(id: u64, blocks: &[u64], output: u32) -> Job {
        Job { id, prompt: u32::try_from(blocks.len()).unwrap() * 512, output, blocks: blocks.into() }
    }

    fn ids(steps: &[Step]) -> Vec<(u64, f64)> {
        steps
            .iter()
            .map(|step| match step {
                Step::FirstToken { id, at, .. } | Step::End { id, at } => (*id, *at),
            })
            .collect()
    }

    #[test]
    fn prefill_is_serial_and_decode_is_not() {
        let mut machine = machine(16, 100);
        machine.arrive(job(1, &[1, 2], 4), 0.0);
        machine.arrive(job(2, &[3], 2), 0.5);
        assert_eq!((machine.waiting(), machine.running()), (1, 1));
        assert_eq!(machine.next(), Some(2.0));
        assert_eq!(ids(&machine.advance(9.0)), [(1, 2.0), (2, 3.0), (2, 4.0), (1, 5.0)]);
        assert_eq!((machine.in_flight(), machine.next()), (0, None));
        assert!((machine.busy() - 3.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_cached_costs_nothing_but_one_token() {
        let mut machine = machine(16, 100);
        machine.arrive(job(1, &[1, 2], 1), 0.0);
        machine.advance(10.0);
        machine.arrive(job(2, &[1, 2, 3], 1), 10.0);
        let Step::FirstToken { at, cached, .. } = machine.advance(20.0)[0] else { panic!("a first token comes first") };
        assert_eq!((at, cached), (11.0, 1024));
        machine.arrive(job(3, &[1, 2, 3], 1), 20.0);
        let Step::FirstToken { cached, .. } = machine.advance(30.0)[0] else { panic!("a first token comes first") };
        assert_eq!(cached, 3 * 512 - 1);
    }

    #[test]
    fn the_least_recently_used_blocks_go() {
        let mut machine = machine(16, 3);
        machine.arrive(job(1, &[1, 2], 1), 0.0);
        machine.arrive(job(2, &[8, 9], 1), 0.0);
        machine.advance(10.0);
        assert_eq!(machine.cached(&job(3, &[1, 2, 3], 1)), 512, "its second block made room");
        assert_eq!(machine.cached(&job(3, &[8, 9, 10], 1)), 1024);
        assert!((machine.cache_use() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_slot_is_held_to_the_end_of_the_answer() {
        let mut machine = machine(1, 100);
        machine.arrive(job(1, &[1], 6), 0.0);
        machine.arrive(job(2, &[2], 1), 0.0);
        assert!((machine.expected_first_token(&job(3, &[3], 1), 0.0) - 8.0).abs() < 1e-9);
        assert_eq!(ids(&machine.advance(9.0)), [(1, 1.0), (1, 6.0), (2, 7.0), (2, 7.0)]);
    }

    #[test]
    fn who_leaves_makes_room_at_once() {
        let mut machine = machine(16, 100);
        machine.arrive(job(1, &[1, 2, 3], 1), 0.0);
        machine.arrive(job(2, &[4], 1), 0.0);
        machine.arrive(job(3, &[5], 1), 0.0);
        machine.advance(1.0);
        machine.leave(1, 1.0);
        machine.leave(3, 1.0);
        assert_eq!(ids(&machine.advance(9.0)), [(2, 2.0), (2, 2.0)]);
        assert_eq!(machine.cached(&job(4, &[1, 2, 3], 1)), 0);
    }

    #[test]
    fn a_dead_machine_comes_back_cold() {
        let mut machine = machine(16, 100);
        machine.arrive(job(1, &[1], 50), 0.0);
        machine.advance(2.0);
        machine.arrive(job(2, &[2], 1), 2.0);
        machine.die(2.5);
        assert_eq!((machine.in_flight(), machine.next()), (0, None));
        assert_eq!(machine.cached(&job(3, &[1, 2], 1)), 0);
        machine.arrive(job(4, &[4], 1), 3.0);
        assert_eq!(machine.next(), Some(4.0));
    }

    #[test]
    fn the_expected_first_token_is_what_comes() {
        let mut machine = machine(3, 4);
        let jobs: Vec<Job> =
            (0..30u32).map(|id| job(id.into(), &[(id % 5).into(), (100 + id % 7).into()], 1 + id % 9)).collect();
        for (now, job) in jobs.iter().enumerate() {
            let now = now as f64 * 40.0;
            machine.advance(now);
            let expected = machine.expected_first_token(job, now);
            machine.arrive(job.clone(), now);
            let steps = machine.advance(now + 39.0);
            assert!((steps[0].at() - now - expected).abs() < 1e-9);
        }
    }
}
