//! What the clients of a scenario saw, against what may happen in it.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::asked::Kind;
use crate::exchange::Failure;
use crate::traffic::Seen;

/// From when to when something was wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) begun: Instant,
    pub(crate) ended: Option<Instant>,
}

impl Window {
    /// Whether a request was under way while something was wrong.
    fn meets(&self, seen: &Seen) -> bool {
        seen.ended >= self.begun && self.ended.is_none_or(|ended| seen.begun <= ended)
    }
}

/// A failure that a scenario explains.
#[derive(Clone)]
pub(crate) struct May {
    /// In words, for the table.
    pub(crate) why: &'static str,
    is: fn(&Seen, &Failure) -> bool,
}

impl May {
    pub(crate) const fn new(why: &'static str, is: fn(&Seen, &Failure) -> bool) -> May {
        May { why, is }
    }
}

/// A stream of gpu1 broke off.
pub(crate) const STARTED_THERE: May =
    May::new("streams whose first output had reached the client, from gpu1", |seen, failure| {
        *failure == Failure::Cut && on(seen, "gpu1")
    });

/// A stream of any backend broke off.
pub(crate) const STARTED: May =
    May::new("streams whose first output had reached the client", |_, failure| *failure == Failure::Cut);

pub(crate) fn on(seen: &Seen, backend: &str) -> bool {
    seen.done.backend.as_deref() == Some(backend)
}

/// The figures of one scenario.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) requests: usize,
    pub(crate) streams: usize,
    pub(crate) explained: usize,
    pub(crate) unexplained: Vec<String>,
    /// Turns of a session elsewhere than its turn before, though nothing was wrong there.
    pub(crate) moved: Vec<String>,
}

/// `faulty` are the backends that had something wrong with them at some time.
pub(crate) fn tally(all: &[Seen], may: &[May], windows: &[Window], faulty: &[String]) -> Tally {
    let mut tally = Tally { requests: all.len(), ..Tally::default() };
    let mut places = BTreeMap::<&str, &str>::new();
    for seen in all {
        tally.streams += usize::from(matches!(seen.asked.kind, Kind::Stream { .. }));
        if let Some(failure) = &seen.done.failure {
            let while_wrong = windows.iter().any(|window| window.meets(seen));
            match while_wrong && may.iter().any(|may| (may.is)(seen, failure)) {
                true => tally.explained += 1,
                false => tally.unexplained.push(told(seen, failure, windows)),
            }
        }
        let (Some(session), Some(place)) = (&seen.asked.session, &seen.done.backend) else { continue };
        if place == "none" {
            continue;
        }
        if let Some(before) = places.insert(session, place)
            && before != place
            && !faulty.iter().any(|name| name == before)
        {
            let affinity = seen.done.affinity.as_deref().unwrap_or_default();
            tally.moved.push(format!("{} from {before} to {place} ({affinity})", seen.asked.id));
        }
    }
    tally
}

fn told(seen: &Seen, failure: &Failure, windows: &[Window]) -> String {
    let since = windows.first().map(|window| {
        let (begun, ended) = (seen.begun.saturating_duration_since(window.begun), seen.ended - seen.begun);
        format!("{} ms after the fault began, {} ms long", begun.as_millis(), ended.as_millis())
    });
    let at = seen.done.backend.as_deref().unwrap_or("nobody");
    format!("{} on {at}: {failure:?}; {}", seen.asked.id, since.unwrap_or_default())
}
