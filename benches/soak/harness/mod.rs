//! Hours of everything at once: mixed requests, clients that leave, and an operator who changes things, against the real
//! binary. What it holds is measured all the while.
//!
//! | file | what |
//! |---|---|
//! | `options`, `phases` | how much, and when what happens |
//! | `world`, `asks`, `tally` | what is asked, what must be answered, what came of it |
//! | `clients`, `leavers`, `prefills`, `http1`, `http2` | the clients and their protocols |
//! | `operator`, `config`, `keys` | reloads, upgrades, kills, restarts |
//! | `gateway`, `backends`, `process`, `log` | the processes, and what they hold and say |
//! | `samples`, `rest`, `verdict` | the series, what is left at the end, whether it grows |
//! | `report`, `document` | the tables |

pub(crate) mod asks;
pub(crate) mod backends;
mod clients;
mod config;
pub(crate) mod document;
pub(crate) mod gateway;
pub(crate) mod http1;
pub(crate) mod http2;
mod keys;
mod leavers;
pub(crate) mod log;
mod operator;
pub(crate) mod options;
mod phases;
mod prefills;
pub(crate) mod process;
pub(crate) mod report;
mod rest;
mod samples;
pub(crate) mod tally;
mod verdict;
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use backends::{Backend, Pace};
use gateway::Gateway;
use http2::Shared;
use keys::Keys;
use operator::Operator;
use options::Options;
use phases::Phases;
use report::Report;
use rest::Rest;
use samples::Series;
use world::World;

/// Everything, from the first process to the last.
///
/// # Errors
/// When it could not even begin. What went wrong in it is in the report.
pub(crate) async fn soak(options: &Options) -> Result<Report, String> {
    process::raise_file_limit();
    let backends: Vec<_> =
        BACKENDS.iter().map(|(name, server)| Backend::start(name, server, PACE)).collect::<Result<_, _>>()?;
    let keys = Keys::make()?;
    let gateway = Arc::new(Gateway::start(&config::first(&backends, &keys)).await?);
    let world = Arc::new(World::new(gateway.address, backends, keys, options.seed));
    for backend in &world.backends[..config::ALWAYS] {
        gateway
            .until("backends are healthy", async || Ok(gateway.backend(backend.name).await?["state"] == "healthy"))
            .await?;
    }
    let before = Rest::of(&gateway).await?;
    let (mut clients, phases) = (JoinSet::new(), Phases::new(options));
    begin(&world, &mut clients, options);
    let operator = Operator::new(Arc::clone(&world), Arc::clone(&gateway));
    let sampling = async {
        let mut series = Series::default();
        while Instant::now() < phases.end {
            tokio::time::sleep_until((phases.begun + options.sample * series.next()).into()).await;
            series.take(&gateway, &world, &phases);
        }
        world.end();
        series
    };
    let (series, ()) = tokio::join!(sampling, operator.work(phases.upgrades.clone(), options.pause));
    while let Some(client) = clients.join_next().await {
        if let Err(panicked) = client {
            world.tally.lock().fail(format!("a client: {panicked}"));
        }
    }
    let seconds = phases.begun.elapsed().as_secs_f64();
    let end = async {
        gateway.until_former_ended().await?;
        let after = Rest::of(&gateway).await?;
        Ok((after, gateway.stop().await?))
    };
    let end = end.await;
    let tally = world.tally.lock().clone();
    let done = operator.done.lock().clone();
    let complaints = gateway.log.complaints();
    Ok(Report { options: options.clone(), seconds, series, tally, done, complaints, before, end })
}

/// Lets all clients begin.
fn begin(world: &Arc<World>, clients: &mut JoinSet<()>, options: &Options) {
    let every = |clients: usize, rate: f64| Duration::from_secs_f64(clients as f64 / rate);
    let shared: Vec<_> =
        (0..HTTP2_CONNECTIONS).map(|i| Arc::new(Shared::new(world.address, world.keys.of(i)))).collect();
    let mut numbers = 0..;
    let mut number = || numbers.next().unwrap_or_default();
    for _ in 0..SHORT {
        clients.spawn(clients::short(Arc::clone(world), number(), every(SHORT, options.rate * 0.75)));
    }
    for i in 0..HTTP2_SHORT {
        let shared = Arc::clone(&shared[i % HTTP2_CONNECTIONS]);
        let every = every(HTTP2_SHORT, options.rate * 0.25);
        clients.spawn(clients::short_http2(Arc::clone(world), shared, number(), every));
    }
    for i in 0..options.streams {
        match i % 3 {
            0 => {
                let shared = Arc::clone(&shared[i % HTTP2_CONNECTIONS]);
                clients.spawn(clients::stream_http2(Arc::clone(world), shared, number()));
            }
            _ => drop(clients.spawn(clients::stream(Arc::clone(world), number()))),
        }
    }
    for _ in 0..LEAVERS {
        clients.spawn(leavers::leave(Arc::clone(world), number(), every(LEAVERS, options.rate / 30.0)));
    }
}

/// Names, and which server each imitates.
const BACKENDS: [(&str, &str); 5] =
    [("a", "llama_server"), ("b", "vllm"), ("c", "llama_server"), ("d", "vllm"), ("e", "llama_server")];
/// Prompts are cached, except after a kill and in `prefills`.
const PACE: Pace = Pace { prefill: "100000", decode: "50", pings: "100ms" };
/// Clients of each kind.
const SHORT: usize = 48;
const HTTP2_SHORT: usize = 24;
const LEAVERS: usize = 12;
const HTTP2_CONNECTIONS: usize = 4;
