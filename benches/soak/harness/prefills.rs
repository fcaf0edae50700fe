//! Streams whose prompts no backend has cached, so that a kill or a freeze comes in the middle of their prefill.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::JoinSet;

use super::http1::{self, Connection};
use super::http2::{Failure, Shared};
use super::tally::Kind;
use super::world::World;

/// Streams that were sent to one backend.
pub(crate) struct Prefills(JoinSet<()>);

impl Prefills {
    /// Sends them in sessions that this backend served last, and waits until some of their prompts are being computed.
    pub(crate) async fn start(world: &Arc<World>, backend: &str, rng: &mut Rng) -> Prefills {
        let mut streams = JoinSet::new();
        let shared = Arc::new(Shared::new(world.address, world.keys.of(0)));
        for (number, session) in world.sessions_at(backend, STREAMS).into_iter().enumerate() {
            let (world, rng) = (Arc::clone(world), Rng::with_seed(rng.u64(..)));
            match number % 3 {
                0 => streams.spawn(stream_http2(world, Arc::clone(&shared), session, rng)),
                _ => streams.spawn(stream(world, session, rng)),
            };
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(20..LONGEST_WAIT))).await;
        Prefills(streams)
    }

    /// Waits until each of them has its answer.
    pub(crate) async fn end(mut self, world: &World) {
        while let Some(stream) = self.0.join_next().await {
            if let Err(panicked) = stream {
                world.tally.lock().fail(format!("a stream in its prefill: {panicked}"));
            }
        }
    }
}

async fn stream(world: Arc<World>, session: String, mut rng: Rng) {
    let ask = world.book.new_prompt(&mut rng, PROMPT, TOKENS);
    let request = http1::post(Some(&session), Some(world.keys.of(0)), &ask.body, false);
    let begun = Instant::now();
    let answer = match Connection::open(world.address, world.from(&mut rng)).await {
        Ok(mut connection) => connection.exchange(&request).await,
        Err(broken) => Err(broken),
    };
    world.note(Kind::Prefill, Some(&session), &ask, begun, answer);
}

async fn stream_http2(world: Arc<World>, shared: Arc<Shared>, session: String, mut rng: Rng) {
    let ask = world.book.new_prompt(&mut rng, PROMPT, TOKENS);
    let begun = Instant::now();
    let answer = match shared.exchange(Some(&session), &ask.body).await {
        Ok(answer) => Ok(answer),
        Err(Failure::Broken(broken)) => Err(broken),
        Err(Failure::NotTaken) => Err(http1::Broken::early("a new connection takes no request".to_owned())),
    };
    world.note(Kind::Prefill, Some(&session), &ask, begun, answer);
}

/// So many streams in one backend, which computes one prompt after the other.
const STREAMS: usize = 8;
/// Bytes of a prompt: 10,000 tokens, a tenth of a second of prefill.
const PROMPT: usize = 40_000;
/// Tokens of an answer.
const TOKENS: usize = 20;
/// Milliseconds until the kill at most: less than their prefills take.
const LONGEST_WAIT: u64 = 500;
