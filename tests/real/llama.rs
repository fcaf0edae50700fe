//! Real llama-servers.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard, oneshot};
use tokio::time::timeout;

use crate::client::{Client, Req};
use crate::harness::{Setup, sum};
use crate::wait::{self, PATIENCE};

/// What it takes to run llama-servers, and the right to: only one test has it at a time.
pub(crate) struct Real {
    python: String,
    model: String,
    _turn: MutexGuard<'static, ()>,
}

impl Real {
    /// `None`, said aloud, where there are no llama-servers; a failure where there must be.
    pub(crate) async fn take(test: &str) -> Option<Real> {
        let (python, model) = (std::env::var("INGLE_REAL_PYTHON"), std::env::var("INGLE_REAL_MODEL"));
        let (Ok(python), Ok(model)) = (python, model) else {
            assert!(!required("INGLE_REAL"), "INGLE_REAL=1, but INGLE_REAL_PYTHON or INGLE_REAL_MODEL is missing");
            shout(&format!("SKIPPED real::{test}: it needs real llama-servers; make test-real"));
            return None;
        };
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        println!("--- {test}");
        Some(Real { python, model, _turn: turn })
    }

    /// A server that answers requests.
    pub(crate) async fn server(&self, slots: usize) -> Llama {
        self.server_at(0, slots).await
    }

    /// The same at a port of one's choice.
    pub(crate) async fn server_at(&self, port: u16, slots: usize) -> Llama {
        let mut starting = self.start(port, slots);
        let line = timeout(PATIENCE, &mut starting.first_line).await.ok().and_then(Result::ok);
        let line = line.unwrap_or_else(|| panic!("llama-server does not start: see {}", starting.log.display()));
        let address = line.trim().trim_start_matches("http://").parse().unwrap();
        Llama { _process: starting.process, address }
    }

    /// Two servers that answer requests.
    pub(crate) async fn pair(&self, slots: usize) -> [Llama; 2] {
        let (a, b) = tokio::join!(self.server(slots), self.server(slots));
        [a, b]
    }

    /// A process that will be a server once its model is loaded.
    pub(crate) fn start(&self, port: u16, slots: usize) -> Starting {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("llama-server-{}.log", COUNT.fetch_add(1, Ordering::Relaxed));
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/real/llama_server.py");
        let child = Command::new(&self.python)
            .args([script, &self.model, &port.to_string(), &slots.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn();
        let mut process = Process(child.unwrap_or_else(|error| panic!("{}: {error}", self.python)));
        let mut stdout = BufReader::new(process.0.stdout.take().unwrap());
        let (found, first_line) = oneshot::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // Without a line the receiver learns of it by the channel's end. So does this thread, by an error.
            if stdout.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                let _ = found.send(line);
            }
        });
        Starting { process, first_line, log }
    }
}

/// A process that loads its model.
pub(crate) struct Starting {
    process: Process,
    first_line: oneshot::Receiver<String>,
    log: PathBuf,
}

/// A llama-server. It dies by SIGKILL when this drops.
pub(crate) struct Llama {
    _process: Process,
    pub(crate) address: SocketAddr,
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

    /// Whether a slot is at work.
    pub(crate) async fn busy(&self) -> bool {
        let slots: Value = self.get("/slots").await.json();
        slots.as_array().unwrap().iter().any(|slot| slot["is_processing"] == true)
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
    let named = ["a", "b"].into_iter().zip(addresses);
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

/// A process that does not outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
