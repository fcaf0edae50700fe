//! Random hostile requests, for what no table thought of.
//!
//! `INGLE_FUZZ_CASES` says how many (2,000), `INGLE_FUZZ_SEED` which ones.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::client::{End, exchange};
use crate::grammar::{self, Random};
use crate::world::World;

/// Held by tests that need much memory: this one measures how the process grows.
pub(crate) static MEMORY: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_requests_are_refused_or_forwarded_whole() {
    let (cases, seed) = (setting("INGLE_FUZZ_CASES", 2000), setting("INGLE_FUZZ_SEED", 1));
    let _alone = MEMORY.lock().await;
    println!("INGLE_FUZZ_SEED={seed} INGLE_FUZZ_CASES={cases}");
    let world = Arc::new(World::start("500ms").await);
    let mut random = Random(seed as u64);
    let (mut statuses, mut sent, mut before) = (HashMap::new(), 0, 0);
    // Batches, so that a failure names few suspects.
    for first in (0..cases).step_by(BATCH) {
        let batch: Vec<Vec<u8>> = (first..cases.min(first + BATCH)).map(|n| grammar::request(&mut random, n)).collect();
        if first >= cases / 10 {
            sent += batch.iter().map(Vec::len).sum::<usize>();
        }
        for status in round(&world, first, &batch).await {
            *statuses.entry(status).or_insert(0) += 1;
        }
        if first <= cases / 10 {
            before = resident_kib();
        }
    }
    let grown = resident_kib().saturating_sub(before);
    println!("statuses, 0 for a close: {statuses:?}; {sent} bytes sent, memory grew by {grown} KiB");
    assert!(
        statuses.get(&200).is_some_and(|served| served * 10 > cases),
        "the grammar makes too little that is served"
    );
    assert!(grown * 10 <= sent.max(1 << 20), "memory grew by {grown} KiB over {sent} hostile bytes");
}

/// Sends a batch, all at once, and judges it. Returns the status of each answer.
async fn round(world: &Arc<World>, first: usize, batch: &[Vec<u8>]) -> Vec<u16> {
    let mut clients = JoinSet::new();
    for (offset, bytes) in batch.iter().cloned().enumerate() {
        let world = Arc::clone(world);
        clients.spawn(async move { (offset, exchange(world.address, &bytes, End::Waits, 1).await) });
    }
    let mut statuses = Vec::new();
    for (offset, answers) in clients.join_all().await {
        let suspect = || format!("case {}: {}", first + offset, batch[offset].escape_ascii());
        let answers = answers.unwrap_or_else(|error| panic!("{error}\n{}", suspect()));
        assert!(answers.len() <= 1, "{} answers\n{}", answers.len(), suspect());
        for answer in &answers {
            assert!(answer.status < 500, "{answer:?}\n{}", suspect());
            let own = number(&String::from_utf8_lossy(&batch[offset]));
            let others = answer.status == 200 && number(&answer.body) != own;
            assert!(!others, "another one's answer: {answer:?}\n{}", suspect());
        }
        statuses.push(answers.first().map_or(0, |answer| answer.status));
    }
    let suspects = || batch.iter().map(|bytes| bytes.escape_ascii().to_string()).collect::<Vec<_>>().join("\n");
    let (reached, _) = world.aftermath().await.unwrap_or_else(|error| panic!("{error}\none of\n{}", suspects()));
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert!(reached.len() <= batch.len() && served <= reached.len(), "{served} of {reached:?}\n{}", suspects());
    // A mutation may have turned one case's number into another's.
    let mut left = HashMap::new();
    for number in batch.iter().filter_map(|bytes| number(&String::from_utf8_lossy(bytes))) {
        *left.entry(number).or_insert(0) += 1;
    }
    for request in &reached {
        let target = request.split(' ').nth(1).unwrap_or_default();
        assert!(!target.starts_with("/smuggled"), "{request}\none of\n{}", suspects());
        if let Some(number) = number(target) {
            let left = left.entry(number).or_insert(0);
            *left -= 1;
            assert!(*left >= 0, "more than once: {request}\n{}", suspects());
        }
    }
    statuses
}

/// The case that a target belongs to.
fn number(target: &str) -> Option<usize> {
    target.split("/c/").nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

pub(crate) fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// The memory of this process that is in RAM.
pub(crate) fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

const BATCH: usize = 100;
