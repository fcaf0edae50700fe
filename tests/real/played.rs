//! What came of a scenario: phases, reuse, moves and failures, from the clients' own records of each turn.

use std::time::Duration;

use ingle_sim::load::{Samples, Summary, Turn};

/// All turns of all sessions, and what happened meanwhile.
pub(crate) struct Played {
    pub(crate) talks: Vec<Talk>,
    pub(crate) kill: Option<Kill>,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// One session's turns, in order.
pub(crate) struct Talk {
    /// Whether it is the one with the long history.
    pub(crate) long: bool,
    pub(crate) turns: Vec<Turn>,
}

/// A server's absence, in seconds since the start.
pub(crate) struct Kill {
    /// As the proxy calls the server.
    pub(crate) backend: String,
    pub(crate) at: f64,
    /// When it answered again.
    pub(crate) back: f64,
}

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Over before the kill.
    Before,
    /// Under way at the kill, or begun before the return.
    Down,
    /// Begun after the return.
    After,
}

/// Prompt tokens, as the servers count them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reuse {
    pub(crate) prompt: u64,
    pub(crate) cached: u64,
    /// What could have been cached: the prompt of the session's turn before.
    pub(crate) known: u64,
}

impl Reuse {
    /// Share of what there was to reuse that was reused.
    pub(crate) fn of_known(&self) -> f64 {
        self.cached as f64 / self.known as f64
    }

    /// Share of the prompts that was computed.
    pub(crate) fn recomputed(&self) -> f64 {
        (self.prompt - self.cached) as f64 / self.prompt as f64
    }

    pub(crate) fn add(&mut self, other: Reuse) {
        self.prompt += other.prompt;
        self.cached += other.cached;
        self.known += other.known;
    }
}

/// A turn that was answered, and the answered turn before it.
pub(crate) struct Step<'a> {
    pub(crate) before: Option<&'a Turn>,
    pub(crate) turn: &'a Turn,
}

impl Step<'_> {
    /// Whether another server has answered than before.
    pub(crate) fn moved(&self) -> bool {
        self.before.is_some_and(|before| before.backend != self.turn.backend)
    }

    pub(crate) fn reuse(&self) -> Reuse {
        let prompt = |turn: &Turn| turn.prompt_tokens.unwrap_or(0);
        let known = self.before.map_or(0, prompt);
        // Of a random answer a few tokens may be found again, too: they were not promised.
        let cached = self.turn.cached_tokens.unwrap_or(0).min(known);
        Reuse { prompt: prompt(self.turn), cached, known }
    }
}

impl Talk {
    /// The answered turns.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        let answered = || self.turns.iter().filter(|turn| turn.error.is_none());
        let before = std::iter::once(None).chain(answered().map(Some));
        before.zip(answered()).map(|(before, turn)| Step { before, turn })
    }
}

impl Played {
    pub(crate) fn phase(&self, turn: &Turn) -> Phase {
        match &self.kill {
            Some(kill) if turn.began >= kill.back => Phase::After,
            Some(kill) if turn.ended >= kill.at => Phase::Down,
            _ => Phase::Before,
        }
    }

    pub(crate) fn turns(&self) -> impl Iterator<Item = &Turn> {
        self.talks.iter().flat_map(|talk| &talk.turns)
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        self.talks.iter().flat_map(Talk::steps)
    }

    /// What failed although its answer had not begun on the server that was killed: those nobody can finish.
    pub(crate) fn unexplained(&self) -> impl Iterator<Item = &Turn> {
        self.turns().filter(|turn| turn.error.is_some() && !self.died_with_its_server(turn))
    }

    fn died_with_its_server(&self, turn: &Turn) -> bool {
        let there = |kill: &&Kill| turn.backend.as_ref() == Some(&kill.backend);
        self.kill.as_ref().filter(there).is_some_and(|kill| turn.began <= kill.at && turn.ended >= kill.at)
    }

    pub(crate) fn failed(&self) -> usize {
        self.turns().filter(|turn| turn.error.is_some()).count()
    }

    /// Second and later turns of a phase.
    pub(crate) fn reuse(&self, phase: Phase) -> Reuse {
        sum(self.steps().filter(|step| step.before.is_some() && self.phase(step.turn) == phase))
    }

    /// Sessions that lost their server, and go on after its return: what was answered before and after.
    pub(crate) fn displaced(&self) -> impl Iterator<Item = &Talk> {
        self.talks.iter().filter(|talk| {
            let Some(kill) = &self.kill else { return false };
            let last = talk.turns.iter().rfind(|turn| turn.error.is_none() && turn.ended < kill.at);
            let lost = last.is_some_and(|turn| turn.backend.as_ref() == Some(&kill.backend));
            let during = talk.steps().any(|step| self.phase(step.turn) == Phase::Down && step.moved());
            lost && during && talk.steps().any(|step| self.phase(step.turn) == Phase::After)
        })
    }

    /// Of each displaced session its first turn back: the first after the return that is served elsewhere than the
    /// turn before, or, of one that stays, simply the first.
    pub(crate) fn first_turns_back(&self) -> Vec<Step<'_>> {
        let back = |talk| -> Option<Step<'_>> {
            let after = || Talk::steps(talk).filter(|step| self.phase(step.turn) == Phase::After);
            after().find(Step::moved).or_else(|| after().next())
        };
        self.displaced().filter_map(back).collect()
    }
}

/// Time to the first token of some turns in several runs.
pub(crate) fn ttft(runs: &[Played], wanted: impl Fn(&Played, &Talk, &Turn) -> bool) -> Summary {
    let mut samples = Samples::new(1);
    for run in runs {
        for talk in &run.talks {
            let turns = talk.steps().map(|step| step.turn).filter(|turn| wanted(run, talk, turn));
            turns.filter_map(|turn| turn.ttft).for_each(|seconds| samples.add(Duration::from_secs_f64(seconds)));
        }
    }
    samples.summary()
}

/// The tokens of these steps together.
pub(crate) fn sum<'a>(steps: impl IntoIterator<Item = Step<'a>>) -> Reuse {
    let mut all = Reuse::default();
    steps.into_iter().for_each(|step| all.add(step.reuse()));
    all
}
