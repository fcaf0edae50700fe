//! Real llama-servers, as tests look at them.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};

use crate::client::{Client, Req};
use crate::harness::{Setup, sum};
pub(crate) use crate::servers::Llama;
use crate::servers::{Launcher, NAMES};
use crate::wait;

/// What it takes to run llama-servers, and the right to: only one test has it at a time.
pub(crate) struct Real {
    pub(crate) launcher: Launcher,
    _turn: MutexGuard<'static, ()>,
}

impl Real {
    /// `None`, said aloud, where there are no llama-servers; a failure where there must be.
    pub(crate) async fn take(test: &str) -> Option<Real> {
        let Some(launcher) = Launcher::from_env() else {
            assert!(!required("INGLE_REAL"), "INGLE_REAL=1, but INGLE_REAL_PYTHON or INGLE_REAL_MODEL is missing");
            shout(&format!("SKIPPED real::{test}: it needs real llama-servers; make test-real"));
            return None;
        };
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        println!("--- {test}");
        Some(Real { launcher, _turn: turn })
    }

    /// A server that answers requests.
    pub(crate) async fn server(&self, slots: usize) -> Llama {
        self.server_at(0, slots).await
    }

    /// The same at a port of one's choice.
    pub(crate) async fn server_at(&self, port: u16, slots: usize) -> Llama {
        self.launcher.start(port, slots).ready().await
    }

    /// Two servers that answer requests.
    pub(crate) async fn pair(&self, slots: usize) -> [Llama; 2] {
        let (a, b) = tokio::join!(self.server(slots), self.server(slots));
        [a, b]
    }
}

impl Llama {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One of its own counters, such as `tokens_predicted_total`.
    pub(crate) async fn counter(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.text();
        sum(&text, &format!("llamacpp:{name}"), &[])
    }

    /// How many slots are at work.
    pub(crate) async fn busy_slots(&self) -> usize {
        let slots: Value = self.get("/slots").await.json();
        slots.as_array().unwrap().iter().filter(|slot| slot["is_processing"] == true).count()
    }

    /// Whether a slot is at work.
    pub(crate) async fn busy(&self) -> bool {
        self.busy_slots().await > 0
    }

    pub(crate) async fn until_busy(&self) {
        wait::until("a slot is at work", async || self.busy().await).await;
    }

    pub(crate) async fn until_idle(&self) {
        wait::until("no slot is at work", async || !self.busy().await).await;
    }

    async fn get(&self, path: &str) -> crate::client::Answer {
        Client::connect(self.address).await.send(&Req::get(path)).await
    }
}

/// What `/health` says at an address: nothing while nobody listens.
pub(crate) async fn health_at(address: SocketAddr) -> Option<u16> {
    let stream = TcpStream::connect(address).await.ok()?;
    let mut client = Client { stream, buffer: bytes::BytesMut::new() };
    Some(client.send(&Req::get("/health")).await.status)
}

/// A port at which nobody listens.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A gateway's config for these servers, named `a`, `b`. A busy machine may answer a probe late.
pub(crate) fn setup<'a>(addresses: impl IntoIterator<Item = &'a SocketAddr>) -> Setup {
    let setup = Setup::new().health("interval: 20ms, timeout: 10s");
    let named = NAMES.into_iter().zip(addresses);
    named.fold(setup, |setup, (name, address)| {
        setup.backend_with(name, &format!("http://{address}"), "server: llama_server")
    })
}

/// Whether a variable of the environment asks for something that is otherwise done only where it is possible.
pub(crate) fn required(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| value == "1")
}

/// Says something that libtest does not capture.
pub(crate) fn shout(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}
