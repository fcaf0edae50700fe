//! Clients that send a head byte by byte, twenty new ones a second: what others notice of it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::harness::asks::Book;
use super::harness::backends::{Backend, Pace};
use super::harness::gateway::Gateway;
use super::harness::http1::{self, Connection};
use super::harness::process::connections;

/// Milliseconds of ordinary requests, in one kind of minute.
#[derive(Default)]
pub(crate) struct Minutes {
    through: Vec<Sample>,
    direct: Vec<Sample>,
    pub(crate) failures: Vec<String>,
    /// Slow clients that were there at its end.
    pub(crate) slow: usize,
}

/// In which slice of the measurement, and how long it took.
type Sample = (u64, f64);

/// Quiet minutes and others, by turns.
pub(crate) struct Slow {
    pub(crate) quiet: Minutes,
    pub(crate) besieged: Minutes,
}

pub(crate) async fn run(rounds: usize, seconds: u64) -> Result<Slow, String> {
    let backend = Backend::start("a", "llama_server", Pace { prefill: "2000000", decode: "50", pings: "0s" })?;
    let yaml = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\npools:\n- name: main\n  \
         backends: [{{ name: a, url: 'http://{}' }}]\n",
        backend.address
    );
    let gateway = Gateway::start(&yaml).await?;
    let mut slow = Slow { quiet: Minutes::default(), besieged: Minutes::default() };
    for round in 1..=rounds {
        eprintln!("slow clients: round {round} of {rounds}");
        minute(&gateway, backend.address, seconds, false, &mut slow.quiet).await?;
        minute(&gateway, backend.address, seconds, true, &mut slow.besieged).await?;
        // The next quiet one begins when the last slow client is gone.
        gateway.until("slow clients are gone", async || Ok(connections(gateway.address.port()) == 0)).await?;
    }
    Ok(slow)
}

async fn minute(
    gateway: &Gateway,
    backend: SocketAddr,
    seconds: u64,
    besieged: bool,
    into: &mut Minutes,
) -> Result<(), String> {
    let over = Arc::new(AtomicBool::new(false));
    let book = Arc::new(Book::new(&mut Rng::with_seed(2)));
    let mut asking = JoinSet::new();
    for client in 0..CLIENTS {
        asking.spawn(ask([gateway.address, backend], client, Arc::clone(&book), Arc::clone(&over)));
    }
    let mut siege = JoinSet::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut tick = interval(Duration::from_secs(1) / SLOW_PER_SECOND);
    while Instant::now() < end {
        tick.tick().await;
        if besieged {
            siege.spawn(besiege(gateway.address));
        }
    }
    if besieged {
        into.slow = connections(gateway.address.port()).saturating_sub(CLIENTS);
    }
    over.store(true, Ordering::Relaxed);
    while let Some(asked) = asking.join_next().await {
        let [through, direct] = asked.map_err(|error| error.to_string())?;
        let mut keep = |came: Vec<Result<Sample, String>>| {
            came.into_iter().filter_map(|came| came.map_err(|why| into.failures.push(why)).ok()).collect::<Vec<_>>()
        };
        let (through, direct) = (keep(through), keep(direct));
        into.through.extend(through);
        into.direct.extend(direct);
    }
    Ok(())
}

/// Ordinary requests, by turns through the gateway and to the backend itself: what is added is the difference.
async fn ask(
    to: [SocketAddr; 2],
    client: usize,
    book: Arc<Book>,
    over: Arc<AtomicBool>,
) -> [Vec<Result<Sample, String>>; 2] {
    let mut came = [Vec::new(), Vec::new()];
    let (mut connections, mut rng) = ([None, None], Rng::with_seed(client as u64));
    while !over.load(Ordering::Relaxed) {
        for way in 0..2 {
            let ask = book.ask(&mut rng, false, 1);
            let request = http1::post(Some(&format!("session-{client}")), None, &ask.body, false);
            let exchange = async {
                let mut connection = match connections[way].take() {
                    Some(connection) => connection,
                    None => Connection::open(to[way], Ipv4Addr::LOCALHOST).await?,
                };
                let begun = Instant::now();
                let answer = connection.exchange(&request).await?;
                Ok((begun.elapsed(), answer, connection))
            };
            came[way].push(match exchange.await {
                Ok((took, answer, connection)) => {
                    connections[way] = Some(connection).filter(|_| !answer.close);
                    ask.verify(&answer.body).map(|()| (slice(), took.as_secs_f64() * 1e3))
                }
                Err(http1::Broken { what, .. }) => Err(what),
            });
            sleep(Duration::from_millis(rng.u64(15..25))).await;
        }
    }
    came
}

/// A byte a second, until the gateway has enough of it.
async fn besiege(to: SocketAddr) {
    let Ok(mut stream) = TcpStream::connect(to).await else { return };
    let head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: slow\r\nX-Slow: ";
    let mut sent = stream.write_all(head).await;
    let mut answer = [0; 256];
    while sent.is_ok() {
        tokio::select! {
            read = stream.read(&mut answer) => if !matches!(read, Ok(1..)) { return },
            () = sleep(Duration::from_secs(1)) => sent = stream.write_all(b"y").await,
        }
    }
}

impl Minutes {
    /// Through the gateway, and directly: in each slice, and of those the median. What a neighbour does on the machine for
    /// a moment is in few slices, what slow clients do is in all.
    pub(crate) fn quantiles(&self, share: f64) -> (f64, f64) {
        (typical(&self.through, share), typical(&self.direct, share))
    }

    /// What the gateway adds.
    pub(crate) fn added(&self, share: f64) -> f64 {
        let (through, direct) = self.quantiles(share);
        through - direct
    }

    pub(crate) fn requests(&self) -> usize {
        self.through.len()
    }
}

fn typical(samples: &[Sample], share: f64) -> f64 {
    let mut slices: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    samples.iter().for_each(|(slice, time)| slices.entry(*slice).or_default().push(*time));
    quantile(slices.into_values().map(|times| quantile(times, share)).collect(), 0.5)
}

fn quantile(mut times: Vec<f64>, share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = (times.len() as f64 * share) as usize;
    times.get(at.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Now, in slices since 1970.
fn slice() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() / SLICE
}

/// In seconds.
pub(crate) const SLICE: u64 = 5;
const CLIENTS: usize = 12;
const SLOW_PER_SECOND: u32 = 20;
