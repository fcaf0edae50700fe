//! What a backend says of its own load, if it is asked.

use std::sync::atomic::{AtomicU32, Ordering};

/// A backend's own figures, as its `/metrics`, `/slots` or `/props` give them. What it does not say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signals {
    /// How many requests it works on at once: llama-server's `total_slots`.
    pub slots: Option<u32>,
    /// Requests that wait there, whoever sent them.
    pub waiting: Option<u32>,
    /// Requests that it works on, whoever sent them.
    pub running: Option<u32>,
    /// The share of its KV cache that is in use, 0 to 1.
    pub kv_use: Option<f32>,
}

/// The latest signals, to be read without a lock. Fields of two polls may mix: each is an estimate by itself.
#[derive(Debug)]
pub(super) struct Latest {
    slots: AtomicU32,
    waiting: AtomicU32,
    running: AtomicU32,
    /// The bits of an `f32`.
    kv_use: AtomicU32,
}

impl Latest {
    pub(super) fn unknown() -> Latest {
        let unknown = || AtomicU32::new(UNKNOWN);
        Latest { slots: unknown(), waiting: unknown(), running: unknown(), kv_use: unknown() }
    }

    pub(super) fn set(&self, signals: Signals) {
        let set = |at: &AtomicU32, value: Option<u32>| at.store(value.unwrap_or(UNKNOWN), Ordering::Relaxed);
        set(&self.slots, signals.slots);
        set(&self.waiting, signals.waiting);
        set(&self.running, signals.running);
        set(&self.kv_use, signals.kv_use.map(f32::to_bits));
    }

    pub(super) fn get(&self) -> Signals {
        let kv_use = known(&self.kv_use).map(f32::from_bits);
        Signals { slots: self.slots(), waiting: known(&self.waiting), running: known(&self.running), kv_use }
    }

    pub(super) fn slots(&self) -> Option<u32> {
        known(&self.slots)
    }
}

fn known(at: &AtomicU32) -> Option<u32> {
    Some(at.load(Ordering::Relaxed)).filter(|value| *value != UNKNOWN)
}

/// As a share of a cache these bits are no number, and no server has so many slots.
const UNKNOWN: u32 = u32::MAX;
