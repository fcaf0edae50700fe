//! The sessions that an outage drove from home: what their first turn after it costs.

use std::collections::HashMap;

use super::outage::{Outage, Phase};
use super::simulation::Outcome;

/// First turns after an outage, of sessions whose home it took and that had a turn meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Displaced {
    /// How many.
    pub turns: usize,
    /// Tokens of their prompts.
    pub prompt: u64,
    /// Those of them that were cached.
    pub cached: u64,
    /// Seconds to their first tokens, all together.
    pub first_token: f64,
}

impl Displaced {
    /// Counts them. `home` tells, by its number and its turns, where a session is at home, if it has a home.
    #[must_use]
    pub fn of(outcomes: &[Outcome], outage: Outage, home: impl Fn(usize, &[&Outcome]) -> Option<usize>) -> Self {
        let mut sessions: HashMap<usize, Vec<&Outcome>> = HashMap::new();
        outcomes.iter().for_each(|outcome| sessions.entry(outcome.session).or_default().push(outcome));
        let is_displaced = |session: usize, turns: &[&Outcome]| {
            turns.iter().any(|turn| Phase::Down.has(turn, Some(outage))) && home(session, turns) == Some(outage.machine)
        };
        let mut displaced = Self::default();
        for (session, turns) in &sessions {
            let back = turns.iter().filter(|turn| Phase::Back.has(turn, Some(outage)));
            let first = back.min_by(|a, b| a.sent.total_cmp(&b.sent));
            if let Some((turn, first_token)) = first.and_then(|turn| Some((turn, turn.first_token?)))
                && is_displaced(*session, turns)
            {
                let (prompt, cached) = (turn.prompt.into(), turn.cached.into());
                displaced = displaced.plus(Self { turns: 1, prompt, cached, first_token });
            }
        }
        displaced
    }

    /// Those of two runs together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            turns: self.turns + other.turns,
            prompt: self.prompt + other.prompt,
            cached: self.cached + other.cached,
            first_token: self.first_token + other.first_token,
        }
    }

    /// Share of the prompt tokens that were computed.
    #[must_use]
    pub fn recomputed(self) -> f64 {
        1.0 - self.cached as f64 / self.prompt.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Line, Workload};

    #[test]
    fn who_had_a_turn_elsewhere_is_displaced_and_its_first_turn_back_counts() {
        let line = Line { timestamp: 0, input_length: 100, output_length: 1, hash_ids: vec![0] };
        let workload = Workload::new(&[line], 1);
        let turn = |session: usize, sent: f64, cached: u32| {
            let outcome = Outcome::sent(0, &workload.turns[0], sent, None);
            Outcome { session, first_token: Some(2.0), cached, ..outcome }
        };
        let outcomes = [
            [turn(0, 1.0, 0), turn(0, 4.0, 0), turn(0, 8.0, 90), turn(0, 7.0, 25)],
            // Its home is another machine; it had no turn meanwhile; it has no home.
            [turn(1, 1.0, 0), turn(1, 4.0, 0), turn(1, 8.0, 90), turn(1, 9.0, 90)],
            [turn(2, 1.0, 0), turn(2, 2.0, 0), turn(2, 8.0, 90), turn(2, 9.0, 90)],
            [turn(3, 1.0, 0), turn(3, 4.0, 0), turn(3, 8.0, 90), turn(3, 9.0, 90)],
        ];
        let homes = [Some(0), Some(1), Some(0), None];
        let outage = Outage { machine: 0, from: 3.0, to: 6.0 };
        let displaced = Displaced::of(&outcomes.concat(), outage, |session, _| homes[session]);
        assert_eq!(displaced, Displaced { turns: 1, prompt: 100, cached: 25, first_token: 2.0 });
        assert!((displaced.plus(displaced).recomputed() - 0.75).abs() < 1e-9);
    }
}
