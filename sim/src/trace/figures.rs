//! What a run came to, in numbers.

use std::collections::HashMap;

use super::simulation::Outcome;

/// Mean and percentiles (nearest rank) of some values. All 0 when there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// How many values.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
}

impl Summary {
    /// The summary of these values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let rank = |percent: usize| sorted.get((count * percent).div_ceil(100).max(1) - 1).copied().unwrap_or(0.0);
        let mean = if count == 0 { 0.0 } else { sorted.iter().sum::<f64>() / count as f64 };
        Self { count, mean, p50: rank(50), p90: rank(90), p99: rank(99) }
    }
}

/// The figures of a part of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Times to the first token, of all turns that had one, in seconds.
    pub first_token: Summary,
    /// Prompt tokens of those turns.
    pub prompt: u64,
    /// Those of them that were cached.
    pub cached: u64,
    /// Mean over arrivals of the most requests in flight at one backend over the mean of all.
    pub skew: f64,
    /// Turns that failed before their first token.
    pub errors: usize,
    /// Turns whose stream was cut after it.
    pub cut: usize,
}

impl Figures {
    /// The figures of these turns.
    #[must_use]
    pub fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome> + Clone) -> Self {
        let answered = outcomes.clone().filter(|outcome| outcome.first_token.is_some());
        let skews: Vec<f64> = outcomes.clone().filter_map(|outcome| outcome.skew).collect();
        let failed = outcomes.filter(|outcome| outcome.error.is_some());
        Self {
            first_token: Summary::of(answered.clone().filter_map(|outcome| outcome.first_token)),
            prompt: answered.clone().map(|outcome| u64::from(outcome.prompt)).sum(),
            cached: answered.map(|outcome| u64::from(outcome.cached)).sum(),
            skew: skews.iter().sum::<f64>() / skews.len().max(1) as f64,
            errors: failed.clone().filter(|outcome| outcome.first_token.is_none()).count(),
            cut: failed.filter(|outcome| outcome.first_token.is_some()).count(),
        }
    }

    /// Share of the prompt tokens that were computed, 0 when there were none.
    #[must_use]
    pub fn recomputed(&self) -> f64 {
        if self.prompt == 0 { 0.0 } else { 1.0 - self.cached as f64 / self.prompt as f64 }
    }
}

/// Sessions and turns that left their last backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Sessions that moved at least once.
    pub sessions: usize,
    /// Turns answered by another backend than the session's turn before.
    pub turns: usize,
}

impl Moves {
    /// Counts them; the turns of a session are taken in the order in which they were sent.
    #[must_use]
    pub fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let mut answered: Vec<(&Outcome, usize)> =
            outcomes.filter_map(|outcome| outcome.machine.map(|machine| (outcome, machine))).collect();
        answered.sort_by(|a, b| a.0.sent.total_cmp(&b.0.sent));
        let mut last: HashMap<usize, (usize, bool)> = HashMap::new();
        let mut moves = Self::default();
        for (outcome, machine) in answered {
            let (before, moved) = last.entry(outcome.session).or_insert((machine, false));
            if std::mem::replace(before, machine) != machine {
                moves.turns += 1;
                moves.sessions += usize::from(!std::mem::replace(moved, true));
            }
        }
        moves
    }
}

/// The most requests in flight at one backend over the mean of all; none when nothing is in flight.
#[must_use]
pub fn skew(in_flight: &[usize]) -> Option<f64> {
    let (most, sum) = (in_flight.iter().max()?, in_flight.iter().sum::<usize>());
    (sum > 0).then(|| (most * in_flight.len()) as f64 / sum as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(session: usize, sent: f64, machine: Option<usize>) -> Outcome {
        Outcome {
            index: 0,
            session,
            sent,
            first_token: machine.map(|_| 1.0),
            end: sent,
            machine,
            prompt: 100,
            cached: 25,
            skew: Some(2.0),
            error: if machine.is_none() { Some("refused") } else { None },
        }
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let summary = Summary::of((1..=200).rev().map(f64::from));
        assert_eq!(summary, Summary { count: 200, mean: 100.5, p50: 100.0, p90: 180.0, p99: 198.0 });
        assert_eq!(Summary::of([7.0]), Summary { count: 1, mean: 7.0, p50: 7.0, p90: 7.0, p99: 7.0 });
        assert_eq!(Summary::of([]), Summary::default());
    }

    #[test]
    fn who_failed_counts_as_an_error_only() {
        let mut cut = outcome(0, 2.0, Some(1));
        cut.error = Some("cut");
        let outcomes = [outcome(0, 0.0, Some(0)), outcome(0, 1.0, None), cut];
        let figures = Figures::of(outcomes.iter());
        assert_eq!((figures.first_token.count, figures.prompt, figures.errors, figures.cut), (2, 200, 1, 1));
        assert!((figures.recomputed() - 0.75).abs() < 1e-9);
        assert!((figures.skew - 2.0).abs() < 1e-9);
    }

    #[test]
    fn moves_follow_the_order_of_sending() {
        let turns = [(0, 3.0, 2), (0, 1.0, 1), (0, 2.0, 1), (1, 0.0, 5), (0, 4.0, 1)];
        let outcomes: Vec<Outcome> = turns.iter().map(|(s, at, m)| outcome(*s, *at, Some(*m))).collect();
        assert_eq!(Moves::of(outcomes.iter()), Moves { sessions: 1, turns: 2 });
    }

    #[test]
    fn skew_is_most_over_mean() {
        assert_eq!(skew(&[3, 1, 0, 0]), Some(3.0));
        assert_eq!(skew(&[0, 0]), None);
    }
}
