//! What ten KiB of input cost the gateway: CPU time, and memory while they are held open.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::harness::backends::{Backend, Pace};
use super::harness::gateway::Gateway;
use super::harness::process::{cpu, holds};
use super::shapes::{self, Shape};

/// Of one shape, which is ten KiB or less.
pub(crate) struct Cost {
    pub(crate) name: &'static str,
    pub(crate) bytes: usize,
    pub(crate) requests: u32,
    /// Microseconds.
    pub(crate) cpu: f64,
    /// KB.
    pub(crate) memory: f64,
}

/// The two ordinary ones first.
pub(crate) async fn all(copies: usize, rounds: usize) -> Result<Vec<Cost>, String> {
    let backend = Backend::start("a", "llama_server", Pace { prefill: "2000000", decode: "50", pings: "0s" })?;
    let mut costs = Vec::new();
    for shape in [shapes::ordinary(), shapes::waiting()].into_iter().chain(shapes::hostile()) {
        let cost = of(&shape, &backend, copies, rounds).await?;
        eprintln!("{:<70} {:>6} bytes {:>9.1} µs {:>9.1} KB", cost.name, cost.bytes, cost.cpu, cost.memory);
        costs.push(cost);
    }
    Ok(costs)
}

/// A gateway that has seen nothing of the kind yet, so that its memory is not there already.
async fn of(shape: &Shape, backend: &Backend, copies: usize, rounds: usize) -> Result<Cost, String> {
    let gateway = Gateway::start(&config(backend.address)).await?;
    let pid = gateway.pid();
    // The first requests touch what all later ones need.
    batch(gateway.address, &shapes::ordinary().bytes, 20, pid).await?;
    let before = holds(pid).ok_or(GONE)?.rss;
    let copies = copies.min(MOST_REQUESTS / shape.requests as usize).max(1);
    let mut spent = Vec::new();
    let mut memory = 0.0;
    for _ in 0..rounds {
        spent.push(batch(gateway.address, &shape.bytes, copies, pid).await?);
        // What allocators keep for later would be taken for no growth in a second round.
        if memory == 0.0 {
            memory = (holds(pid).ok_or(GONE)?.peak - before).max(0.001);
        }
    }
    spent.sort();
    let per = |total: f64| total / copies as f64;
    let cpu = per(spent[spent.len() / 2].as_secs_f64() * 1e6);
    Ok(Cost { name: shape.name, bytes: shape.bytes.len(), requests: shape.requests, cpu, memory: per(memory * 1e3) })
}

/// All copies at once, held open until the gateway has done what it does with them. The CPU time that it took, with that
/// of letting them go.
async fn batch(to: SocketAddr, bytes: &[u8], copies: usize, pid: Pid) -> Result<Duration, String> {
    let idle = idle(pid).await?;
    let (begun, before) = (Instant::now(), cpu(pid).ok_or(GONE)?);
    let (release, released) = watch::channel(false);
    let mut clients = JoinSet::new();
    for _ in 0..copies {
        clients.spawn(hold(to, bytes.to_vec(), released.clone()));
    }
    settled(pid, idle).await?;
    release.send_replace(true);
    while clients.join_next().await.is_some() {}
    settled(pid, idle).await?;
    let spent = cpu(pid).ok_or(GONE)? - before;
    Ok(spent.saturating_sub(begun.elapsed().mul_f64(idle)))
}

/// Sends, and reads whatever comes until it is told to go.
async fn hold(to: SocketAddr, bytes: Vec<u8>, mut released: watch::Receiver<bool>) {
    let Ok(stream) = TcpStream::connect(to).await else { return };
    let (mut from, mut into) = stream.into_split();
    let talk = async {
        // The gateway may close before it has everything.
        let _ = into.write_all(&bytes).await;
        let mut buffer = [0; 4096];
        while matches!(from.read(&mut buffer).await, Ok(1..)) {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = talk => {}
        _ = released.wait_for(|released| *released) => {}
    }
}

/// The share of a processor that it takes to do nothing.
async fn idle(pid: Pid) -> Result<f64, String> {
    let (begun, before) = (Instant::now(), cpu(pid).ok_or(GONE)?);
    sleep(WINDOW).await;
    Ok((cpu(pid).ok_or(GONE)? - before).as_secs_f64() / begun.elapsed().as_secs_f64())
}

/// Waits until it does nothing more than that, twice in a row.
async fn settled(pid: Pid, idle: f64) -> Result<(), String> {
    let quiet = async {
        let mut calm = 0;
        while calm < 2 {
            let before = cpu(pid).ok_or(GONE)?;
            sleep(WINDOW / 3).await;
            let busy = (cpu(pid).ok_or(GONE)? - before).as_secs_f64() / (WINDOW / 3).as_secs_f64();
            calm = if busy < idle + 0.02 { calm + 1 } else { 0 };
        }
        Ok(())
    };
    timeout(PATIENCE, quiet).await.unwrap_or_else(|_| Err(format!("it is still busy after {PATIENCE:?}")))
}

/// Everything as by default; probes stay out of the measurement.
fn config(backend: SocketAddr) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\npools:\n- name: main\n  \
         health_check: {{ type: tcp, interval: 1h }}\n  backends: [{{ name: a, url: 'http://{backend}' }}]\n"
    )
}

const WINDOW: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(60);
/// Of all copies together: at more, `limits.memory` would turn some away.
const MOST_REQUESTS: usize = 5_000;
const GONE: &str = "the gateway is gone";
