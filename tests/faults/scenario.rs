//! A fault as a row: in words, what may happen in it, and how it is played.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::tally::{May, Tally};

/// One row of the table.
#[derive(Clone)]
pub(crate) struct Scenario {
    /// Among those of its group.
    pub(crate) name: &'static str,
    /// What goes wrong, in plain English.
    pub(crate) head: &'static str,
    pub(crate) may: Vec<May>,
    pub(crate) role: Role,
}

/// What there is to do for a row.
#[derive(Clone)]
pub(crate) enum Role {
    Play(Run),
    /// The reason why there is nothing to play.
    NotApplicable(&'static str),
}

type Run = Arc<dyn Fn(Play) -> Pin<Box<dyn Future<Output = Played>>> + Send + Sync>;

/// How a scenario is to be played.
#[derive(Clone)]
pub(crate) struct Play {
    /// More of everything that is repeated.
    pub(crate) long: bool,
    pub(crate) may: Vec<May>,
}

impl Play {
    /// So many times, and ten times as many in the long form.
    pub(crate) fn times(&self, short: usize) -> usize {
        if self.long { 10 * short } else { short }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Played {
    pub(crate) tally: Tally,
    /// From the begin of the fault to when no new request went there.
    pub(crate) left_alone: Option<Duration>,
    /// From its end to when requests went there again.
    pub(crate) back: Option<Duration>,
    /// Further figures.
    pub(crate) notes: Vec<String>,
    /// What else went wrong.
    pub(crate) problems: Vec<String>,
    /// Why it could not be played on this machine.
    pub(crate) skipped: Option<String>,
}

impl Played {
    pub(crate) fn skipped(why: impl Into<String>) -> Played {
        Played { skipped: Some(why.into()), ..Played::default() }
    }

    /// Whether nothing happened that the scenario does not explain.
    pub(crate) fn is_good(&self) -> bool {
        self.tally.unexplained.is_empty() && self.tally.moved.is_empty() && self.problems.is_empty()
    }
}

/// A scenario in which nothing may fail.
pub(crate) fn scenario<F>(
    name: &'static str,
    head: &'static str,
    run: impl Fn(Play) -> F + Send + Sync + 'static,
) -> Scenario
where
    F: Future<Output = Played> + 'static,
{
    Scenario { name, head, may: Vec::new(), role: Role::Play(Arc::new(move |play| Box::pin(run(play)))) }
}

/// A fault of the list that cannot happen to ingle.
pub(crate) fn not_applicable(name: &'static str, head: &'static str, why: &'static str) -> Scenario {
    Scenario { name, head, may: Vec::new(), role: Role::NotApplicable(why) }
}

impl Scenario {
    /// These failures are explained.
    pub(crate) fn may(self, may: &[May]) -> Scenario {
        Scenario { may: may.to_vec(), ..self }
    }
}
