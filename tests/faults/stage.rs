//! Three backends, the real binary before them, and traffic: what every scenario begins with and ends with.

use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::backend::Backend;
use crate::client::{Answer, Client, Req};
use crate::harness::{PATIENCE, Setup, sum};
use crate::process::Process;
use crate::scenario::{Play, Played};
use crate::tally::{Window, tally};
use crate::traffic::Traffic;

/// What is on it.
pub(crate) struct Stage {
    pub(crate) backends: Vec<Backend>,
    pub(crate) process: Process,
    pub(crate) traffic: Traffic,
    pub(crate) play: Play,
    /// What `finish` returns besides.
    pub(crate) played: Played,
    windows: Vec<Window>,
    /// By the clock of the log: when the first fault began, and when the last one ended.
    wall: (Option<SystemTime>, Option<SystemTime>),
    /// Those that have something wrong with them at some time.
    faulty: Vec<String>,
}

/// Quick probes, and sessions that leave their home for faults only, not for load.
pub(crate) fn setup() -> Setup {
    Setup::new().health("interval: 100ms").unbounded()
}

impl Stage {
    /// `gpu0`, `gpu1` and `gpu2`, of which `gpu1` will have a fault; `more` of the config.
    pub(crate) async fn start(play: Play, more: impl Fn(Setup) -> Setup) -> Stage {
        let backends = ["gpu0", "gpu1", "gpu2"].map(Backend::start);
        let setup = backends.iter().fold(more(setup()), |setup, backend| {
            setup.backend(backend.name(), &format!("http://{}", backend.address))
        });
        Stage::of(play, backends.into(), &setup.yaml()).await
    }

    /// With these backends and this config.
    pub(crate) async fn of(play: Play, backends: Vec<Backend>, yaml: &str) -> Stage {
        let process = Process::start(yaml).await;
        Stage::behind(play, backends, process).await
    }

    /// Behind this gateway. Everybody is well, and every client has been served, before anything goes wrong.
    pub(crate) async fn behind(play: Play, backends: Vec<Backend>, process: Process) -> Stage {
        for backend in &backends {
            process.until_line(|line| line["backend"] == backend.name() && line["to"] == "healthy").await;
        }
        let traffic = Traffic::start(process.address);
        traffic.turns(2).await;
        let faulty = vec!["gpu1".to_owned()];
        let (played, windows, wall) = (Played::default(), Vec::new(), (None, None));
        Stage { backends, process, traffic, play, played, windows, wall, faulty }
    }

    pub(crate) fn gpu1(&self) -> &Backend {
        &self.backends[1]
    }

    /// Other backends than gpu1 have a fault.
    pub(crate) fn faulty(&mut self, names: &[&str]) {
        self.faulty = names.iter().map(|name| (*name).to_owned()).collect();
    }

    pub(crate) fn fault_begins(&mut self) {
        self.windows.push(Window { begun: Instant::now(), ended: None });
        self.wall.0.get_or_insert_with(SystemTime::now);
    }

    pub(crate) fn fault_ends(&mut self) {
        if let Some(window) = self.windows.last_mut() {
            window.ended = Some(Instant::now());
        }
        self.wall.1 = Some(SystemTime::now());
    }

    /// Waits until a condition holds, or says what did not.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Stage) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the gateway sends requests there.
    pub(crate) async fn until_serving(&self, name: &str) {
        self.until(&format!("{name} serves"), |stage| stage.serves(name)).await;
    }

    fn serves(&self, name: &str) -> bool {
        let log = self.process.log();
        let last = log.iter().rev().find(|line| line["backend"] == name && line["to"].is_string());
        last.is_some_and(|line| serves(&line["to"]))
    }

    /// Asks the admin listener.
    pub(crate) async fn admin(&self, req: &Req) -> Answer {
        Client::connect(self.process.admin).await.send(req).await
    }

    /// The sum of all series of a family that have these labels.
    pub(crate) async fn metric(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        sum(&self.admin(&Req::get("/metrics")).await.text(), family, labels)
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.played.notes.push(text.into());
    }

    /// Something went wrong that no client saw.
    pub(crate) fn problem(&mut self, text: impl Into<String>) {
        self.played.problems.push(text.into());
    }

    /// Something that must be so.
    pub(crate) fn must(&mut self, holds: bool, otherwise: impl Into<String>) {
        if !holds {
            self.problem(otherwise);
        }
    }

    /// A fault of gpu1 that lasts until it was met and every client had its turns; then it is over.
    pub(crate) async fn ordeal(&mut self, begin: impl Fn(&Backend), end: impl Fn(&Backend)) {
        self.fault_begins();
        begin(self.gpu1());
        self.traffic.turns(self.play.times(3)).await;
        self.until("the fault is met", |stage| stage.gpu1().met() > 0 || !stage.serves("gpu1")).await;
        end(self.gpu1());
        self.fault_ends();
        self.until_serving("gpu1").await;
        self.traffic.turns(self.play.times(3)).await;
    }

    /// Lets the clients finish and judges all of it.
    pub(crate) async fn finish(mut self) -> Played {
        let seen = self.traffic.stop().await;
        self.played.tally = tally(&seen, &self.play.may, &self.windows, &self.faulty);
        let begun = Instant::now();
        let in_flight = loop {
            match self.metric("ingle_in_flight_requests", &[]).await {
                0.0 => break 0.0,
                left if begun.elapsed() > PATIENCE => break left,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        self.must(in_flight == 0.0, format!("{in_flight} requests are in flight for ever"));
        self.end()
    }

    /// As [`Stage::finish`], when the gateway or the clients have ended.
    pub(crate) fn end(mut self) -> Played {
        let broken: Vec<String> = self.backends.iter().flat_map(Backend::broken).collect();
        self.must(broken.is_empty(), format!("backends got what none may get: {broken:?}"));
        self.played.left_alone = self.changed(self.wall.0, false);
        self.played.back = self.played.left_alone.and_then(|_| self.changed(self.wall.1, true));
        self.played
    }

    /// From a moment to the next change of a faulty backend, to one that serves or to one that does not.
    fn changed(&self, since: Option<SystemTime>, to_serving: bool) -> Option<Duration> {
        let since = since?;
        let of = |line: &Value| {
            let name = line["backend"].as_str()?;
            let wanted = self.faulty.iter().any(|faulty| faulty == name) && line["to"].is_string();
            let at = humantime::parse_rfc3339(line["timestamp"].as_str()?).ok()?;
            (wanted && serves(&line["to"]) == to_serving).then(|| at.duration_since(since).ok())?
        };
        self.process.log().iter().find_map(of)
    }
}

fn serves(state: &Value) -> bool {
    state == "healthy" || state == "probation"
}
