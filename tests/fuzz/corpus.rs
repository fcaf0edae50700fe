//! The inputs: those that are kept, and new ones made of them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use crate::rng::Rng;

/// Gives a target every input of its corpus, then `runs` mutations of them.
pub(crate) fn replay(target: &str, runs: u64, check: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut kept: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    kept.sort();
    let inputs: Vec<Vec<u8>> = kept.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(inputs.len() >= 5, "{}: only {} inputs", folder.display(), inputs.len());
    for (path, input) in kept.iter().zip(&inputs) {
        run(check, input, || format!("{}", path.display()));
    }
    let (seed, runs) = (setting("INGLE_FUZZ_SEED", 1), setting("INGLE_FUZZ_RUNS", runs));
    let mut rng = Rng::new(seed);
    for number in 0..runs {
        let input = mutated(&mut rng, &inputs);
        run(check, &input, || format!("INGLE_FUZZ_SEED={seed}, input {number}: {}", input.escape_ascii()));
    }
}

fn run(check: fn(&[u8]), input: &[u8], name: impl FnOnce() -> String) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
        println!("FAILED with {}", name());
        resume_unwind(panic);
    }
}

/// One of the inputs with a few changes: bytes, pieces of itself, and pieces of another.
fn mutated(rng: &mut Rng, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut input = inputs[rng.below(inputs.len())].clone();
    for _ in 0..=rng.below(4) {
        let at = rng.below(input.len() + 1);
        match rng.below(6) {
            0 => input.insert(at, byte(rng)),
            1 => drop(input.splice(at..input.len().min(at + 1), [byte(rng)])),
            2 => drop(input.drain(at..input.len().min(at + 1 + rng.below(8)))),
            3 => drop(input.splice(at..at, input[at..input.len().min(at + 16)].to_vec())),
            4 => input.truncate(at),
            _ => {
                let other = &inputs[rng.below(inputs.len())];
                let from = rng.below(other.len() + 1);
                let piece = other[from..other.len().min(from + 1 + rng.below(64))].to_vec();
                drop(input.splice(at..at, piece));
            }
        }
    }
    input
}

fn byte(rng: &mut Rng) -> u8 {
    match rng.below(3) {
        0 => rng.pick(b"\0\x01\xff\n\r\t \"'{}[]:,-#%&*!|>0159~\\/.$;"),
        _ => rng.next().to_le_bytes()[0],
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
