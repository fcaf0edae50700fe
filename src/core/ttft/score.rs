//! The score of a backend for a request, and the choice among several.

use std::cmp::Ordering;

use super::super::Millis;
use super::super::hash::Claim;
use super::rates::Rates;
use super::waiting::{Expected, Waiting};

/// A backend that could take the request, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The member's index in its pool.
    pub member: usize,
    /// Its requests that await a first token.
    pub waiting: &'a Waiting,
    /// Its requests of this gateway, waiting or not.
    pub in_flight: usize,
    /// Its configured weight: a weight of 2 is taken to be twice as fast.
    pub weight: u32,
    /// Its claim on the session, for the preference order. A request without a session has the claims of a throwaway key.
    pub claim: Claim,
    /// Whether it is the session's home; never for a request without a session.
    pub home: bool,
    /// What it has seen of the session.
    pub seen: Option<Seen>,
    /// Whether it is where the session's last request went.
    pub last: bool,
    /// How many requests it works on at once, if that is known.
    pub slots: Option<u32>,
    /// Requests that others sent there.
    pub others: Others,
}

/// What a backend has seen of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The bytes of the session's last prompt there.
    pub bytes: u64,
    /// When the session was last active there.
    pub at: Millis,
}

/// The load at a backend that is not this gateway's, from the backend's own figures; 0 if they are not polled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Requests that it works on.
    pub running: u32,
    /// Requests that wait there.
    pub waiting: u32,
}

/// How much the policy leans to where a cache may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lean {
    /// `q`: which share of a prompt that this gateway has not seen counts as cached at its home.
    pub home: f64,
    /// `w`: how much a byte to recompute counts against a byte to wait for: others wait for it too.
    pub recompute: f64,
}

impl Lean {
    /// For so many gateways that share the backends. Several know of each other's sessions only that they begin at home.
    #[must_use]
    pub fn new(gateways: u32) -> Lean {
        match gateways {
            0 | 1 => Lean { home: 0.0, recompute: 1.5 },
            _ => Lean { home: 0.5, recompute: 2.0 },
        }
    }
}

/// The terms of a score, all in bytes of prompt at the fleet's usual speed; none is negative.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// What is to be read before this request.
    pub wait: f64,
    /// What is to be read of this request, weighted.
    pub recompute: f64,
    /// What answers under way cost.
    pub decoding: f64,
    /// The sum, for this backend's speed: the least wins.
    pub total: f64,
}

/// The backend that was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The member's index in its pool.
    pub member: usize,
    /// Its score.
    pub terms: Terms,
    /// To be handed to [`Waiting::enter`].
    pub expected: Expected,
}

/// Chooses the candidate with the least score; among equals, the first of the preference order. A session leaves
/// where it was last only for a gain that is worth it. `None` without candidates.
pub fn choose<'a>(
    lean: Lean,
    rates: &Rates,
    bytes: u64,
    candidates: impl Iterator<Item = Candidate<'a>>,
    now: Millis,
) -> Option<Choice> {
    let mut best: Option<(Choice, Claim)> = None;
    let mut last: Option<Choice> = None;
    for candidate in candidates {
        let expected = expect(rates, bytes, &candidate, now);
        let choice =
            Choice { member: candidate.member, terms: score(lean, rates, expected, &candidate, now), expected };
        if candidate.last {
            last = Some(choice);
        }
        if best.is_none_or(|(best, claim)| match choice.terms.total.total_cmp(&best.terms.total) {
            Ordering::Less => true,
            Ordering::Equal => candidate.claim.beats(claim),
            Ordering::Greater => false,
        }) {
            best = Some((choice, candidate.claim));
        }
    }
    let (best, _) = best?;
    match last {
        Some(last) if last.terms.total - best.terms.total <= MOVE_BYTES + MOVE_SHARE * last.terms.total => Some(last),
        _ => Some(best),
    }
}

/// What is to be expected of a request of so many bytes at a candidate.
#[must_use]
pub fn expect(rates: &Rates, bytes: u64, candidate: &Candidate<'_>, now: Millis) -> Expected {
    let Some(seen) = candidate.seen.filter(|seen| candidate.waiting.warm(seen.at)) else {
        return Expected { bytes, seen: 0, age: 0, estimate: bytes };
    };
    let age = now.saturating_sub(seen.at);
    let seen = seen.bytes.min(bytes);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of `seen`, rounded down")]
    let cached = (rates.held(age) * seen as f64) as u64;
    Expected { bytes, seen, age, estimate: bytes - cached.min(bytes) }
}

/// The score of a candidate.
#[must_use]
pub fn score(lean: Lean, rates: &Rates, expected: Expected, candidate: &Candidate<'_>, now: Millis) -> Terms {
    let speed = f64::from(candidate.weight.max(1));
    let wait = candidate.waiting.pending(rates.bytes_per_ms() * speed, now);
    let unseen_home = if candidate.home && expected.seen == 0 { lean.home } else { 0.0 };
    let recompute = lean.recompute * (expected.estimate as f64) * (1.0 - unseen_home);
    let answers = candidate.in_flight.saturating_sub(candidate.waiting.count());
    let decoding = DECODING_BYTES * answers as f64;
    Terms { wait, recompute, decoding, total: (wait + recompute + decoding) / speed }
}

/// What an answer under way costs: 30 ms where 8,000 tokens of 4 bytes are read in a second.
const DECODING_BYTES: f64 = 960.0;
/// The gain that a move must bring: 50 ms at the same speed, and a tenth of the score.
const MOVE_BYTES: f64 = 1600.0;
const MOVE_SHARE: f64 = 0.1;
