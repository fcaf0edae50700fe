//! Clients that leave, vanish, stop reading, or take their time: nobody else notices, and nothing is left behind.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::asked::{Asked, Kind};
use crate::backend::Backend;
use crate::cable::{Cable, FRONT};
use crate::cases::End;
use crate::hostile::exchange;
use crate::scenario::{Play, Played, Scenario, scenario};
use crate::stage::{Stage, setup};

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("leave", "20 clients close their connection in the middle of a stream", leave),
        scenario("half_close", "20 clients close their half of the connection after the request", half_close),
        scenario("vanish", "a client that streams loses its network: no FIN; `idle` is 2 s", vanish),
        scenario("slow_reader", "10 clients ask for 100 MiB each and read nothing; `idle` is 1 s", slow_reader),
        scenario("slowloris", "100 clients send their heads one byte in 50 ms; `header_timeout` is 1 s", slowloris),
    ]
}

/// A stream that goes on for longer than any scenario.
fn endless(number: usize) -> Vec<u8> {
    let (id, kind) = (format!("endless-{number}"), Kind::Stream { pieces: 100_000, pause: 5 });
    Asked { id, kind, session: None, padding: 0, chunked: false }.request().bytes()
}

async fn begin(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

async fn leave(play: Play) -> Played {
    let mut stage = Stage::start(play, |setup| setup).await;
    stage.faulty(&[]);
    for round in 0..stage.play.times(1) {
        let mut streams = Vec::new();
        for number in 0..20 {
            let mut stream = begin(stage.process.address, &endless(100 * round + number)).await;
            stream.read_exact(&mut [0; 500]).await.unwrap();
            streams.push(stream);
        }
        stage.traffic.turns(1).await;
        drop(streams);
        stage.traffic.turns(2).await;
    }
    let aborts = stage.metric("ingle_client_aborts_total", &[("phase", "streaming")]).await;
    stage.note(format!("{aborts} streams were given up with their clients"));
    stage.must(aborts == 20.0 * stage.play.times(1) as f64, "some were not");
    stage.finish().await
}

async fn half_close(play: Play) -> Played {
    let mut stage = Stage::start(play, |setup| setup).await;
    stage.faulty(&[]);
    let mut answered = 0;
    for number in 0..20 {
        let bytes = format!("GET /short/half-{number} HTTP/1.1\r\nHost: a\r\n\r\n");
        match exchange(stage.process.address, bytes.as_bytes(), End::HalfCloses, 1).await {
            Ok(answers) => answered += answers.len(),
            Err(why) => stage.problem(why),
        }
    }
    stage.traffic.turns(stage.play.times(2)).await;
    // One that half-closes has said that it goes: it is served if that is quicker than the news.
    stage.note(format!("{answered} of them were answered, the others taken for gone"));
    stage.finish().await
}

async fn vanish(play: Play) -> Played {
    let cable = match Cable::plug() {
        Ok(cable) => cable,
        Err(why) => return Played::skipped(why),
    };
    let backends: Vec<Backend> = ["gpu0", "gpu1", "gpu2"].map(Backend::start).into();
    let setup = setup().listeners(&[format!("{FRONT}:0").parse().unwrap()]).pool("timeouts: { idle: 2s }");
    let setup = backends
        .iter()
        .fold(setup, |setup, backend| setup.backend(backend.name(), &format!("http://{}", backend.address)));
    let mut stage = Stage::of(play, backends, &setup.yaml()).await;
    stage.faulty(&[]);
    let address = stage.process.address;
    // Its connection is of the back network, wherever it is used.
    let client = cable.in_back(move |_| std::net::TcpStream::connect(address).unwrap());
    client.set_nonblocking(true).unwrap();
    let mut client = TcpStream::from_std(client).unwrap();
    let (id, kind) = ("vanishing".to_owned(), Kind::Stream { pieces: 100_000, pause: 0 });
    client.write_all(&Asked { id, kind, session: None, padding: 0, chunked: false }.request().bytes()).await.unwrap();
    client.read_exact(&mut [0; 500]).await.unwrap();
    cable.cut();
    let begun = Instant::now();
    stage.traffic.turns(2).await;
    // The others ask for 50 ms at most, so what is left when they are done is its.
    let all = stage.traffic.stop().await;
    while stage.metric("ingle_in_flight_requests", &[]).await > 0.0 && begun.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stage.note(format!("its stream was given up {:.1} s after it vanished", begun.elapsed().as_secs_f64()));
    let mut played = stage.finish().await;
    played.tally = crate::tally::tally(&all, &[], &[], &[]);
    played
}

async fn slow_reader(play: Play) -> Played {
    let mut stage = Stage::start(play, |setup| setup.pool("timeouts: { idle: 1s }")).await;
    stage.faulty(&[]);
    let mut streams = Vec::new();
    for number in 0..10 {
        let asked =
            Asked { id: format!("slow-{number}"), kind: Kind::Large(100), session: None, padding: 0, chunked: false };
        streams.push(begin(stage.process.address, &asked.request().bytes()).await);
    }
    let begun = Instant::now();
    while stage.metric("ingle_client_aborts_total", &[]).await < 10.0 && begun.elapsed() < Duration::from_secs(15) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let cut = stage.metric("ingle_client_aborts_total", &[]).await;
    stage.must(cut == 10.0, "some were not cut");
    stage.note(format!("{cut} were cut within {:.1} s", begun.elapsed().as_secs_f64()));
    stage.traffic.turns(stage.play.times(2)).await;
    drop(streams);
    stage.finish().await
}

async fn slowloris(play: Play) -> Played {
    let mut stage = Stage::start(play, |setup| setup.top("limits: { header_timeout: 1s }")).await;
    stage.faulty(&[]);
    let mut slow = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..100 * stage.play.times(1) {
        let address = stage.process.address;
        slow.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = b"GET /slow HTTP/1.1\r\nHost: a\r\nX-Header: ".iter().chain(b"x".iter().cycle());
            for byte in head {
                tokio::time::sleep(Duration::from_millis(50)).await;
                // A write says that it is over only after the one that met it.
                if stream.write_all(&[*byte]).await.is_err() || matches!(stream.try_read(&mut [0; 100]), Ok(0)) {
                    break;
                }
            }
        });
    }
    stage.traffic.turns(3).await;
    let count = slow.len();
    while slow.join_next().await.is_some() {}
    stage.note(format!("{count} were closed within {:.1} s", begun.elapsed().as_secs_f64()));
    stage.traffic.turns(stage.play.times(2)).await;
    stage.finish().await
}
