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
    /// Its requests that await a first token, and what was learned of it.
    pub waiting: &'a Waiting,
    /// Its configured weight: twice the weight is taken to be twice as fast, until that turns out to be wrong.
    pub weight: u32,
    /// Its claim on the session, for the preference order. A request without a session has those of a throwaway key.
    pub claim: Claim,
    /// Whether it is the session's home; never for a request without a session.
    pub home: bool,
    /// What it has seen of the session.
    pub seen: Option<Seen>,
    /// Whether it is where the session's last request went.
    pub last: bool,
    /// How many requests it works on at once, if that is known.
    pub slots: Option<u32>,
    /// Requests that it would still have if it had not answered them with errors.
    pub errors: u32,
}

/// What a backend has seen of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The bytes of the session's last prompt there.
    pub bytes: u64,
    /// When the session was last active there.
    pub at: Millis,
}

/// How much the policy leans to where a cache may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lean {
    gateways: f64,
    home: f64,
}

/// The terms of a score, all in bytes of prompt; none is negative.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// What is to be read before this request, or what would be while it waits for a slot.
    pub wait: f64,
    /// What is to be read of this request, weighted: others wait for it too.
    pub recompute: f64,
    /// What answers under way cost.
    pub decoding: f64,
    /// How fast the backend is: its weight, corrected by what was learned.
    pub speed: f64,
    /// The sum by the speed: the least wins.
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

impl Lean {
    /// For so many gateways that share the backends.
    ///
    /// One knows all sessions there are, so an unknown one is new, and its home has nothing of it. Several do not
    /// know of each other's; if each begins them at home, that is where most are found.
    #[must_use]
    pub fn new(gateways: u32) -> Lean {
        Lean { gateways: f64::from(gateways.max(1)), home: if gateways > 1 { UNKNOWN_AT_HOME } else { 0.0 } }
    }

    /// `w`: how much a byte to recompute counts against a byte to wait for. It delays its own request and those behind
    /// it, of which each gateway sees its own.
    #[must_use]
    pub fn recompute(self, rates: &Rates) -> f64 {
        RECOMPUTE + (self.gateways * rates.behind()).min(MOST_BEHIND)
    }
}

/// Chooses the candidate with the least score; among equals, the first of the preference order. A session leaves
/// where it was last, while its cache is there, only for a gain that is worth it. `None` without candidates.
pub fn choose<'a>(
    lean: Lean,
    rates: &Rates,
    bytes: u64,
    candidates: impl Iterator<Item = Candidate<'a>>,
    now: Millis,
) -> Option<Choice> {
    let moment = Moment::new(lean, rates, now);
    let mut best: Option<(Choice, Claim)> = None;
    let mut last: Option<Choice> = None;
    for candidate in candidates {
        let expected = expect(rates, bytes, &candidate, now);
        let choice = Choice { member: candidate.member, terms: moment.score(expected, &candidate), expected };
        if candidate.last && expected.seen > 0 {
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
        Some(last) if !worth_moving(last.terms, best.terms) => Some(last),
        _ => Some(best),
    }
}

/// Whether a session gains enough. All in bytes at the speed of where it is.
fn worth_moving(from: Terms, to: Terms) -> bool {
    (from.total - to.total) * from.speed > MOVE_BYTES + MOVE_SHARE * from.total * from.speed
}

/// What is to be expected of a request of so many bytes at a candidate.
#[must_use]
pub fn expect(rates: &Rates, bytes: u64, candidate: &Candidate<'_>, now: Millis) -> Expected {
    let weight = candidate.weight.max(1);
    let Some(seen) = candidate.seen.filter(|seen| candidate.waiting.warm(seen.at)) else {
        return Expected { bytes, seen: 0, age: 0, estimate: bytes, weight };
    };
    let age = now.saturating_sub(seen.at);
    let seen = seen.bytes.min(bytes);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of `seen`, rounded down")]
    let cached = (rates.held(age) * seen as f64) as u64;
    Expected { bytes, seen, age, estimate: bytes - cached.min(bytes), weight }
}

/// The score of a candidate for a request of which that is expected.
#[must_use]
pub fn score(lean: Lean, rates: &Rates, expected: Expected, candidate: &Candidate<'_>, now: Millis) -> Terms {
    Moment::new(lean, rates, now).score(expected, candidate)
}

/// What all candidates have in common.
struct Moment {
    now: Millis,
    bytes_per_ms: f64,
    /// How much of what awaits a first token is really unread: that of an answer in one piece is not seen when it comes,
    /// so most of those that seem to wait for it are being answered.
    unread: f64,
    /// Bytes for each prompt that others wait for.
    other: f64,
    /// Bytes for each request that was answered with an error, of which there are more than none.
    error: f64,
    /// What a backend of weight 1 reads while an answer takes its time.
    answer: f64,
    recompute: f64,
    recompute_at_home: f64,
}

impl Moment {
    fn new(lean: Lean, rates: &Rates, now: Millis) -> Moment {
        let (recompute, bytes_per_ms) = (lean.recompute(rates), rates.bytes_per_ms());
        Moment {
            now,
            bytes_per_ms,
            unread: 1.0 - rates.whole() * (1.0 - UNREAD_OF_WHOLE),
            other: OTHERS * rates.size(),
            error: rates.size().max(MOVE_BYTES),
            answer: rates.answer() * bytes_per_ms,
            recompute,
            recompute_at_home: recompute * (1.0 - lean.home),
        }
    }

    /// Inlined: terms that come back through memory cost the choice a third of its time.
    #[inline(always)]
    fn score(&self, expected: Expected, candidate: &Candidate<'_>) -> Terms {
        let waiting = candidate.waiting;
        let (running, unread) = waiting.others();
        let speed = f64::from(expected.weight) * waiting.speed().factor();
        let pending =
            self.unread * waiting.pending(self.bytes_per_ms * speed, self.now) + self.other * f64::from(unread);
        let there = waiting.count() + waiting.answering() + running as usize + unread as usize;
        let wait = match candidate.slots {
            Some(slots) if there >= slots as usize => pending.max(self.slot_wait(slots, there) * speed),
            _ => pending,
        };
        let wait = if candidate.errors == 0 { wait } else { wait + self.error * f64::from(candidate.errors) };
        let unknown_at_home = candidate.home && expected.seen == 0;
        let weight = if unknown_at_home { self.recompute_at_home } else { self.recompute };
        let recompute = weight * expected.estimate as f64;
        let decoding = DECODING_BYTES * (waiting.answering() as f64 + f64::from(running));
        Terms { wait, recompute, decoding, speed, total: (wait + recompute + decoding) / speed }
    }

    /// What a backend of weight 1 would read until a slot is free for one more: so many answers have to end before, and
    /// one ends in the time of an answer by the number of slots.
    fn slot_wait(&self, slots: u32, there: usize) -> f64 {
        let slots = f64::from(slots.max(1));
        (there as f64 + 1.0 - slots).max(0.0) / slots * self.answer
    }
}

/// What an answer under way costs: 30 ms where 8,000 tokens of 4 bytes are read in a second. 320 to 2,000 make no
/// difference that can be measured unless slots are scarce and not known; then more would be better.
const DECODING_BYTES: f64 = 960.0;
/// A recomputed byte counts for itself and, on top of those behind it, for those that will come.
const RECOMPUTE: f64 = 1.5;
/// What counts of those behind, at most: in an outright jam sessions must be able to leave. 6 makes no difference below
/// saturation; 5 % above it three gateways with 6 are worse than the hash (mean 1.18x), with 18 1.05x, with 30 1.02x.
const MOST_BEHIND: f64 = 30.0;
/// `q`, how much of a session that is not known is thought to be cached at its home, if there are other gateways.
const UNKNOWN_AT_HOME: f64 = 0.5;
/// How much of a prompt that others wait for is still unread: the figure is old, and one of them is being read.
const OTHERS: f64 = 0.5;
/// How much of the prompts of answers in one piece is unread while they seem to be. Simulated without a stream: mean
/// 0.47 of the hash's and 1.6 points more recompute (three quarters loaded); with all of it 0.54 and 5.9 points.
const UNREAD_OF_WHOLE: f64 = 0.25;
/// The gain that a move must bring: 50 ms at the speed above, and a tenth of the score.
const MOVE_BYTES: f64 = 1600.0;
const MOVE_SHARE: f64 = 0.1;
