//! What a selection costs: nanoseconds and allocations, against a plain loop over the same members.
//!
//! `cargo bench --bench select`, or `cargo bench --bench select -- 64` for one size, or `-- 64 least_ttft` for some cases.
//!
//! The baseline walks the members, asks each whether it is available, and takes the one with the highest weight: the
//! least that any selection by preference has to do. All figures are medians over rounds that alternate between the
//! cases, so that a slow moment of the machine falls on all of them.

#![expect(unsafe_code, reason = "counting allocations takes a global allocator")]
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for the terminal, not a part of the gateway")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ingle::core::pool::{Balance, Drain, DrainSessions, MaxInFlight, MemberSpec, Overload, Policy, Settings};
use ingle::core::{Ask, InFlight, Observation, Pool, Seed, SessionKey, Thresholds, Tried};

fn main() {
    let only: Option<usize> = std::env::args().find_map(|arg| arg.parse().ok());
    let name = std::env::args().skip(1).find(|arg| !arg.starts_with('-') && arg.parse::<usize>().is_err());
    println!("ns per call, median of {ROUNDS} rounds; times the plain loop; allocations per call\n");
    println!("{:>8}  {:<32} {:>10} {:>8} {:>8}", "backends", "case", "ns", "ratio", "allocs");
    for backends in SIZES.into_iter().filter(|size| only.is_none_or(|only| only == *size)) {
        let mut cases = cases(backends);
        // The first one is what all others are compared with.
        let baseline = cases.remove(0);
        cases.retain(|case| name.as_ref().is_none_or(|name| case.name.contains(name)));
        cases.insert(0, baseline);
        let figures = measure(&mut cases);
        let baseline = figures[0].0;
        for (case, (ns, allocations)) in cases.iter().zip(&figures) {
            println!("{backends:>8}  {:<32} {ns:>10.1} {:>7.1}x {allocations:>8.2}", case.name, ns / baseline);
        }
        println!();
    }
}

/// One thing to measure: `call` is given the number of the call.
struct Case {
    name: &'static str,
    call: Box<dyn FnMut(u64)>,
    /// Calls per round: about a millisecond's worth.
    calls: u64,
}

fn cases(n: usize) -> Vec<Case> {
    let select = |name, pool: Pool, keyed: bool| {
        case(name, move |call| {
            let ask = Ask::new(keyed.then(|| key(call)), PROMPT);
            black_box(pool.select(black_box(&ask), &Tried::default(), call));
        })
    };
    let balance = |balance| Settings { balance, ..settings() };
    let plain = pool(n, mixed, settings());
    let mut cases = vec![
        case("plain loop", move |_| {
            black_box(plain_loop(&plain));
        }),
        select("by key, equal weights", pool(n, equal, settings()), true),
        select("by key, mixed weights", pool(n, mixed, settings()), true),
        select("round robin", pool(n, mixed, balance(Balance::RoundRobin)), false),
        select("least requests", pool(n, mixed, balance(Balance::LeastRequests)), false),
        rebuild("rebuild", pool(n, mixed, settings()), n),
    ];
    // With fewer there is no quarter, or no other place to be.
    if n >= 4 {
        cases.extend([
            select("by key, a quarter down", quarter_down(pool(n, mixed, settings())), true),
            select("round robin, a quarter down", quarter_down(pool(n, mixed, balance(Balance::RoundRobin))), false),
            displaced("by key, session displaced", n, 0),
            displaced("by key, others displaced", n, AWAY),
            rebuild("rebuild, 100,000 displaced", with_sessions_away(n), n),
        ]);
        cases.extend(loaded(n));
    }
    cases
}

/// Pools with much to do and much to remember.
fn loaded(n: usize) -> Vec<Case> {
    let busy = |settings: Settings| Busy::new(pool(n, mixed, settings));
    let bounded = Overload { max_in_flight: MaxInFlight::Fixed(64), balance_factor: Some(1.25), ..Overload::OFF };
    let bounded = Settings { overload: bounded, ..settings() };
    let score = Settings { policy: Policy::LeastTtft, ..settings() };
    let warming = busy(Settings { slow_start: 60_000, ..bounded });
    for member in warming.pool.members() {
        for seen in [Observation::ProbeFailed, Observation::ProbeOk, Observation::ProbeOk] {
            member.backend.observe(seen, settings().thresholds, NOW);
        }
    }
    let mut cases = vec![
        busy(bounded).case("bounded load", 0),
        busy(Settings { balance: Balance::LeastRequests, ..bounded }).keyless("bounded load, no session"),
        warming.case("bounded load, all warming up", 0),
        busy(score).case("least_ttft, new sessions", 0),
        busy(Settings { gateways: 3, ..score }).case("least_ttft, three gateways", 0),
        busy(score).case("least_ttft, 1,000 sessions", 1000),
    ];
    // The table is as large as a gateway's may be; once is enough.
    if n == 64 {
        cases.push(busy(Settings { slow_start: 60_000, ..bounded }).case("bounded load, 1 M sessions", KNOWN));
        cases.push(busy(score).case("least_ttft, 1 M sessions", KNOWN));
        let (busy, looked_up) = (busy(score), busy(score));
        looked_up.know(KNOWN);
        cases.push(case("looked up alone, 1 M sessions", move |call| {
            black_box(looked_up.pool.sessions().get(key(call.wrapping_mul(7919) % KNOWN)));
        }));
        busy.know(KNOWN);
        cases.push(case("landed, 1 M sessions", move |call| {
            let ask = Ask::new(Some(key(call % KNOWN)), PROMPT);
            if let Some(selection) = busy.pool.select(&ask, &Tried::default(), NOW).selection() {
                busy.pool.landed(key(call % KNOWN), selection, NOW);
            }
        }));
    }
    cases
}

/// A pool whose backends have much to do, some more than others.
struct Busy {
    pool: Pool,
    _there: Vec<InFlight>,
}

impl Busy {
    fn new(pool: Pool) -> Busy {
        let mut there = Vec::new();
        let (weights, n) = (pool.members().iter().map(|member| member.weight).sum::<u32>(), pool.members().len());
        let waits = (n as u64 / 2 + 8).max(u64::from(weights) * 4);
        for request in 0..waits {
            let ask = Ask::new(Some(key(request.wrapping_mul(7))), PROMPT * (1 + request % 9));
            if let Some(selection) = pool.select(&ask, &Tried::default(), NOW).selection() {
                there.push(pool.enter(&selection, NOW));
            }
        }
        Busy { pool, _there: there }
    }

    /// Makes `sessions` known, each where it would go.
    fn know(&self, sessions: u64) {
        for session in 0..sessions {
            let ask = Ask::new(Some(key(session)), PROMPT);
            if let Some(selection) = self.pool.select(&ask, &Tried::default(), NOW).selection() {
                self.pool.landed(key(session), selection, NOW);
            }
        }
    }

    /// Sessions in turn, of which so many are known.
    fn case(self, name: &'static str, known: u64) -> Case {
        self.know(known);
        case(name, move |call| {
            let ask = Ask::new(Some(key(if known == 0 { call } else { call.wrapping_mul(7919) % known })), 2 * PROMPT);
            black_box(self.pool.select(black_box(&ask), &Tried::default(), NOW + 1));
        })
    }

    fn keyless(self, name: &'static str) -> Case {
        case(name, move |_| {
            black_box(self.pool.select(black_box(&Ask::new(None, PROMPT)), &Tried::default(), NOW + 1));
        })
    }
}

fn key(n: u64) -> SessionKey {
    SessionKey::from_bits(n.wrapping_mul(GOLDEN))
}

fn rebuild(name: &'static str, pool: Pool, n: usize) -> Case {
    let specs = specs(n, mixed);
    case(name, move |_| {
        black_box(pool.rebuild(&specs, settings()));
    })
}

/// Sessions from the `first` on are asked for in turn, of which the first [`AWAY`] are away from home.
fn displaced(name: &'static str, n: usize, first: u64) -> Case {
    let pool = with_sessions_away(n);
    case(name, move |call| {
        let ask = Ask::new(Some(key(first + call % AWAY)), PROMPT);
        black_box(pool.select(black_box(&ask), &Tried::default(), 1));
    })
}

fn with_sessions_away(n: usize) -> Pool {
    let pool = pool(n, mixed, settings());
    for session in 0..AWAY {
        let mut tried = Tried::default();
        tried.push(pool.home(key(session)).unwrap());
        let selection = pool.select(&Ask::new(Some(key(session)), PROMPT), &tried, 0).selection();
        pool.landed(key(session), selection.unwrap(), 0);
    }
    assert_eq!(pool.displaced() as u64, AWAY);
    pool
}

fn case(name: &'static str, mut call: impl FnMut(u64) + 'static) -> Case {
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed().as_micros() < 2000 {
        call(calls);
        calls += 1;
    }
    Case { name, call: Box::new(call), calls: calls.div_ceil(2) }
}

/// Nanoseconds and allocations per call of every case.
fn measure(cases: &mut [Case]) -> Vec<(f64, f64)> {
    let mut times = vec![Vec::with_capacity(ROUNDS); cases.len()];
    let mut allocations = vec![0.0; cases.len()];
    for round in 0..ROUNDS as u64 {
        for (at, case) in cases.iter_mut().enumerate() {
            let (before, start) = (ALLOCATIONS.load(Ordering::Relaxed), Instant::now());
            for call in 0..case.calls {
                (case.call)(round * case.calls + call);
            }
            let ns = start.elapsed().as_nanos() as f64 / case.calls as f64;
            allocations[at] = (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / case.calls as f64;
            times[at].push(ns);
        }
    }
    times.into_iter().map(median).zip(allocations).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn plain_loop(pool: &Pool) -> Option<usize> {
    let mut best: Option<(usize, u32)> = None;
    for (index, member) in pool.members().iter().enumerate() {
        if member.backend.available() && best.is_none_or(|(_, weight)| black_box(member.weight) > weight) {
            best = Some((index, member.weight));
        }
    }
    best.map(|(index, _)| index)
}

fn pool(n: usize, weight: fn(usize) -> u32, settings: Settings) -> Pool {
    let pool = Pool::new(&specs(n, weight), settings);
    for member in pool.members() {
        member.backend.observe(Observation::ProbeOk, settings.thresholds, 0);
    }
    pool
}

fn quarter_down(pool: Pool) -> Pool {
    for member in pool.members().iter().skip(1).step_by(4) {
        member.backend.observe(Observation::ProbeFailed, settings().thresholds, 0);
    }
    pool
}

fn specs(n: usize, weight: fn(usize) -> u32) -> Vec<MemberSpec> {
    let spec = |i| MemberSpec {
        name: format!("10.0.{}.{}:8080", i / 256, i % 256),
        weight: weight(i),
        priority: 0,
        draining: false,
    };
    (0..n).map(spec).collect()
}

fn equal(_: usize) -> u32 {
    1
}

/// Three kinds of machines, as fleets have them.
fn mixed(i: usize) -> u32 {
    [1, 2, 4][i % 3]
}

fn settings() -> Settings {
    Settings {
        seed: Seed::new(""),
        balance: Balance::RoundRobin,
        fail_open: true,
        stay_put: true,
        idle_ttl: 600_000,
        max_displaced: 100_000,
        policy: Policy::ConsistentHash,
        gateways: 1,
        max_sessions: 2_000_000,
        overload: Overload::OFF,
        slow_start: 0,
        drain: Drain { sessions: DrainSessions::UntilIdle, deadline: None },
        thresholds: Thresholds { healthy: 1, unhealthy: 1, errors: 4 },
    }
}

const SIZES: [usize; 6] = [1, 2, 8, 64, 256, 1024];
const ROUNDS: usize = 25;
/// Sessions away from home, where a case is about them.
const AWAY: u64 = 100_000;
/// Sessions that are known, where a case is about them.
const KNOWN: u64 = 1_000_000;
/// Bytes of a prompt.
const PROMPT: u64 = 30_000;
/// The time in pools with much to do.
const NOW: u64 = 100_000;
/// Odd, so that multiplying by it makes keys of all numbers (2^64 over the golden ratio).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is the system allocator's doing; this only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above; `pointer` came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
