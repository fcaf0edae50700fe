//! Where sessions are at home, and whom an outage drove from there.

use std::collections::HashMap;

use ingle::core::hash::{Claim, NameHash};
use ingle::core::{Seed, SessionKey};
use ingle_sim::trace::{Displaced, Outage, Outcome, Phase, Workload};

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

/// Counts who was displaced. ingle's homes are known; of other hashes, a session's home is where most of its turns went
/// while all backends were well. Round robin and the oracle have no homes.
pub(crate) fn of(role: Role, workload: &Workload, outcomes: &[Outcome], outage: Outage, homes: &Homes) -> Displaced {
    Displaced::of(outcomes, outage, |session, turns| match role.kind {
        Kind::DirectOracle | Kind::Other(_, Balance::RoundRobin) | Kind::Ingle { sessions: false, .. } => None,
        Kind::DirectHash | Kind::Ingle { .. } => homes.order(&workload.session_id(session)).first().copied(),
        Kind::Other(..) => usual(turns.iter().filter(|turn| !Phase::Down.has(turn, Some(outage)))),
    })
}

/// The backend that most of these went to; the lowest of equals.
fn usual<'a>(turns: impl Iterator<Item = &'a &'a Outcome>) -> Option<usize> {
    let mut counts: HashMap<usize, usize> = HashMap::new();
    turns.filter_map(|turn| turn.machine).for_each(|machine| *counts.entry(machine).or_default() += 1);
    counts.into_iter().max_by_key(|(machine, count)| (*count, std::cmp::Reverse(*machine))).map(|(machine, _)| machine)
}
