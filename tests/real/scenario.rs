//! Uneven sessions: one with a very long history and many short ones, while a server dies and comes back.

use std::time::{Duration, Instant};

use ingle_sim::load::{LoadConfig, LoadRun, Turn, UrlChoice};

use crate::played::{Kill, Played, Talk};
use crate::servers::Fleet;

/// What is played. Prompts have a token for each byte, and a core computes some 900 of them per second: a short
/// session's whole history costs about a second, the long one's several.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// Short sessions, all alive at the same time, and the turns of each.
    pub(crate) sessions: usize,
    pub(crate) turns: usize,
    /// Turns of the long session: as many as keep it busy while the others play.
    pub(crate) long_turns: usize,
    /// Requests of short sessions in flight at once; the long session has its own.
    pub(crate) concurrency: usize,
    /// Decides ids and texts.
    pub(crate) seed: u64,
}

/// The slots of each server: one can't take all requests at once.
pub(crate) const SLOTS: usize = 4;

impl Scenario {
    /// The session with the long history. It stays within the 8,192 tokens that a slot has room for: at most 17 turns.
    pub(crate) fn long(&self, prefix: &str) -> LoadConfig {
        LoadConfig {
            session_prefix: prefix.to_owned(),
            seed: 2 * self.seed,
            sessions: 1,
            turns: self.long_turns,
            concurrency: 1,
            first_prompt_bytes: 3000,
            turn_bytes: 200,
            think_time: Duration::from_secs(1),
            ..self.both()
        }
    }

    /// The short ones: `PREFIX-0` and so on. They take turns in order.
    pub(crate) fn short(&self, prefix: &str) -> LoadConfig {
        LoadConfig {
            session_prefix: prefix.to_owned(),
            seed: 2 * self.seed + 1,
            sessions: self.sessions,
            turns: self.turns,
            concurrency: self.concurrency,
            first_prompt_bytes: 500,
            turn_bytes: 120,
            ..self.both()
        }
    }

    fn both(&self) -> LoadConfig {
        LoadConfig {
            url_choice: UrlChoice::PerSession,
            max_tokens: 16,
            timeout: Duration::from_secs(120),
            keep_turns: true,
            ..LoadConfig::new(Vec::<String>::new())
        }
    }
}

/// Plays both loads to their ends through these URLs. With a fleet, the server that the long session was on last dies
/// when a third of all turns is over, and comes back with an empty cache after two thirds.
pub(crate) async fn play(loads: [LoadConfig; 2], urls: &[String], fleet: Option<&mut Fleet<'_>>) -> Played {
    let all: usize = loads.iter().map(|load| load.sessions * load.turns).sum();
    let started = Instant::now();
    let runs = loads.map(|load| LoadRun::start(LoadConfig { urls: urls.to_vec(), ..load }).unwrap());
    let mut kill = None;
    if let Some(fleet) = fleet {
        // Where the long session is shows with its first answer, which may take longer than all that.
        until_ended(&runs, all / 3).await;
        until_ended(&runs[..1], 1).await;
        let backend = runs[0].snapshot().turns.iter().rev().find_map(|turn| turn.backend.clone());
        let backend = backend.expect("the proxy names the long session's server");
        let server = fleet.position(&backend).unwrap_or_else(|| panic!("{backend} is no server"));
        let at = started.elapsed().as_secs_f64();
        fleet.kill(server);
        until_ended(&runs, 2 * all / 3).await;
        fleet.revive(server).await;
        kill = Some(Kill { backend, at, back: started.elapsed().as_secs_f64() });
    }
    let [long, short] = runs;
    let mut talks = talks(long.finish().await.turns, true);
    talks.extend(self::talks(short.finish().await.turns, false));
    Played { talks, kill, seconds: started.elapsed().as_secs_f64() }
}

/// Waits until so many turns are over. Each ends some time, well or not: the loads see to that.
async fn until_ended(runs: &[LoadRun], turns: usize) {
    let ended = || -> usize { runs.iter().map(|run| run.snapshot().turns.len()).sum() };
    while ended() < turns {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The turns of each session in their order.
fn talks(turns: Vec<Turn>, long: bool) -> Vec<Talk> {
    let sessions = turns.iter().map(|turn| turn.session + 1).max().unwrap_or(0);
    let mut talks: Vec<Talk> = (0..sessions).map(|_| Talk { long, turns: Vec::new() }).collect();
    for turn in turns {
        talks[turn.session].turns.push(turn);
    }
    talks
}
