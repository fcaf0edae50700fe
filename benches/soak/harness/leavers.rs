//! Clients that leave, at every stage of a request.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::http1::{self, Broken, Connection};
use super::http2::{self, Failure, Shared};
use super::tally::Kind;
use super::world::World;

/// When a client leaves.
#[derive(Clone, Copy)]
enum Stage {
    Connected,
    InHead,
    InBody,
    Sent,
    AnswerBegun,
    InStream,
    /// By a reset of the stream alone.
    Http2Waiting,
    Http2InStream,
    /// The connection goes, with all of its streams.
    Http2Connection,
}

impl Stage {
    const ALL: [Stage; 9] = [
        Stage::Connected,
        Stage::InHead,
        Stage::InBody,
        Stage::Sent,
        Stage::AnswerBegun,
        Stage::InStream,
        Stage::Http2Waiting,
        Stage::Http2InStream,
        Stage::Http2Connection,
    ];

    fn title(self) -> &'static str {
        match self {
            Stage::Connected => "connected, not a byte sent",
            Stage::InHead => "in the middle of the head",
            Stage::InBody => "in the middle of the body",
            Stage::Sent => "all sent, nothing read",
            Stage::AnswerBegun => "after the answer's head",
            Stage::InStream => "in the middle of a stream",
            Stage::Http2Waiting => "HTTP/2: reset before the answer",
            Stage::Http2InStream => "HTTP/2: reset in the middle of a stream",
            Stage::Http2Connection => "HTTP/2: connection closed under a stream",
        }
    }
}

/// Leaves again and again, one in `every`.
pub(crate) async fn leave(world: Arc<World>, client: usize, every: Duration) {
    let mut rng = world.rng(client);
    let key = world.keys.of(client);
    let mut shared = Shared::new(world.address, key);
    while !world.over() {
        tokio::time::sleep(every.mul_f64(0.5 + rng.f64())).await;
        let stage = Stage::ALL[rng.usize(..Stage::ALL.len())];
        let session = world.session(&mut rng);
        let body = world.book.ask(&mut rng, true, 200).body;
        let begun = Instant::now();
        let left = match stage {
            Stage::Http2Waiting | Stage::Http2InStream | Stage::Http2Connection => {
                let left = leave_http2(&shared, stage, &session, &body).await;
                // Who gives up nearly every stream loses the connection; these clients come as somebody else each time.
                shared = Shared::new(world.address, key);
                left
            }
            _ => leave_http1(&world, stage, &http1::post(Some(&session), Some(key), &body, false), rng.bool()).await,
        };
        match left {
            Ok(()) => world.tally.lock().left(stage.title()),
            Err(broken) => match world.explains(&broken, begun) {
                Some(why) => *world.tally.lock().explained.entry(why).or_default() += 1,
                None => world.tally.lock().fail(format!("{:?}, {}: {broken:?}", Kind::Leaver, stage.title())),
            },
        }
    }
}

/// With a FIN, or with a reset.
async fn leave_http1(world: &World, stage: Stage, request: &[u8], reset: bool) -> Result<(), Broken> {
    let mut connection = Connection::open(world.address, Ipv4Addr::LOCALHOST).await?;
    let sent = match stage {
        Stage::Connected => 0,
        Stage::InHead => 60,
        Stage::InBody => request.len() - 100,
        _ => request.len(),
    };
    connection.send(&request[..sent]).await?;
    if let Stage::AnswerBegun | Stage::InStream = stage {
        let head = connection.head().await?;
        if head.status != 200 {
            return Err(Broken::early(format!("{} from {:?}", head.status, head.backend)));
        }
        let chunks = if let Stage::InStream = stage { 20 } else { 0 };
        let mut body = Vec::new();
        for _ in 0..chunks {
            let chunk = connection.chunk().await.map_err(|what| head.broken(&body, what))?;
            body.extend_from_slice(&chunk.unwrap_or_default());
        }
    }
    if reset {
        // If it fails the client leaves with a FIN.
        let _ = connection.stream.set_zero_linger();
    }
    Ok(())
}

async fn leave_http2(shared: &Shared, stage: Stage, session: &str, body: &bytes::Bytes) -> Result<(), Broken> {
    let connection = shared.connection().await?;
    let begin = connection.begin(Some(session), body);
    let outcome = match stage {
        Stage::Http2Waiting => match tokio::time::timeout(Duration::from_millis(2), begin).await {
            Ok(begun) => begun.map(drop),
            Err(_) => Ok(()),
        },
        _ => match begin.await {
            Ok(response) => {
                let (parts, mut stream) = response.into_parts();
                let first = stream.data().await.transpose();
                // Not before the connection's end in the one case, so that its streams end with it.
                if let Stage::Http2Connection = stage {
                    shared.give_up(&connection).await;
                    drop(connection);
                }
                first.map(drop).map_err(|error| Failure::Broken(http2::broken(&parts.headers, b"", &error)))
            }
            Err(failure) => Err(failure),
        },
    };
    match outcome {
        // It has left in any case.
        Ok(()) | Err(Failure::NotTaken) => Ok(()),
        Err(Failure::Broken(broken)) => Err(broken),
    }
}
