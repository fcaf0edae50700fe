//! Clients that want their answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::http1::{self, Connection};
use super::http2::{Failure, Shared};
use super::tally::Kind;
use super::world::World;

/// One short request after another, one in `every`, over a connection that is kept for a while. Nothing is tried again.
pub(crate) async fn short(world: Arc<World>, client: usize, every: Duration) {
    let mut rng = world.rng(client);
    let mut connection: Option<Connection> = None;
    let mut due = Instant::now() + every.mul_f64(rng.f64());
    while !world.over() {
        tokio::time::sleep_until(due.into()).await;
        due = next(due, every);
        let keyless = rng.u8(..5) == 0;
        let session = (!keyless).then(|| world.session(&mut rng));
        let ask = world.book.ask(&mut rng, false, 1);
        let stranger = rng.u8(..50) == 0;
        let key = if stranger { NOBODYS_KEY } else { world.keys.of(client) };
        let request = http1::post(session.as_deref(), Some(key), &ask.body, rng.u8(..10) == 0);
        let begun = Instant::now();
        let mut came = match connection.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(world.address, world.from(&mut rng)).await,
        };
        let answer = match &mut came {
            Ok(connection) => connection.exchange(&request).await,
            Err(broken) => Err(http1::Broken::early(std::mem::take(&mut broken.what))),
        };
        world.tally.lock().latency.note(begun.elapsed());
        // Now and then it goes on with another connection.
        let keeps = answer.as_ref().is_ok_and(|answer| !answer.close) && rng.u8(..100) != 0;
        connection = came.ok().filter(|_| keeps);
        match stranger {
            true => world.note_stranger(answer),
            false => {
                world.note(if keyless { Kind::Keyless } else { Kind::Short }, session.as_deref(), &ask, begun, answer)
            }
        }
    }
}

/// The same over HTTP/2.
pub(crate) async fn short_http2(world: Arc<World>, shared: Arc<Shared>, client: usize, every: Duration) {
    let mut rng = world.rng(client);
    let mut due = Instant::now() + every.mul_f64(rng.f64());
    while !world.over() {
        tokio::time::sleep_until(due.into()).await;
        due = next(due, every);
        let session = (rng.u8(..5) != 0).then(|| world.session(&mut rng));
        let ask = world.book.ask(&mut rng, false, 1);
        exchange_http2(&world, &shared, Kind::Http2Short, session.as_deref(), &ask).await;
    }
}

/// One stream after another, each over a connection of its own or one that is kept.
pub(crate) async fn stream(world: Arc<World>, client: usize) {
    let mut rng = world.rng(client);
    let mut connection: Option<Connection> = None;
    while !world.over() {
        let session = world.session(&mut rng);
        let tokens = rng.usize(20..LONGEST);
        let ask = world.book.ask(&mut rng, true, tokens);
        let request = http1::post(Some(&session), Some(world.keys.of(client)), &ask.body, false);
        let begun = Instant::now();
        let opened = match connection.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(world.address, world.from(&mut rng)).await,
        };
        let (kept, answer) = match opened {
            Ok(mut connection) => {
                let answer = connection.exchange(&request).await;
                (answer.as_ref().is_ok_and(|answer| !answer.close).then_some(connection), answer)
            }
            Err(broken) => (None, Err(broken)),
        };
        connection = kept.filter(|_| rng.bool());
        let failed = answer.is_err();
        world.note(Kind::Stream, Some(&session), &ask, begun, answer);
        if failed {
            pause().await;
        }
    }
}

/// The same over HTTP/2.
pub(crate) async fn stream_http2(world: Arc<World>, shared: Arc<Shared>, client: usize) {
    let mut rng = world.rng(client);
    while !world.over() {
        let session = world.session(&mut rng);
        let tokens = rng.usize(20..LONGEST);
        let ask = world.book.ask(&mut rng, true, tokens);
        if !exchange_http2(&world, &shared, Kind::Http2Stream, Some(&session), &ask).await {
            pause().await;
        }
    }
}

/// Sent again only if the gateway said that it had not begun with it. Whether there is an answer.
async fn exchange_http2(
    world: &World,
    shared: &Shared,
    kind: Kind,
    session: Option<&str>,
    ask: &super::asks::Ask,
) -> bool {
    for _ in 0..TRIES {
        let begun = Instant::now();
        let answer = match shared.exchange(session, &ask.body).await {
            Ok(answer) => Ok(answer),
            Err(Failure::Broken(broken)) => Err(broken),
            Err(Failure::NotTaken) => {
                world.tally.lock().not_taken += 1;
                continue;
            }
        };
        if kind == Kind::Http2Short {
            world.tally.lock().latency.note(begun.elapsed());
        }
        let answered = answer.is_ok();
        world.note(kind, session, ask, begun, answer);
        return answered;
    }
    world.tally.lock().fail(format!("{kind:?}: not taken {TRIES} times in a row"));
    false
}

/// Who is late makes up for it, but not for long.
fn next(due: Instant, every: Duration) -> Instant {
    let most = Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or(due);
    (due + every).max(most)
}

/// After a failure, so that a gateway that is gone is not asked a million times.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Tokens of a stream; a backend makes fifty a second.
const LONGEST: usize = 300;
const TRIES: usize = 5;
const NOBODYS_KEY: &str = "ik-00000000000000000000000000000000";
