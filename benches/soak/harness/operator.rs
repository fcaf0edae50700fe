//! The operator, and what befalls the backends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use parking_lot::Mutex;

use super::config;
use super::gateway::Gateway;
use super::prefills::Prefills;
use super::world::World;

/// Does things to the gateway and its backends, one after the other.
pub(crate) struct Operator {
    world: Arc<World>,
    gateway: Arc<Gateway>,
    /// How often each thing was done.
    pub(crate) done: Mutex<BTreeMap<&'static str, u64>>,
}

impl Operator {
    pub(crate) fn new(world: Arc<World>, gateway: Arc<Gateway>) -> Operator {
        Operator { world, gateway, done: Mutex::default() }
    }

    /// Goes on until the soak is over. `upgrades` are the times to upgrade at; `pause` is how long nothing is done
    /// between two things.
    pub(crate) async fn work(&self, upgrades: Vec<Instant>, pause: Duration) {
        let mut rng = self.world.rng(usize::MAX);
        let mut upgrades = upgrades.into_iter().peekable();
        while !self.world.over() {
            tokio::time::sleep(pause.mul_f64(0.5 + rng.f64())).await;
            // Nothing else begins that might still go on when it is time for an upgrade.
            let what = match upgrades.next_if(|at| *at <= Instant::now() + LONGEST) {
                Some(at) => {
                    tokio::time::sleep_until(at.into()).await;
                    UPGRADE
                }
                None => THINGS[rng.usize(..THINGS.len())],
            };
            if self.world.over() {
                return;
            }
            if let Err(why) = self.does(what, &mut rng).await {
                self.world.tally.lock().fail(format!("{what}: {why}"));
            }
            *self.done.lock().entry(what).or_default() += 1;
        }
    }

    async fn does(&self, what: &str, rng: &mut Rng) -> Result<(), String> {
        match what {
            UPGRADE => self.gateway.upgrade().await,
            KILL => self.kill(rng).await,
            KILL_IN_PREFILL | FREEZE_IN_PREFILL => self.fails_in_prefill(what, rng).await,
            RESTART => self.restart(rng).await,
            FREEZE => self.freeze(rng).await,
            _ => self.reload(rng).await,
        }
    }

    /// Another set of backends, or other weights.
    async fn reload(&self, rng: &mut Rng) -> Result<(), String> {
        let yaml = config::any(&self.world.backends, &self.world.keys, rng);
        self.gateway.reload(&yaml, rng.bool()).await
    }

    /// SIGKILL, and after a while it is there again, cold; sometimes a config comes meanwhile.
    async fn kill(&self, rng: &mut Rng) -> Result<(), String> {
        let victim = self.world.backends[rng.usize(..self.world.backends.len())].name;
        self.kill_one(victim, rng).await
    }

    async fn kill_one(&self, victim: &str, rng: &mut Rng) -> Result<(), String> {
        let backend = self.world.backend(victim)?;
        backend.kill()?;
        tokio::time::sleep(Duration::from_millis(rng.u64(200..3_000))).await;
        let meanwhile = if rng.bool() { self.reload(rng).await } else { Ok(()) };
        backend.start_again(if rng.bool() { "0s" } else { "1s" })?;
        meanwhile?;
        self.until_healthy(backend.name).await
    }

    /// A kill or a freeze while the backend computes prompts: their streams have a head at most.
    async fn fails_in_prefill(&self, what: &str, rng: &mut Rng) -> Result<(), String> {
        let victim = self.world.backends[rng.usize(..self.world.backends.len())].name;
        let before = self.repeated().await?;
        let prefills = Prefills::start(&self.world, victim, rng).await;
        let done =
            if what == KILL_IN_PREFILL { self.kill_one(victim, rng).await } else { self.freeze_one(victim, rng).await };
        prefills.end(&self.world).await;
        self.world.tally.lock().repeated += self.repeated().await?.saturating_sub(before);
        done
    }

    /// Attempts that the gateway repeated so far.
    async fn repeated(&self) -> Result<u64, String> {
        let metrics = self.gateway.get("/metrics").await?;
        let series = metrics.lines().filter(|line| line.starts_with("ingle_retries_total{"));
        Ok(series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
    }

    /// As one should: drain, restart, undrain. Nobody notices.
    async fn restart(&self, rng: &mut Rng) -> Result<(), String> {
        // These two are in every config.
        let backend = &self.world.backends[rng.usize(..config::ALWAYS)];
        let name = backend.name;
        // Of what a former process still has there, the one that serves does not know.
        self.gateway.until_former_ended().await?;
        self.gateway.post(&format!("/backends/{name}/drain")).await?;
        self.gateway
            .until("a drained backend has no requests", async || {
                let backend = self.gateway.backend(name).await?;
                Ok(backend["in_flight"] == 0 && backend["queued"] == 0)
            })
            .await?;
        backend.end()?;
        backend.start_again("0s")?;
        self.gateway.post(&format!("/backends/{name}/undrain")).await?;
        self.until_healthy(name).await
    }

    /// It stands still for longer than probes need to see it.
    async fn freeze(&self, rng: &mut Rng) -> Result<(), String> {
        let victim = self.world.backends[rng.usize(..self.world.backends.len())].name;
        self.freeze_one(victim, rng).await
    }

    async fn freeze_one(&self, victim: &str, rng: &mut Rng) -> Result<(), String> {
        let backend = self.world.backend(victim)?;
        backend.freeze()?;
        tokio::time::sleep(Duration::from_millis(rng.u64(500..4_000))).await;
        backend.thaw()?;
        self.until_healthy(backend.name).await
    }

    /// If it is in the config.
    async fn until_healthy(&self, name: &str) -> Result<(), String> {
        self.gateway
            .until("the backend is healthy again", async || match self.gateway.backend(name).await {
                Ok(backend) => Ok(backend["state"] == "healthy" || backend["removed"] == true),
                Err(_) => Ok(true),
            })
            .await
    }
}

const UPGRADE: &str = "upgrade";
const RELOAD: &str = "reload";
const KILL: &str = "kill -9 of a backend";
const RESTART: &str = "restart of a drained backend";
const FREEZE: &str = "freeze of a backend";
const KILL_IN_PREFILL: &str = "kill -9 of a backend in prefill";
const FREEZE_IN_PREFILL: &str = "freeze of a backend in prefill";
/// Any of these takes less, as a rule.
const LONGEST: Duration = Duration::from_secs(8);
/// By how often.
const THINGS: [&str; 9] =
    [RELOAD, KILL, RELOAD, KILL_IN_PREFILL, RESTART, RELOAD, FREEZE, KILL_IN_PREFILL, FREEZE_IN_PREFILL];
