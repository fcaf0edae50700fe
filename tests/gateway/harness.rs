//! A gateway in this process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ingle::config::Config;
use ingle::core::SessionKey;
use ingle::server::{Drained, Server};
use ingle_sim::{ServerKind, SimConfig, SimServer};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Answer, Client, Req};

/// How long anything may take that must happen at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What a gateway's config file says.
#[derive(Clone)]
pub(crate) struct Setup {
    listeners: Vec<SocketAddr>,
    listener: Vec<String>,
    admin: Vec<String>,
    top: Vec<String>,
    pool: Vec<String>,
    health: String,
    backends: Vec<String>,
}

impl Setup {
    /// Quick probes, everything else as by default.
    pub(crate) fn new() -> Setup {
        Setup {
            listeners: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            listener: Vec::new(),
            admin: Vec::new(),
            top: Vec::new(),
            pool: Vec::new(),
            health: "interval: 50ms".to_owned(),
            backends: Vec::new(),
        }
    }

    /// Other addresses than one on a port of the system's choice.
    pub(crate) fn listeners(self, listeners: &[SocketAddr]) -> Setup {
        Setup { listeners: listeners.to_vec(), ..self }
    }

    /// The keys of `tls` for all listeners.
    pub(crate) fn tls(self, keys: &str) -> Setup {
        self.listener(&format!("tls: {{ {keys} }}"))
    }

    /// A key of all listeners with its value.
    pub(crate) fn listener(mut self, key: &str) -> Setup {
        self.listener.push(key.to_owned());
        self
    }

    /// A key of `admin` with its value.
    pub(crate) fn admin(mut self, key: &str) -> Setup {
        self.admin.push(key.to_owned());
        self
    }

    pub(crate) fn backend(self, name: &str, url: &str) -> Setup {
        self.backend_with(name, url, "server: generic")
    }

    /// A backend with further keys, written as YAML's flow style has them.
    pub(crate) fn backend_with(mut self, name: &str, url: &str, more: &str) -> Setup {
        self.backends.push(format!("{{ name: {name}, url: {url:?}, {more} }}"));
        self
    }

    pub(crate) fn sims<'a>(self, sims: impl IntoIterator<Item = &'a SimServer>) -> Setup {
        sims.into_iter().fold(self, |setup, sim| {
            let server = match sim.config().server {
                ServerKind::LlamaServer => "server: llama_server",
                ServerKind::Vllm => "server: vllm",
            };
            setup.backend_with(sim.name(), &sim.url(), server)
        })
    }

    /// A key of the pool with its value.
    pub(crate) fn pool(mut self, line: &str) -> Setup {
        self.pool.push(line.to_owned());
        self
    }

    /// Sessions do not leave a busy home: what the test is about is something else.
    pub(crate) fn unbounded(self) -> Setup {
        self.pool("overload: { balance_factor: 0 }")
    }

    /// A top-level key with its value.
    pub(crate) fn top(mut self, line: &str) -> Setup {
        self.top.push(line.to_owned());
        self
    }

    /// The keys of `health_check`, instead of the quick probes.
    pub(crate) fn health(mut self, keys: &str) -> Setup {
        keys.clone_into(&mut self.health);
        self
    }

    /// Probes that come once at the start and then never again: what happens is the traffic's doing.
    pub(crate) fn one_probe(self) -> Setup {
        self.health("interval: 1h")
    }

    pub(crate) fn yaml(&self) -> String {
        let further = |keys: &[String]| keys.iter().map(|key| format!(", {key}")).collect::<String>();
        let keys = further(&self.listener);
        let listeners: Vec<String> =
            self.listeners.iter().map(|address| format!("{{ address: {address}{keys} }}")).collect();
        let admin = further(&self.admin);
        let mut text = format!("listeners: [{}]\nadmin: {{ address: 127.0.0.1:0{admin} }}\n", listeners.join(", "));
        for line in &self.top {
            text += &format!("{line}\n");
        }
        text += &format!("pools:\n  - name: main\n    health_check: {{ {} }}\n", self.health);
        for line in &self.pool {
            text += &format!("    {line}\n");
        }
        text += "    backends:\n";
        for backend in &self.backends {
            text += &format!("      - {backend}\n");
        }
        text
    }

    /// A gateway whose backends are all healthy.
    pub(crate) async fn start(self) -> Gateway {
        let gateway = self.start_cold().await;
        let inner = Arc::clone(&gateway.inner);
        let all = || inner.snapshot.load().pool.members().iter().all(|member| member.backend.state().serves());
        until("all backends are healthy", all).await;
        gateway
    }

    /// A gateway that has perhaps not probed anybody yet.
    pub(crate) async fn start_cold(self) -> Gateway {
        let yaml = self.yaml();
        let config = Config::parse(&yaml, "test.yaml").unwrap_or_else(|errors| panic!("{errors}\n{yaml}"));
        let path = file(&yaml);
        let server = Server::bind(config).unwrap().from_file(&path);
        let (stop, stopped) = oneshot::channel::<()>();
        let (cut, is_cut) = oneshot::channel::<()>();
        Gateway {
            address: server.addresses().unwrap()[0],
            admin: server.admin_address().unwrap(),
            inner: Arc::clone(server.gateway()),
            file: path,
            task: tokio::spawn(async move {
                let stop = async { drop(stopped.await) };
                server.run(stop, async { drop(is_cut.await) }).await.unwrap()
            }),
            stop: Some(stop),
            _cut: cut,
        }
    }
}

/// A file with this text, whose path no other test has.
pub(crate) fn file(text: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("gateway-{}-{}.yaml", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// A gateway that runs.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) inner: Arc<ingle::gateway::Gateway>,
    pub(crate) file: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    _cut: oneshot::Sender<()>,
    task: JoinHandle<Drained>,
}

impl Gateway {
    /// One request on a connection of its own.
    pub(crate) async fn send(&self, req: &Req) -> Answer {
        self.client().await.send(req).await
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn admin_get(&self, path: &str) -> Answer {
        Client::connect(self.admin).await.send(&Req::get(path)).await
    }

    pub(crate) async fn admin_post(&self, path: &str) -> Answer {
        Client::connect(self.admin).await.send(&Req::post(path, b"")).await
    }

    /// Puts another text into the config file, and asks for it to be read.
    pub(crate) async fn reload(&self, setup: &Setup) -> Answer {
        std::fs::write(&self.file, setup.yaml()).unwrap();
        self.admin_post("/reload").await
    }

    /// What `/backends` says of one backend.
    pub(crate) async fn backend(&self, name: &str) -> serde_json::Value {
        let all = self.admin_get("/backends").await.json();
        let backends = all["backends"].as_array().unwrap();
        backends.iter().find(|backend| backend["name"] == name).unwrap_or_else(|| panic!("{name} in {all}")).clone()
    }

    pub(crate) fn state(&self, name: &str) -> &'static str {
        let snapshot = self.inner.snapshot.load();
        let member = snapshot.pool.position(name).unwrap();
        snapshot.pool.members()[member].backend.state().as_str()
    }

    pub(crate) async fn until_state(&self, name: &str, state: &str) {
        until(&format!("{name} is {state}"), || self.state(name) == state).await;
    }

    /// The sum of all series of a family that have these labels.
    pub(crate) async fn metric(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        sum(&self.admin_get("/metrics").await.text(), family, labels)
    }

    /// Waits until nothing is under way and nothing is held; fails if a count has leaked.
    pub(crate) async fn until_idle(&self) {
        let snapshot = self.inner.snapshot.load_full();
        let in_flight = || snapshot.pool.members().iter().map(|member| member.backend.in_flight()).sum::<usize>();
        until("nothing is in flight", || self.inner.requests.get() == 0 && in_flight() == 0).await;
        assert_eq!(self.inner.bodies.get(), 0, "bytes of bodies that nobody needs");
        assert_eq!(self.metric("ingle_in_flight_requests", &[]).await, 0.0);
    }

    /// The name of a session's home.
    pub(crate) fn home(&self, session: &str) -> String {
        let snapshot = self.inner.snapshot.load();
        let key = SessionKey::parse(session.as_bytes(), 256, snapshot.pool.settings().seed).unwrap().unwrap();
        let home = snapshot.pool.home(key).unwrap();
        snapshot.pool.members()[home].backend.name().to_owned()
    }

    /// Sessions whose home is this backend.
    pub(crate) fn sessions_of(&self, backend: &str, count: usize) -> Vec<String> {
        (0..).map(|i| format!("session-{i}")).filter(|id| self.home(id) == backend).take(count).collect()
    }

    pub(crate) fn session_of(&self, backend: &str) -> String {
        self.sessions_of(backend, 1).remove(0)
    }

    /// Asks it to end; `until_drained` waits for it.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    pub(crate) async fn until_drained(self) -> Drained {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the drain ends").unwrap()
    }
}

/// The sum of all series of a family that have these labels, in the text of `/metrics`.
pub(crate) fn sum(metrics: &str, family: &str, labels: &[(&str, &str)]) -> f64 {
    let series = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(family).unwrap_or("#");
        (rest.starts_with('{') || rest.starts_with(' '))
            && labels.iter().all(|(name, value)| rest.contains(&format!("{name}=\"{value}\"")))
    });
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Simulated llama-servers without any waiting, named `a`, `b`, ...
pub(crate) async fn sims(count: usize) -> Vec<SimServer> {
    sims_of(count, |name| SimConfig::llama_server(name).instant()).await
}

/// Simulated backends named `a`, `b`, ...
pub(crate) async fn sims_of(count: usize, config: impl Fn(&str) -> SimConfig) -> Vec<SimServer> {
    let mut sims = Vec::new();
    for name in ["a", "b", "c", "d", "e"].into_iter().take(count) {
        sims.push(SimServer::start(config(name)).await.unwrap());
    }
    sims
}

/// An address at which nobody listens: connections are refused.
pub(crate) fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Bytes that repeat nowhere in step with a buffer's size.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}
