//! What is counted for the hints, in one piece of time and over all of them.

use std::sync::Arc;

use super::{Move, Seen};
use crate::core::Backend;
use crate::core::heavy::Heavy;
use crate::core::usage::Tokens;

/// Counts of finished requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Those that a backend answered.
    pub(super) requests: u64,
    /// Chats and completions among them.
    pub(super) chats: u64,
    pub(super) chats_without_session: u64,
    /// Those of them that came with one that is not valid.
    pub(super) chats_with_invalid: u64,
    /// Sessions that were seen for the first time, and for the second.
    pub(super) firsts: u64,
    pub(super) seconds: u64,
    /// Turns after the first, and which of them were elsewhere than the turn before.
    pub(super) later_turns: u64,
    pub(super) moves: [u64; Move::ALL.len()],
    pub(super) ids: Heavy,
    pub(super) figures: Vec<(Arc<Backend>, Figures)>,
}

/// What a backend said of the prompts of turns that found their session where it had been: something of each should be
/// in its cache.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    /// Turns with a cached figure, without one, and without any figure of the prompt.
    pub(super) told: u64,
    pub(super) untold: u64,
    pub(super) mute: u64,
    /// Turns whose prompt is long enough to judge reuse by, and their tokens.
    pub(super) long: u64,
    pub(super) tokens: Tokens,
}

impl Counts {
    pub(super) fn note(&mut self, seen: &Seen<'_>) {
        self.requests += 1;
        if seen.chat {
            self.chats += 1;
            self.chats_without_session += u64::from(seen.key.is_none());
            self.chats_with_invalid += u64::from(seen.invalid);
        }
        let Some(key) = seen.key else { return };
        self.ids.note(key);
        match seen.turn {
            0 | 1 => self.firsts += 1,
            turn => {
                self.seconds += u64::from(turn == 2);
                self.later_turns += 1;
                match seen.moved {
                    Some(reason) => self.moves[reason as usize] += 1,
                    None if seen.chat && seen.whole => self.figures_of(seen.backend).note(seen),
                    None => {}
                }
            }
        }
    }

    /// Adds what another piece of time has, but for who was how often there.
    pub(super) fn add(&mut self, other: &Counts) {
        self.requests += other.requests;
        self.chats += other.chats;
        self.chats_without_session += other.chats_without_session;
        self.chats_with_invalid += other.chats_with_invalid;
        self.firsts += other.firsts;
        self.seconds += other.seconds;
        self.later_turns += other.later_turns;
        self.moves.iter_mut().zip(other.moves).for_each(|(sum, more)| *sum += more);
        for (backend, figures) in &other.figures {
            self.figures_of(backend).add(*figures);
        }
    }

    fn figures_of(&mut self, backend: &Arc<Backend>) -> &mut Figures {
        let at = self.figures.iter().position(|(known, _)| Arc::ptr_eq(known, backend));
        let at = at.unwrap_or_else(|| {
            self.figures.push((Arc::clone(backend), Figures::default()));
            self.figures.len() - 1
        });
        &mut self.figures[at].1
    }
}

impl Figures {
    fn note(&mut self, seen: &Seen<'_>) {
        let Some(usage) = seen.usage else {
            self.mute += 1;
            return;
        };
        match usage.cached {
            Some(_) => self.told += 1,
            None => self.untold += 1,
        }
        if usage.prompt >= LONG_PROMPT {
            self.long += 1;
            self.tokens += usage.tokens();
        }
    }

    fn add(&mut self, other: Figures) {
        self.told += other.told;
        self.untold += other.untold;
        self.mute += other.mute;
        self.long += other.long;
        self.tokens += other.tokens;
    }
}

/// Tokens of the shortest prompt that reuse is judged by: a shorter one may be little more than what is new in it, and
/// its cache is worth little.
const LONG_PROMPT: u64 = 500;
