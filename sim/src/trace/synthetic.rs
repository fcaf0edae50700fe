//! A made-up trace of the same shape as the published one.

use super::line::{BLOCK_TOKENS, Line};
use super::workload::normal;

/// Makes traces up: chats with heavy-tailed prompts, most of one turn, as in Mooncake's conversation trace (mean prompt
/// 12,000 tokens, median 6,900, 99th percentile 85,000; 343 tokens of answer; two thirds of the requests are first
/// turns; 123 s between turns in the median; 3.2 requests a second).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synthetic {
    /// How many requests.
    pub requests: usize,
    /// Decides everything.
    pub seed: u64,
}

impl Synthetic {
    /// The trace, in the order of times.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let duration = self.requests as f64 / REQUESTS_PER_SECOND;
        let mut next_block = 1;
        let mut lines = Vec::with_capacity(self.requests + MAX_TURNS);
        while lines.len() < self.requests {
            let mut at = rng.f64() * duration;
            let mut session: Option<Line> = None;
            for turn in 0..MAX_TURNS {
                let goes_on = if turn == 1 { SECOND_TURN } else { FURTHER_TURN };
                if at >= duration || (turn > 0 && rng.f64() >= goes_on) {
                    break;
                }
                let line = next(session.as_ref(), at, &mut next_block, &mut rng);
                lines.push(line.clone());
                session = Some(line);
                at += lognormal(&mut rng, GAP_MEDIAN, GAP_SIGMA);
            }
        }
        lines.truncate(self.requests);
        lines.sort_by_key(|line| line.timestamp);
        lines
    }
}

/// The next turn: a prompt with the one before, its answer, and something new.
fn next(before: Option<&Line>, at: f64, next_block: &mut u64, rng: &mut fastrand::Rng) -> Line {
    let mut fresh = || {
        *next_block += 1;
        *next_block
    };
    let input = match before {
        None => tokens(lognormal(rng, PROMPT_MEDIAN, PROMPT_SIGMA)),
        Some(before) => before.input_length + before.output_length + tokens(lognormal(rng, QUESTION_MEDIAN, 1.0)),
    };
    let input_length = input.min(MAX_PROMPT);
    let whole = before.map_or(0, |before| (before.input_length / BLOCK_TOKENS) as usize);
    let mut hash_ids: Vec<u64> =
        before.map_or_else(|| vec![SYSTEM_PROMPT], |before| before.hash_ids[..whole.max(1)].to_vec());
    hash_ids.resize_with(input_length.div_ceil(BLOCK_TOKENS) as usize, &mut fresh);
    let output_length = tokens(lognormal(rng, ANSWER_MEDIAN, ANSWER_SIGMA)).min(MAX_ANSWER);
    Line { timestamp: u64::from(tokens(at * 1e3)), input_length, output_length, hash_ids }
}

fn lognormal(rng: &mut fastrand::Rng, median: f64, sigma: f64) -> f64 {
    median * (sigma * normal(rng)).exp()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and saturating is right")]
fn tokens(value: f64) -> u32 {
    value.max(1.0) as u32
}

const REQUESTS_PER_SECOND: f64 = 3.2;
const SYSTEM_PROMPT: u64 = 0;
/// `ln(mean / median) = sigma^2 / 2`.
const PROMPT_MEDIAN: f64 = 6_900.0;
const PROMPT_SIGMA: f64 = 1.05;
const MAX_PROMPT: u32 = 126_000;
const QUESTION_MEDIAN: f64 = 26.0;
const ANSWER_MEDIAN: f64 = 250.0;
const ANSWER_SIGMA: f64 = 0.8;
const MAX_ANSWER: u32 = 2_000;
const GAP_MEDIAN: f64 = 123.0;
const GAP_SIGMA: f64 = 1.0;
/// Of 7,400 sessions 2,300 had a second turn; those had three turns in the mean.
const SECOND_TURN: f64 = 0.31;
const FURTHER_TURN: f64 = 0.5;
const MAX_TURNS: usize = 43;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::figures::Summary;
    use crate::trace::sessions::{Branches, infer};

    fn lines() -> Vec<Line> {
        Synthetic { requests: 6_000, seed: 1 }.lines()
    }

    #[test]
    fn it_has_the_shape_of_the_published_trace() {
        let prompts = Summary::of(lines().iter().map(|line| f64::from(line.input_length)));
        assert!((10_000.0..14_000.0).contains(&prompts.mean), "{prompts:?}");
        assert!((6_000.0..8_500.0).contains(&prompts.p50), "{prompts:?}");
        assert!((60_000.0..110_000.0).contains(&prompts.p99), "{prompts:?}");
        let answers = Summary::of(lines().iter().map(|line| f64::from(line.output_length)));
        assert!((300.0..380.0).contains(&answers.mean), "{answers:?}");
        let (_, census) = infer(&lines(), Branches::New);
        assert!((3_600..4_500).contains(&census.roots), "{census:?}");
        assert_eq!(census.branches, 0, "nobody edits an answer here");
    }

    #[test]
    fn it_is_a_trace_and_the_seed_decides() {
        let text: String = lines().iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
        assert_eq!(crate::trace::read(text.as_bytes(), usize::MAX).unwrap(), lines());
        assert_ne!(Synthetic { requests: 6_000, seed: 2 }.lines(), lines());
    }
}
