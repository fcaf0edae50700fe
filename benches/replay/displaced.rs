//! The sessions that an outage drove from home: what their first turn after it costs.

use std::collections::HashMap;

use ingle::core::hash::{Claim, NameHash};
use ingle::core::{Seed, SessionKey};
use ingle_sim::trace::{Outage, Outcome, Workload};

use super::others::Balance;
use super::roles::{Kind, Role, backend_name};

/// Where ingle's hash places sessions.
#[derive(Clone)]
pub(crate) struct Homes {
    seed: Seed,
    names: Vec<NameHash>,
}

impl Homes {
    pub(crate) fn new(backends: usize, hash_seed: &str) -> Self {
        let seed = Seed::new(hash_seed);
        Self { seed, names: (0..backends).map(|index| NameHash::new(&backend_name(index), seed)).collect() }
    }

    /// The backends for a session, best first.
    pub(crate) fn order(&self, session: &str) -> Vec<usize> {
        let key = SessionKey::parse(session.as_bytes(), 256, self.seed).ok().flatten().expect("our ids are good");
        let mut claims: Vec<(usize, f64)> =
            self.names.iter().map(|name| Claim::new(key, *name, 1).score()).enumerate().collect();
        claims.sort_by(|a, b| b.1.total_cmp(&a.1));
        claims.into_iter().map(|(index, _)| index).collect()
    }
}

/// First turns after the outage, of sessions whose home it took and that had a turn meanwhile.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Displaced {
    pub(crate) turns: usize,
    pub(crate) prompt: u64,
    pub(crate) cached: u64,
    pub(crate) first_token: f64,
}

impl Displaced {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            turns: self.turns + other.turns,
            prompt: self.prompt + other.prompt,
            cached: self.cached + other.cached,
            first_token: self.first_token + other.first_token,
        }
    }

    /// Share of the prompt tokens that were computed.
    pub(crate) fn recomputed(self) -> f64 {
        1.0 - self.cached as f64 / self.prompt.max(1) as f64
    }
}

/// Counts them. ingle's homes are known; of other hashes, a session's home is where most of its turns went while all
/// backends were well. Round robin and the oracle have no homes.
pub(crate) fn of(role: Role, workload: &Workload, outcomes: &[Outcome], outage: Outage, homes: &Homes) -> Displaced {
    let mut sessions: HashMap<usize, Vec<&Outcome>> = HashMap::new();
    outcomes.iter().for_each(|outcome| sessions.entry(outcome.session).or_default().push(outcome));
    let is_displaced = |session: usize, turns: &[&Outcome]| {
        let home = match role.kind {
            Kind::DirectOracle | Kind::Other(_, Balance::RoundRobin) | Kind::Ingle { sessions: false, .. } => None,
            Kind::DirectHash | Kind::Ingle { .. } => homes.order(&workload.session_id(session)).first().copied(),
            Kind::Other(..) => usual(turns.iter().filter(|turn| turn.sent < outage.from || turn.sent >= outage.to)),
        };
        home == Some(outage.machine) && turns.iter().any(|turn| (outage.from..outage.to).contains(&turn.sent))
    };
    let mut displaced = Displaced::default();
    for (session, turns) in &sessions {
        let back = turns.iter().filter(|turn| turn.sent >= outage.to).min_by(|a, b| a.sent.total_cmp(&b.sent));
        if let Some((back, first_token)) = back.and_then(|back| Some((back, back.first_token?)))
            && is_displaced(*session, turns)
        {
            let turn = Displaced { turns: 1, prompt: back.prompt.into(), cached: back.cached.into(), first_token };
            displaced = displaced.plus(turn);
        }
    }
    displaced
}

/// The backend that most of these went to; the lowest of equals.
fn usual<'a>(turns: impl Iterator<Item = &'a &'a Outcome>) -> Option<usize> {
    let mut counts: HashMap<usize, usize> = HashMap::new();
    turns.filter_map(|turn| turn.machine).for_each(|machine| *counts.entry(machine).or_default() += 1);
    counts.into_iter().max_by_key(|(machine, count)| (*count, std::cmp::Reverse(*machine))).map(|(machine, _)| machine)
}
