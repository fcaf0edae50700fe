//! Clients that take their time, and clients that vanish.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{PATIENCE, answers};
use crate::world::World;

/// Sends one byte at a time, with a pause after each, until the gateway has enough. Returns the statuses it sent.
async fn drip(to: SocketAddr, at_once: &[u8], dripped: &[u8]) -> Vec<u16> {
    let (mut from, mut into) = TcpStream::connect(to).await.unwrap().into_split();
    into.write_all(at_once).await.unwrap();
    let mut seen = Vec::new();
    let write = async {
        for byte in dripped.iter().cycle() {
            if into.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(PAUSE).await;
        }
        // The gateway has closed; what it said may still be on its way.
        std::future::pending::<()>().await;
    };
    let read = timeout(PATIENCE, from.read_to_end(&mut seen));
    tokio::select! {
        () = write => {}
        // A reset is a close, too.
        read = read => drop(read.expect("the gateway lets a slow client go on for ever")),
    }
    answers(&seen, false).unwrap().iter().map(|answer| answer.status).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_byte_by_byte_is_cut_off() {
    let world = World::start("300ms").await;
    let post = |headers: &str| format!("POST /slow HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
    for (name, at_once, dripped, expected) in [
        (
            "a head",
            String::new(),
            "GET /slow HTTP/1.1\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
            vec![],
        ),
        ("empty lines", String::new(), "\r\n", vec![]),
        ("headers without an end", "GET /slow HTTP/1.1\r\nHost: a\r\n".to_owned(), "X: y\r\n", vec![]),
        ("a body", post("Content-Length: 1000"), "b", vec![408]),
        ("a large body", post("Content-Length: 1000000"), "b", vec![408]),
        (
            "the body of an upgrade",
            post("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1000"),
            "b",
            vec![408],
        ),
        ("chunks", post("Transfer-Encoding: chunked"), "1\r\nb\r\n", vec![408]),
        ("a chunk size", post("Transfer-Encoding: chunked"), "0", vec![408]),
        ("a body after 100 Continue", post("Expect: 100-continue\r\nContent-Length: 1000"), "b", vec![408]),
        (
            "the next request on a kept connection",
            "GET /fast HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "\r\n",
            vec![200],
        ),
    ] {
        let statuses = drip(world.address, at_once.as_bytes(), dripped.as_bytes()).await;
        let (reached, unfinished) = world.aftermath().await.unwrap();
        println!("{name:<40} {statuses:?} {reached:?}");
        // Pingora refuses a size of too many digits before it is too slow; either ends it.
        let refused = name == "a chunk size" && statuses == [400];
        assert!(statuses == expected || refused, "{name}: {statuses:?}, expected {expected:?}");
        assert!(reached.iter().all(|request| request == "GET /fast") && !unfinished, "{name}: {reached:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_cut_off() {
    let world = World::start("300ms").await;
    let begun = Instant::now();
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    let read = timeout(PATIENCE, silent.read(&mut [0; 1])).await.expect("a silent connection is closed");
    assert!(matches!(read, Ok(0) | Err(_)), "without a word: {read:?}");
    assert!(begun.elapsed() >= Duration::from_millis(300), "but not before its time");
    assert_eq!(world.aftermath().await.unwrap(), (vec![], false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_vanishes_leaves_nothing_behind() {
    let world = World::start("30s").await;
    for (name, bytes) in [
        ("without a byte", ""),
        ("in a head", "POST /gone HTTP/1.1\r\nHost: a\r\nX-"),
        ("in a body", "POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf"),
        ("in a large body", "POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\nhalf"),
        ("in a chunk", "POST /gone HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n100\r\nhalf"),
        ("in an HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM"),
        ("after an HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ] {
        for reset in [false, true] {
            let mut clients = JoinSet::new();
            for _ in 0..200 {
                clients.spawn(vanish(world.address, bytes, reset));
            }
            clients.join_all().await;
            let (reached, unfinished) = world.aftermath().await.unwrap();
            assert_eq!((reached, unfinished), (vec![], false), "{name}, reset: {reset}");
        }
    }
}

/// Sends half a request; then closes, or resets the connection.
async fn vanish(to: SocketAddr, bytes: &str, reset: bool) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    if reset {
        stream.set_zero_linger().unwrap();
    }
}

/// Of a whole request that nobody waits for, nothing stays either, whether the backend got it or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_requests_of_vanished_clients_leave_nothing_behind() {
    let world = World::start("30s").await;
    for reset in [false, true] {
        let mut clients = JoinSet::new();
        for _ in 0..200 {
            clients.spawn(vanish(
                world.address,
                "POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
                reset,
            ));
        }
        clients.join_all().await;
        let (reached, _) = world.aftermath().await.unwrap();
        assert!(reached.len() <= 200 && reached.iter().all(|request| request == "POST /gone body"), "{reached:?}");
    }
}

/// A byte a second against a limit of thirty, scaled to a limit of 300 ms.
const PAUSE: Duration = Duration::from_millis(10);
