//! Plays a workload against a proxy, or against the backends directly.

mod client;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::client::{Client, Failure};
use super::figures::{Summary, skew};
use super::fleet::Fleet;
use super::outage::Outage;
use super::policy::{Ask, Policy};
use super::simulation::Outcome;
use super::workload::Workload;

/// How a workload is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlayerConfig {
    /// Whether requests carry `X-Session-Id`.
    pub sessions: bool,
    /// How long an answer may take, from the request to its end.
    pub timeout: Duration,
    /// A backend that is killed and comes back.
    pub outage: Option<Outage>,
    /// Decides which gateway takes which request.
    pub seed: u64,
}

/// Where requests go.
pub enum Target {
    /// To one of these, `http://HOST:PORT`, by chance for each request.
    Gateways(Vec<String>),
    /// To the backend that the policy chooses, and to another one when it dies before the first token: what a proxy that
    /// costs no time would do.
    Direct(Box<dyn Policy>),
}

/// Plays a workload once.
pub struct Player {
    workload: Arc<Workload>,
    fleet: Arc<Fleet>,
    target: Target,
    config: PlayerConfig,
    client: Client,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    children: Vec<Vec<usize>>,
    rng: fastrand::Rng,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Played {
    /// All turns, in the order of their ends.
    pub outcomes: Vec<Outcome>,
    /// How late requests were sent, in real milliseconds: what the client itself adds.
    pub lateness: Summary,
}

impl Player {
    /// A player of this workload; the fleet must have been started with the same one.
    #[must_use]
    pub fn new(workload: Arc<Workload>, fleet: Arc<Fleet>, target: Target, config: PlayerConfig) -> Self {
        Self {
            children: workload.children(),
            client: Client::new(config.timeout),
            due: BinaryHeap::new(),
            rng: fastrand::Rng::with_seed(config.seed),
            workload,
            fleet,
            target,
            config,
        }
    }

    /// Plays it to its end, from the time 0 of the fleet's clock on.
    pub async fn play(mut self) -> Played {
        self.fleet.begin();
        let outage = self.config.outage.map(|outage| tokio::spawn(interrupt(Arc::clone(&self.fleet), outage)));
        for index in 0..self.workload.turns.len() {
            if self.workload.turns[index].parent.is_none() {
                self.due.push(Reverse((self.fleet.instant(self.workload.turns[index].at), index)));
            }
        }
        let (ended, mut ends) = mpsc::unbounded_channel::<Outcome>();
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(self.workload.turns.len());
        let mut lateness = Vec::with_capacity(self.workload.turns.len());
        while outcomes.len() < self.workload.turns.len() {
            let next = self.due.peek().map(|Reverse((at, _))| *at);
            tokio::select! {
                biased;
                Some(outcome) = ends.recv() => {
                    if self.is_lost(&outcome) && self.is_direct() {
                        self.send(outcome.index, Some(outcome.sent), &ended);
                        continue;
                    }
                    self.ended(&outcome);
                    outcomes.push(outcome);
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    while let Some(Reverse((at, index))) = self.due.pop_if_due() {
                        lateness.push(at.elapsed().as_secs_f64() * 1e3);
                        self.send(index, None, &ended);
                    }
                }
            }
        }
        if let Some(outage) = outage {
            outage.abort();
        }
        Played { outcomes, lateness: Summary::of(lateness) }
    }

    /// Sends a turn, for the first time or again.
    fn send(&mut self, index: usize, before: Option<f64>, ended: &mpsc::UnboundedSender<Outcome>) {
        let turn = &self.workload.turns[index];
        let session = self.workload.session_id(turn.session);
        let target = &mut self.target;
        let rng = &mut self.rng;
        let addresses = self.fleet.addresses();
        let (url, mut outcome) = self.fleet.look(|machines, alive, now| {
            let in_flight: Vec<usize> = machines.iter().map(|machine| machine.in_flight()).collect();
            let url = match target {
                Target::Gateways(urls) => urls[rng.usize(0..urls.len())].clone(),
                Target::Direct(policy) => {
                    let ask = Ask { index, turn, session: &session, job: &turn.job(index), now };
                    format!("http://{}", addresses[policy.place(&ask, machines, alive)])
                }
            };
            (url, Outcome::sent(index, turn, before.unwrap_or(now), skew(&in_flight)))
        });
        let request = self.client.request(&url, self.config.sessions.then_some(&session), index, turn.bytes);
        let (client, fleet, ended) = (self.client.clone(), Arc::clone(&self.fleet), ended.clone());
        tokio::spawn(async move {
            let mut first_token = None;
            let result = client.exchange(request, || first_token = Some(fleet.now())).await;
            outcome.end = fleet.now();
            outcome.error = result.err().map(Failure::name);
            if let (Some(at), Some(served)) = (first_token, fleet.served(index)) {
                outcome.first_token = Some(at - outcome.sent);
                (outcome.machine, outcome.cached) = (Some(served.machine), served.cached);
            }
            // The player waits for every outcome, unless it was dropped.
            let _ = ended.send(outcome);
        });
    }

    /// Whether its backend died before the first token.
    fn is_lost(&self, outcome: &Outcome) -> bool {
        let died = [Failure::NoAnswer, Failure::Cut].map(|failure| Some(failure.name()));
        outcome.first_token.is_none() && died.contains(&outcome.error)
    }

    fn is_direct(&self) -> bool {
        matches!(self.target, Target::Direct(_))
    }

    fn ended(&mut self, outcome: &Outcome) {
        for child in std::mem::take(&mut self.children[outcome.index]) {
            let at = self.workload.turns[child].at.max(outcome.end + Workload::THINKING);
            self.due.push(Reverse((self.fleet.instant(at), child)));
        }
    }
}

async fn interrupt(fleet: Arc<Fleet>, outage: Outage) {
    sleep_until(fleet.instant(outage.from)).await;
    fleet.kill(outage.machine);
    sleep_until(fleet.instant(outage.to)).await;
    // Connections of before may still hold the port for a moment.
    while fleet.revive(outage.machine).is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

trait PopIfDue {
    fn pop_if_due(&mut self) -> Option<Reverse<(Instant, usize)>>;
}

impl PopIfDue for BinaryHeap<Reverse<(Instant, usize)>> {
    fn pop_if_due(&mut self) -> Option<Reverse<(Instant, usize)>> {
        let due = self.peek().is_some_and(|Reverse((at, _))| *at <= Instant::now());
        if due { self.pop() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{FleetConfig, Head, Line, Model, Pinned, Simulation};

    fn config(head: Head, compression: f64) -> FleetConfig {
        let model = Model { prefill_rate: 51_200.0, decode_rate: 100.0, slots: 16, cache_blocks: 1_000 };
        FleetConfig { model, backends: 3, compression, head, ping_interval: Some(Duration::from_millis(5)) }
    }

    /// Sessions of two turns, and some of one.
    fn workload() -> Arc<Workload> {
        let line = |i: u64| {
            let hash_ids: Vec<u64> = if i % 3 == 2 { vec![0, i, i + 100] } else { vec![0, i - i % 3 + 1000] };
            let input_length = u32::try_from(hash_ids.len()).unwrap() * 512;
            Line { timestamp: i * 100, input_length, output_length: 100, hash_ids }
        };
        Arc::new(Workload::new(&(0..60).map(line).collect::<Vec<_>>(), 1))
    }

    fn by_session(session: &str) -> Vec<usize> {
        let first = session.bytes().map(usize::from).sum::<usize>() % 3;
        vec![first, (first + 1) % 3, (first + 2) % 3]
    }

    async fn play(config: FleetConfig, outage: Option<Outage>) -> Vec<Outcome> {
        let workload = workload();
        let fleet = Arc::new(Fleet::start(Arc::clone(&workload), config).unwrap());
        let target = Target::Direct(Box::new(Pinned { order: by_session }));
        let timeout = Duration::from_secs(60);
        let player = PlayerConfig { sessions: true, timeout, outage, seed: 1 };
        let mut outcomes = Player::new(workload, fleet, target, player).play().await.outcomes;
        outcomes.sort_by_key(|outcome| outcome.index);
        outcomes
    }

    #[tokio::test]
    async fn sockets_agree_with_the_simulation() {
        let workload = workload();
        let model = config(Head::AtOnce, 20.0).model;
        let simulation = Simulation::new(&workload, &[model; 3], None, 1);
        let mut simulated = simulation.run(&mut [Box::new(Pinned { order: by_session })]).outcomes;
        simulated.sort_by_key(|outcome| outcome.index);
        for head in [Head::WithFirstToken, Head::AtOnce] {
            let outcomes = play(config(head, 20.0), None).await;
            assert_eq!(outcomes.len(), 60);
            for (outcome, simulated) in outcomes.iter().zip(&simulated) {
                assert_eq!(outcome.error, None);
                assert_eq!((outcome.machine, outcome.prompt), (simulated.machine, simulated.prompt));
                assert!(outcome.first_token.is_some() && outcome.end > outcome.sent);
            }
            let later = outcomes.iter().filter(|outcome| workload.turns[outcome.index].parent.is_some());
            assert!(later.clone().count() > 10);
            later.for_each(|outcome| assert_eq!(outcome.cached, 1023, "{outcome:?}"));
        }
    }

    #[tokio::test]
    async fn heads_and_pings_are_no_first_token() {
        let mut config = config(Head::AtOnce, 20.0);
        config.model.prefill_rate = 5_120.0;
        let outcomes = play(config, None).await;
        let prefill = |outcome: &&Outcome| f64::from(outcome.prompt - outcome.cached) / 5_120.0;
        assert!(outcomes.iter().all(|outcome| outcome.first_token.unwrap() >= 0.999 * prefill(&outcome)));
        assert!(outcomes.iter().filter(|outcome| prefill(outcome) > 0.19).count() > 10, "there is time for pings");
    }

    #[tokio::test]
    async fn backend_dies_and_comes_back() {
        for head in [Head::WithFirstToken, Head::AtOnce] {
            check_outage(play(config(head, 4.0), Some(Outage { machine: 1, from: 1.0, to: 5.0 })).await);
        }
    }

    fn check_outage(outcomes: Vec<Outcome>) {
        assert_eq!(outcomes.len(), 60);
        assert!(outcomes.iter().all(|outcome| outcome.first_token.is_some()), "another backend served them");
        assert!(outcomes.iter().all(|outcome| matches!(outcome.error, None | Some("cut"))));
        let workload = workload();
        let at_home = |outcome: &&Outcome| by_session(&workload.session_id(outcome.session))[0] == 1;
        let times = |machine: usize| -> Vec<f64> {
            let there = outcomes.iter().filter(at_home).filter(|outcome| outcome.machine == Some(machine));
            there.map(|outcome| outcome.sent).collect()
        };
        let (home, away) = (times(1), times(2));
        assert!(!away.is_empty(), "its sessions went to the next one");
        assert!(home.iter().any(|at| *at > away[0]), "it is used again: {home:?} {away:?}");
    }
}
