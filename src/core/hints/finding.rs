//! When counts are a hint, and how to say it.

use std::fmt;
use std::sync::Arc;

use super::counts::{Counts, Figures};
use super::{Hint, Move, Servers};
use crate::core::{Backend, SessionKey};

/// A hint with its figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What may be wrong.
    pub hint: Hint,
    /// How many did it.
    pub part: u64,
    /// Of how many.
    pub of: u64,
    /// Who, or why; may be empty.
    pub about: String,
    /// The backends that it is about; none if it is about all.
    pub backends: Vec<String>,
    /// Whether most of the sessions that are missing came and are not valid.
    pub mostly_invalid: bool,
}

impl Finding {
    /// What an operator should do about it, who has these servers.
    #[must_use]
    pub fn advice(&self, servers: Servers) -> String {
        self.hint.advice(servers, self.mostly_invalid)
    }
}

/// In plain words; never a session id, at most its hash.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { hint, part, of, about, .. } = self;
        let percent = part * 100 / (*of).max(1);
        match hint {
            Hint::NoSession => write!(f, "{part} of {of} chat requests ({percent} %) had no session{about}"),
            Hint::SingleUseIds => write!(f, "{part} of {of} session ids ({percent} %) were used only once"),
            Hint::HotSession => {
                write!(f, "{part} of {of} requests ({percent} %) had the same session id (hash {about})")
            }
            Hint::SessionsMove => write!(
                f,
                "{part} of {of} later turns ({percent} %) were not on the backend of the turn before: {about}"
            ),
            Hint::NoCachedFigures => {
                write!(f, "{part} of {of} later turns came without a word on what was cached: {about}")
            }
            Hint::LowReuse => write!(
                f,
                "{part} of {of} prompt tokens ({percent} %) of later turns were in a cache, although their sessions stayed"
            ),
        }?;
        f.write_str(", in the last 5 minutes")
    }
}

/// What the counts of a window say. `settled` are the sessions that were first seen more than a minute ago; `hottest` is
/// the session that had the most requests, and how many at least; `backends` is how many a request may go to.
pub(super) fn judge(sum: &Counts, settled: u64, hottest: Option<(SessionKey, u64)>, backends: usize) -> Vec<Finding> {
    let found = |hint, part, of, about| Finding { hint, part, of, about, backends: Vec::new(), mostly_invalid: false };
    let share = |hint, limit: Limit, part, of, about: String| {
        (of >= limit.least && part * 100 > of * limit.percent).then(|| found(hint, part, of, about))
    };
    let (without, invalid) = (sum.chats_without_session, sum.chats_with_invalid);
    let about = if invalid > 0 { format!(", {invalid} of them one that is not valid") } else { String::new() };
    let moves: u64 = sum.moves.iter().sum();
    let once = settled.saturating_sub(sum.seconds);
    let findings = [
        share(Hint::NoSession, NO_SESSION, without, sum.chats, about)
            .map(|finding| Finding { mostly_invalid: invalid * 2 > without, ..finding }),
        share(Hint::SingleUseIds, SINGLE_USE_IDS, once, settled, String::new()),
        hottest
            .filter(|_| backends > 1)
            .and_then(|(key, count)| share(Hint::HotSession, HOT_SESSION, count, sum.requests, key.to_string())),
        share(Hint::SessionsMove, SESSIONS_MOVE, moves, sum.later_turns, reasons(&sum.moves)),
        silent(&sum.figures)
            .map(|(turns, about, backends)| Finding { backends, ..found(Hint::NoCachedFigures, turns, turns, about) }),
        little_reused(&sum.figures).map(|(cached, prompt)| found(Hint::LowReuse, cached, prompt, String::new())),
    ];
    findings.into_iter().flatten().collect()
}

/// `unhealthy 12, draining 3`
fn reasons(moves: &[u64; Move::ALL.len()]) -> String {
    let made = Move::ALL.iter().zip(moves).filter(|(_, count)| **count > 0);
    made.map(|(reason, count)| format!("{} {count}", reason.as_str())).collect::<Vec<_>>().join(", ")
}

/// The backends that never told what they had cached, and how many turns they had.
fn silent(figures: &[(Arc<Backend>, Figures)]) -> Option<(u64, String, Vec<String>)> {
    let turns = |figures: &Figures| figures.untold + figures.mute;
    let silent = |figures: &Figures| figures.told == 0 && turns(figures) >= SILENT_TURNS;
    let silent: Vec<_> = figures.iter().filter(|(_, figures)| silent(figures)).collect();
    let mut names: Vec<String> = silent
        .iter()
        .map(|(backend, figures)| match figures.mute {
            0 => backend.name().to_owned(),
            mute => format!("{} ({mute} without any usage figures)", backend.name()),
        })
        .collect();
    names.sort();
    let backends = silent.iter().map(|(backend, _)| backend.name().to_owned()).collect();
    (!silent.is_empty()).then(|| (silent.iter().map(|(_, figures)| turns(figures)).sum(), names.join(", "), backends))
}

/// Cached and all tokens of long prompts, if that is too little. Only of backends that do tell: for them a figure that is
/// missing is 0.
fn little_reused(figures: &[(Arc<Backend>, Figures)]) -> Option<(u64, u64)> {
    let told = || figures.iter().map(|(_, figures)| figures).filter(|figures| figures.told > 0);
    let turns: u64 = told().map(|figures| figures.long).sum();
    let (cached, prompt) = told()
        .fold((0, 0), |(cached, prompt), figures| (cached + figures.tokens.cached, prompt + figures.tokens.prompt));
    (turns >= LOW_REUSE.least && cached * 100 < prompt * LOW_REUSE.percent).then_some((cached, prompt))
}

/// When a share says that something is wrong: of so many at least, above so many of a hundred.
struct Limit {
    least: u64,
    percent: u64,
}

/// Titles and summaries rightly have none, so up to one for each turn is normal. 50 requests are a few chats.
const NO_SESSION: Limit = Limit { least: 50, percent: 50 };
/// Chats that end after their first turn are normal; four out of five are not. 200 new ones in four minutes are no test.
const SINGLE_USE_IDS: Limit = Limit { least: 200, percent: 80 };
/// Hardly any agent makes 200 requests in five minutes; and a session below a third is no hot spot among few backends.
const HOT_SESSION: Limit = Limit { least: 200, percent: 30 };
/// A failure moves a turn of each of one backend's sessions, once; 10 % of all turns is more than one now and then.
const SESSIONS_MOVE: Limit = Limit { least: 50, percent: 10 };
/// Later turns without a figure, and none with one. vLLM leaves it out where it is 0, so a few would prove nothing.
const SILENT_TURNS: u64 = 20;
/// Below the percentage. A later turn repeats all that was before, so most of it should be cached; where only a date
/// after a system prompt changes, still more than a tenth is.
const LOW_REUSE: Limit = Limit { least: 50, percent: 10 };
