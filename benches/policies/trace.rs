//! A trace of requests in the Mooncake format, the sessions that it does not name, and one that is made up.

use std::collections::HashMap;
use std::path::Path;

use fastrand::Rng;
use serde::Deserialize;

/// One request of a trace.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Line {
    /// Milliseconds since the trace began.
    pub(crate) timestamp: u64,
    /// Tokens of the prompt.
    pub(crate) input_length: u32,
    /// Tokens of the answer.
    pub(crate) output_length: u32,
    /// One id for each block of [`BLOCK_TOKENS`] of the prompt: equal ids, equal prompts up to there.
    pub(crate) hash_ids: Vec<u32>,
}

/// Tokens of a block.
pub(crate) const BLOCK_TOKENS: u32 = 512;

/// Reads a file with one JSON object a line.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| format!("{}:{}: {error}", path.display(), number + 1))
    };
    text.lines().enumerate().map(line).collect()
}

/// Where a line belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) session: usize,
    /// The line that it continues, if that is in the same session.
    pub(crate) parent: Option<usize>,
}

/// Infers the sessions: a line's parent is the latest one that holds the deepest block of its longest known prefix. A
/// parent with at most one block more (its last, partly filled one) is continued. One that had more was left on the way
/// (an edit, a shared document): the line is its session's or a new one's, as a coin falls.
///
/// The first block opens every prompt of the trace, a system prompt, and does not count.
pub(crate) fn infer(lines: &[Line], rng: &mut Rng) -> Vec<Place> {
    let mut latest: HashMap<u32, usize> = HashMap::new();
    let mut places: Vec<Place> = Vec::with_capacity(lines.len());
    let mut sessions = 0;
    for (index, line) in lines.iter().enumerate() {
        let known = line.hash_ids.iter().skip(1).take_while(|id| latest.contains_key(id)).count();
        let parent = (known > 0).then(|| latest[&line.hash_ids[known]]);
        let parent = parent.filter(|parent| lines[*parent].hash_ids.len() <= known + 2 || rng.bool());
        let session = parent.map_or(sessions, |parent| places[parent].session);
        sessions = sessions.max(session + 1);
        places.push(Place { session, parent });
        latest.extend(line.hash_ids.iter().map(|id| (*id, index)));
    }
    places
}

/// A made-up trace in the shape of the published conversation trace: heavy-tailed prompts (median 6,900 tokens, mean
/// 12,000), answers of 340 tokens, a third of the requests are later turns, some two minutes after the one before, whose
/// prompts are the one before, its answer, and a question.
pub(crate) fn synthetic(requests: usize, rng: &mut Rng) -> Vec<Line> {
    let span = requests as f64 * MS_BETWEEN_REQUESTS;
    let mut lines: Vec<Line> = Vec::new();
    let mut next_id = 1;
    while lines.len() < requests {
        let mut at = rng.f64() * span;
        let mut input = lognormal(rng, 6900.0, 1.05).clamp(600.0, MOST_TOKENS);
        let mut ids = vec![0];
        let turns = if rng.f64() < 0.28 { 2 + (1.6 * exponential(rng)) as usize } else { 1 };
        for _ in 0..turns {
            let output = lognormal(rng, 280.0, 0.65).clamp(8.0, 2000.0);
            // The block that was partly filled is another one now.
            ids.truncate(ids.len().saturating_sub(1).max(1));
            ids.extend(
                next_id..next_id + ((input / f64::from(BLOCK_TOKENS)).ceil() as u32).saturating_sub(ids.len() as u32),
            );
            next_id = ids.last().map_or(next_id, |last| next_id.max(last + 1));
            let (timestamp, input_length, output_length) = (at as u64, input as u32, output as u32);
            lines.push(Line { timestamp, input_length, output_length, hash_ids: ids.clone() });
            at += lognormal(rng, 120_000.0, 0.9).clamp(5_000.0, 1_500_000.0);
            input = (input + output + 30.0 + 30.0 * exponential(rng)).min(MOST_TOKENS);
        }
    }
    lines.retain(|line| (line.timestamp as f64) < span);
    lines.sort_by_key(|line| line.timestamp);
    lines
}

/// Box and Muller's normal variable.
pub(crate) fn normal(rng: &mut Rng) -> f64 {
    (2.0 * exponential(rng)).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
}

fn exponential(rng: &mut Rng) -> f64 {
    -(1.0 - rng.f64()).ln()
}

fn lognormal(rng: &mut Rng, median: f64, sigma: f64) -> f64 {
    median * (sigma * normal(rng)).exp()
}

const MOST_TOKENS: f64 = 126_000.0;
const MS_BETWEEN_REQUESTS: f64 = 300.0;
