//! What is replayed: turns of sessions at their times.

use std::sync::Arc;

use super::line::Line;
use super::sessions::{Branches, Census, infer};

/// One request.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Number of the session, from 0.
    pub session: usize,
    /// The turn that it waits for: it does not begin before [`Workload::THINKING`] after that one's end.
    pub parent: Option<usize>,
    /// When it arrives unless it has to wait, in seconds.
    pub at: f64,
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens of the answer.
    pub output: u32,
    /// Bytes of the body.
    pub bytes: usize,
    /// The prompt's blocks.
    pub blocks: Arc<[u64]>,
}

/// All turns of a replay, in the order of [`Turn::at`].
#[derive(Clone, Debug)]
pub struct Workload {
    /// The turns.
    pub turns: Vec<Turn>,
    /// How many sessions they belong to.
    pub sessions: usize,
    /// How the lines hang together.
    pub census: Census,
    seed: u64,
}

impl Workload {
    /// The least time between the end of a turn and the next one that continues it, in seconds.
    pub const THINKING: f64 = 1.0;
    /// The stamps of the published trace come in steps of 3 s: each line is moved by 0 to 3 s.
    pub const JITTER: f64 = 3.0;
    /// A token is about four bytes of text.
    pub const BYTES_PER_TOKEN: f64 = 4.0;
    /// The bytes per token differ between sessions (languages, code): the sigma of their logarithm.
    pub const BYTES_SIGMA: f64 = 0.15;

    /// The workload of a trace. `seed` decides branches, jitter, bytes per token and session ids.
    #[must_use]
    pub fn new(lines: &[Line], seed: u64) -> Self {
        let (places, census) = infer(lines, Branches::Mixed { seed });
        let sessions = places.iter().map(|place| place.session + 1).max().unwrap_or(0);
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x7265_706c_6179);
        let bytes: Vec<f64> =
            (0..sessions).map(|_| Self::BYTES_PER_TOKEN * (Self::BYTES_SIGMA * normal(&mut rng)).exp()).collect();
        let turns = lines.iter().zip(&places).map(|(line, place)| Turn {
            session: place.session,
            parent: place.parent,
            at: line.timestamp as f64 / 1e3 + Self::JITTER * rng.f64(),
            prompt: line.input_length,
            output: line.output_length.max(1),
            bytes: whole(f64::from(line.input_length) * bytes[place.session]),
            blocks: line.hash_ids.clone().into(),
        });
        Self { turns: turns.collect(), sessions, census, seed }.in_order()
    }

    /// The same turns with all arrival times multiplied by `scale`. A turn's own thinking time is not scaled.
    #[must_use]
    pub fn scaled(&self, scale: f64) -> Self {
        let mut scaled = self.clone();
        scaled.turns.iter_mut().for_each(|turn| turn.at *= scale);
        scaled
    }

    /// When the last turn arrives, in seconds.
    #[must_use]
    pub fn duration(&self) -> f64 {
        self.turns.last().map_or(0.0, |turn| turn.at)
    }

    /// All prompt tokens.
    #[must_use]
    pub fn prompt_tokens(&self) -> u64 {
        self.turns.iter().map(|turn| u64::from(turn.prompt)).sum()
    }

    /// What a client would send as the id of a session: 32 hexadecimal digits that differ between seeds.
    #[must_use]
    pub fn session_id(&self, session: usize) -> String {
        let mut rng = fastrand::Rng::with_seed(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ session as u64);
        format!("{:032x}", rng.u128(..))
    }

    /// Jitter may have swapped neighbours.
    fn in_order(mut self) -> Self {
        let mut order: Vec<usize> = (0..self.turns.len()).collect();
        order.sort_by(|a, b| self.turns[*a].at.total_cmp(&self.turns[*b].at));
        let mut position = vec![0; order.len()];
        order.iter().enumerate().for_each(|(new, old)| position[*old] = new);
        self.turns = order.iter().map(|old| self.turns[*old].clone()).collect();
        for turn in &mut self.turns {
            turn.parent = turn.parent.map(|parent| position[parent]);
        }
        self
    }
}

/// A standard normal number (Box and Muller 1958).
pub(super) fn normal(rng: &mut fastrand::Rng) -> f64 {
    let (u, v) = (1.0 - rng.f64(), rng.f64());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes of bodies are positive and small")]
fn whole(bytes: f64) -> usize {
    bytes.round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<Line> {
        let line = |at: u64, tokens: u32, hash_ids: Vec<u64>| Line {
            timestamp: at,
            input_length: tokens,
            output_length: 10,
            hash_ids,
        };
        vec![
            line(0, 1024, vec![0, 1]),
            line(0, 512, vec![0]),
            line(0, 1536, vec![0, 1, 2]),
            line(9000, 600, vec![0, 8]),
        ]
    }

    #[test]
    fn turns_are_in_order_and_parents_are_found_after_the_jitter() {
        for seed in 0..30 {
            let workload = Workload::new(&lines(), seed);
            assert!(workload.turns.is_sorted_by(|a, b| a.at <= b.at));
            assert_eq!(workload.sessions, 3);
            let child = workload.turns.iter().find(|turn| turn.prompt == 1536).unwrap();
            let parent = &workload.turns[child.parent.unwrap()];
            assert_eq!((parent.prompt, parent.session), (1024, child.session));
            assert!(
                workload.turns.iter().all(|turn| (2.0..8.0).contains(&(turn.bytes as f64 / f64::from(turn.prompt))))
            );
        }
    }

    #[test]
    fn scaling_moves_arrivals_only() {
        let workload = Workload::new(&lines(), 1);
        let half = workload.scaled(0.5);
        assert!((half.duration() - workload.duration() / 2.0).abs() < 1e-9);
        assert_eq!(half.prompt_tokens(), 1024 + 512 + 1536 + 600);
    }

    #[test]
    fn session_ids_are_stable_and_differ() {
        let (a, b) = (Workload::new(&lines(), 1), Workload::new(&lines(), 2));
        assert_eq!(a.session_id(0), a.session_id(0));
        assert_ne!(a.session_id(0), a.session_id(1));
        assert_ne!(a.session_id(0), b.session_id(0));
        assert_eq!(a.session_id(0).len(), 32);
    }
}
