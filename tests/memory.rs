//! What the table of known sessions takes: the promise is a million sessions in 200 MB.

#![expect(unsafe_code, reason = "counting bytes takes a global allocator")]
#![allow(clippy::print_stdout, reason = "the figure is what one wants to read")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ingle::core::sessions::Sessions;
use ingle::core::{BackendId, SessionKey};

const MILLION: u64 = 1_000_000;

#[test]
fn a_million_sessions_fit_in_200_mb_and_no_more_come_in() {
    let (before, sessions) = (BYTES.load(Ordering::Relaxed), Sessions::new(1_000_000));
    assert!(BYTES.load(Ordering::Relaxed) - before < 100_000, "an empty table takes nothing, whatever its bound is");
    PEAK.store(0, Ordering::Relaxed);
    for n in 0..MILLION + 200_000 {
        let key = SessionKey::from_bits(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        sessions.landed(key, BackendId(0), 50_000, false, n, |_| true);
    }
    let bytes = BYTES.load(Ordering::Relaxed) - before;
    let peak = PEAK.load(Ordering::Relaxed) - before;
    println!("{} sessions, {bytes} bytes, at most {peak}: {} each", sessions.len(), bytes / sessions.len());
    // Each part has its share of the bound, and not each gets just its share of the sessions.
    assert!((980_000..=1_000_000).contains(&sessions.len()));
    assert!(peak < 200_000_000, "{peak} bytes");
}

struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the common allocators make of a small allocation: the next multiple of 16.
fn real(layout: Layout) -> usize {
    layout.size().next_multiple_of(16)
}

// SAFETY: everything is the system allocator's doing; this only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let bytes = BYTES.fetch_add(real(layout), Ordering::Relaxed) + real(layout);
        PEAK.fetch_max(bytes, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(real(layout), Ordering::Relaxed);
        // SAFETY: as above; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
