//! What is replayed: turns of sessions at their times.

use fastrand::Rng;
use ingle::core::SessionKey;

use crate::trace::{Line, infer, normal};

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) session: usize,
    pub(crate) key: SessionKey,
    /// The turn that it waits for: it begins a second after that one's end, or later.
    pub(crate) parent: Option<usize>,
    /// When it arrives unless it has to wait, in seconds, before scaling.
    pub(crate) at: f64,
    /// Bytes of the body.
    pub(crate) bytes: u64,
}

/// A trace with what a seed decides: sessions, times, bytes, ids.
pub(crate) struct Workload<'a> {
    pub(crate) lines: &'a [Line],
    pub(crate) turns: Vec<Turn>,
    pub(crate) children: Vec<Vec<usize>>,
    pub(crate) sessions: usize,
    pub(crate) seed: u64,
}

/// From the end of a turn to the next one of the same session, at least; seconds.
pub(crate) const THINKING: f64 = 1.0;
/// The stamps of the trace come in steps of 3 s.
const JITTER: f64 = 3.0;
const BYTES_PER_TOKEN: f64 = 4.0;
/// Languages and code differ: the sigma of the logarithm of bytes per token, per session.
const BYTES_SIGMA: f64 = 0.15;

impl<'a> Workload<'a> {
    pub(crate) fn new(lines: &'a [Line], seed: u64) -> Workload<'a> {
        let mut rng = Rng::with_seed(seed);
        let places = infer(lines, &mut rng);
        let count = places.iter().map(|place| place.session + 1).max().unwrap_or(0);
        let per_token: Vec<f64> =
            (0..count).map(|_| BYTES_PER_TOKEN * (BYTES_SIGMA * normal(&mut rng)).exp()).collect();
        let keys: Vec<SessionKey> = (0..count).map(|_| SessionKey::from_bits(rng.u64(..))).collect();
        let mut children = vec![Vec::new(); lines.len()];
        let mut turns = Vec::with_capacity(lines.len());
        for (number, (line, place)) in lines.iter().zip(&places).enumerate() {
            if let Some(parent) = place.parent {
                children[parent].push(number);
            }
            turns.push(Turn {
                session: place.session,
                key: keys[place.session],
                parent: place.parent,
                at: line.timestamp as f64 / 1000.0 + JITTER * rng.f64(),
                bytes: (f64::from(line.input_length) * per_token[place.session]) as u64,
            });
        }
        Workload { lines, turns, children, sessions: count, seed }
    }

    /// When the last turn arrives, in seconds, before scaling.
    pub(crate) fn span(&self) -> f64 {
        self.turns.iter().map(|turn| turn.at).fold(0.0, f64::max)
    }
}
