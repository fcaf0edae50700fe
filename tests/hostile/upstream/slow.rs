//! Clients that do not read, and backends that do not stop.

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::client::{Client, Kind};
use super::origin::{CASE, until_still};
use super::script::{PIECE, Step, answer, counted, head};
use super::stage::Stage;
use crate::cases::PATIENCE;
use crate::fuzz::{MEMORY, resident_kib};
use crate::reader::{self, End};

/// The bodies of long answers: the lines that frame them, and whether they are in chunks.
const FRAMINGS: [(&str, bool); 3] =
    [("Transfer-Encoding: chunked", true), ("Content-Length: 999999999999999999", false), ("X: y", false)];

/// A connection with a small buffer, on which a request was sent.
async fn request(stage: &Stage, version: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut stream = socket.connect(stage.address).await.unwrap();
    stream.write_all(format!("GET {CASE} {version}\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

/// Waits until the backend can send no more.
async fn until_held_up(stage: &Stage) {
    timeout(PATIENCE, until_still(|| stage.origin.written())).await.expect("the backend sends without end");
    assert!(stage.origin.has_steps(), "all of it fits into buffers");
}

fn flood((lines, is_chunked): (&str, bool)) -> [Step; 2] {
    let piece = vec![b'x'; PIECE];
    let piece = if is_chunked { [&b"4000\r\n"[..], &piece, b"\r\n"].concat() } else { piece };
    [Step::Send(head(lines)), Step::Flood(piece)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_to_silent_clients_takes_little_memory() {
    let _alone = MEMORY.lock().await;
    let stage = Stage::with("idle: 1m").await;
    for framing in FRAMINGS {
        for kind in [Kind::Http11, Kind::Http10, Kind::H2c] {
            stage.origin.set(&flood(framing));
            let before = resident_kib();
            let (mut silent, mut streams) = (Vec::new(), Vec::new());
            match (kind, &mut Client::connect(stage.address, kind).await) {
                (_, Client::H2c { requests, .. }) => {
                    for _ in 0..CLIENTS {
                        let mut requests = requests.clone().ready().await.unwrap();
                        let request = Request::get(format!("http://a{CASE}")).body(()).unwrap();
                        let response = requests.send_request(request, true).unwrap().0;
                        streams.push(timeout(PATIENCE, response).await.expect("a head").unwrap());
                    }
                    until_held_up(&stage).await;
                }
                (_, Client::Http1 { version, .. }) => {
                    for _ in 0..CLIENTS {
                        silent.push(request(&stage, version).await);
                    }
                    until_held_up(&stage).await;
                }
            }
            let (grown, written) = (resident_kib().saturating_sub(before), stage.origin.written());
            println!("{:<40} {kind:?}: memory grew by {grown} KiB while {written} bytes came", framing.0);
            assert!(grown <= CLIENTS * MOST_KIB, "{framing:?}, {kind:?}: memory grew by {grown} KiB");
            drop((silent, streams));
            stage.until_empty().await.unwrap();
            timeout(PATIENCE, stage.origin.until_done()).await.expect("the backend is left");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_client_is_cut() {
    let stage = Stage::with("idle: 300ms").await;
    for framing in FRAMINGS {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            stage.origin.set(&flood(framing));
            let client = request(&stage, version).await;
            stage.until_empty().await.unwrap();
            timeout(PATIENCE, stage.origin.until_done()).await.expect("the backend is left");
            drop(client);
        }
        stage.origin.set(&flood(framing));
        let mut client = Client::connect(stage.address, Kind::H2c).await;
        let Client::H2c { requests, .. } = &mut client else { unreachable!("it speaks HTTP/2") };
        let request = Request::get(format!("http://a{CASE}")).body(()).unwrap();
        let response = requests.send_request(request, true).unwrap().0.await.unwrap();
        stage.until_quiet().await.unwrap();
        timeout(PATIENCE, stage.origin.until_done()).await.expect("the backend is left");
        drop((response, client));
        stage.until_empty().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_flood_ends_at_the_deadline() {
    let stage = Stage::with("first_byte: 500ms").await;
    for kind in [Kind::Http11, Kind::Http10, Kind::H2c] {
        stage.origin.set(&[Step::Flood(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000))]);
        let mut client = Client::connect(stage.address, kind).await;
        let asked = timeout(PATIENCE, client.ask("GET", CASE, |_| ())).await;
        let outcome = asked.expect("the gateway hangs").unwrap();
        println!(
            "{kind:?}: {outcome} after {} interim responses, {} bytes came",
            outcome.interim.len(),
            stage.origin.written()
        );
        // A deadline that comes while an interim response is being written leaves no room for an answer.
        let is_cut = kind == Kind::Http11 && outcome.status.is_none();
        assert!(is_cut || outcome.status == Some(504) && outcome.is_whole, "{kind:?}: {outcome}");
        drop(client);
        stage.until_empty().await.unwrap();
        timeout(PATIENCE, stage.origin.until_done()).await.expect("the backend is left");
    }
}

/// What a client gets that stops reading until the backend is held up. Its small buffer holds it up again and again.
async fn late(stage: &Stage, kind: Kind) -> Vec<u8> {
    let mut payload = Vec::new();
    if kind == Kind::H2c {
        let mut client = Client::connect(stage.address, kind).await;
        let Client::H2c { requests, .. } = &mut client else { unreachable!("it speaks HTTP/2") };
        let request = Request::get(format!("http://a{CASE}")).body(()).unwrap();
        let mut body = requests.send_request(request, true).unwrap().0.await.unwrap().into_body();
        until_held_up(stage).await;
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            payload.extend_from_slice(&piece);
        }
        return payload;
    }
    let mut stream = request(stage, if kind == Kind::Http10 { "HTTP/1.0" } else { "HTTP/1.1" }).await;
    until_held_up(stage).await;
    let (mut seen, mut room) = (Vec::new(), vec![0; 256 << 10]);
    loop {
        match stream.read(&mut room).await.unwrap() {
            0 => break,
            read => seen.extend_from_slice(&room[..read]),
        }
    }
    let reading = reader::read(&seen, false);
    assert!(
        matches!(reading.end, End::At(end) if end == seen.len()) || reading.end == End::AtClose,
        "{:?}",
        reading.end
    );
    reading.payload
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payload_is_exact_after_a_stop() {
    let _alone = MEMORY.lock().await;
    let stage = Stage::with("idle: 1m").await;
    let (all, length) = (counted(0, LONG), format!("Content-Length: {LONG}"));
    for (lines, is_chunked) in [("Transfer-Encoding: chunked", true), (&*length, false), ("X: y", false)] {
        for kind in [Kind::Http11, Kind::Http10, Kind::H2c] {
            stage.origin.set(&[Step::Send(answer(lines, "")), Step::Count(LONG, is_chunked), Step::Close]);
            let asked = async {
                let payload = late(&stage, kind).await;
                assert!(payload == all, "{lines}, {kind:?}: {} bytes", payload.len());
            };
            timeout(PATIENCE, asked).await.expect("the gateway hangs");
            stage.until_empty().await.unwrap();
        }
    }
}

/// Silent clients at once.
const CLIENTS: usize = 24;
/// What each of them can hold: a read of 64 KiB, as much in HTTP/2's queue, and its connections.
const MOST_KIB: usize = 256;
/// More than the buffers of the two connections hold.
const LONG: usize = 16 << 20;
