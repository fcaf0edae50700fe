//! What a run amounts to.

use crate::simulation::Outcome;
use crate::workload::Workload;

/// The figures of one run, or the mean of several.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Share of all prompt tokens that were computed.
    pub(crate) recomputed: f64,
    pub(crate) first_token: Summary,
    pub(crate) skew: f64,
    /// Turns that did not go where their session's turn before went.
    pub(crate) moves: f64,
    /// While machine 0 was down.
    pub(crate) down: Summary,
    pub(crate) after: Summary,
    /// Recomputed tokens, and all of them, of the first turns back.
    pub(crate) returned: (f64, f64),
}

/// Seconds to the first token.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
}

impl Summary {
    fn of(mut seconds: Vec<f64>) -> Summary {
        seconds.sort_by(f64::total_cmp);
        let at = |q: f64| seconds.get(((seconds.len() as f64 * q) as usize).min(seconds.len().saturating_sub(1)));
        let at = |q: f64| at(q).copied().unwrap_or(f64::NAN);
        Summary { mean: seconds.iter().sum::<f64>() / seconds.len() as f64, p50: at(0.5), p90: at(0.9), p99: at(0.99) }
    }

    fn map(self, other: Summary, with: impl Fn(f64, f64) -> f64) -> Summary {
        Summary {
            mean: with(self.mean, other.mean),
            p50: with(self.p50, other.p50),
            p90: with(self.p90, other.p90),
            p99: with(self.p99, other.p99),
        }
    }
}

/// Sessions with a home on machine 0 that had a turn while it was down: the first turn of each after its return.
pub(crate) fn first_turns_back(workload: &Workload<'_>, outcome: &Outcome, homes: &[usize]) -> Vec<usize> {
    let mut displaced = vec![false; workload.sessions];
    let mut found = Vec::new();
    for turn in &outcome.order {
        let session = workload.turns[*turn].session;
        let sent = outcome.fates[*turn].sent;
        if homes[session] != 0 {
            continue;
        }
        if sent >= outcome.died && sent < outcome.back {
            displaced[session] = true;
        } else if sent >= outcome.back && displaced[session] {
            displaced[session] = false;
            found.push(*turn);
        }
    }
    found
}

impl Figures {
    pub(crate) fn of(workload: &Workload<'_>, outcome: &Outcome, homes: &[usize]) -> Figures {
        let fates = || outcome.fates.iter().filter(|fate| fate.first_token.is_some());
        let computed = |turn: &usize| f64::from(outcome.fates[*turn].computed);
        let tokens = |turn: &usize| f64::from(workload.lines[*turn].input_length);
        let between = |from: f64, to: f64| {
            Summary::of(fates().filter(|f| f.sent >= from && f.sent < to).filter_map(|fate| fate.first_token).collect())
        };
        let mut at = vec![usize::MAX; workload.sessions];
        let mut moves = 0;
        for turn in &outcome.order {
            let place = &mut at[workload.turns[*turn].session];
            let machine = outcome.fates[*turn].machine;
            moves += usize::from(*place != usize::MAX && *place != machine);
            *place = machine;
        }
        let back = first_turns_back(workload, outcome, homes);
        Figures {
            recomputed: outcome.order.iter().map(computed).sum::<f64>() / outcome.order.iter().map(tokens).sum::<f64>(),
            first_token: between(0.0, f64::INFINITY),
            skew: outcome.skew,
            moves: moves as f64,
            down: between(outcome.died, outcome.back),
            after: between(outcome.back, f64::INFINITY),
            returned: (back.iter().map(computed).sum(), back.iter().map(tokens).sum()),
        }
    }

    /// The share of their prompts that the first turns back recomputed.
    pub(crate) fn back(&self) -> f64 {
        self.returned.0 / self.returned.1
    }

    /// The mean of several runs; what is counted in tokens adds up.
    pub(crate) fn mean(runs: &[Figures]) -> Figures {
        let n = runs.len() as f64;
        let sum = runs.iter().copied().reduce(|a, b| Figures {
            recomputed: a.recomputed + b.recomputed,
            first_token: a.first_token.map(b.first_token, |a, b| a + b),
            skew: a.skew + b.skew,
            moves: a.moves + b.moves,
            down: a.down.map(b.down, |a, b| a + b),
            after: a.after.map(b.after, |a, b| a + b),
            returned: (a.returned.0 + b.returned.0, a.returned.1 + b.returned.1),
        });
        let sum = sum.unwrap_or_default();
        let by_n = |all: Summary| all.map(all, |a, _| a / n);
        Figures {
            recomputed: sum.recomputed / n,
            first_token: by_n(sum.first_token),
            skew: sum.skew / n,
            moves: sum.moves / n,
            down: by_n(sum.down),
            after: by_n(sum.after),
            returned: sum.returned,
        }
    }
}
