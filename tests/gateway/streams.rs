//! Bytes and timing of responses pass as they are.

use crate::client::Req;
use crate::h2c::H2c;
use crate::harness::{PATIENCE, Setup, noise};
use crate::scripted::{Gate, Scripted, Step, answer, chunk, event_head, stream_head};

/// Chunks of every size from 1 byte to 20 KB.
fn pieces() -> Vec<Vec<u8>> {
    let all = noise(400_000);
    let mut rest = &all[..];
    let mut pieces = Vec::new();
    for size in [1, 1, 2, 3, 17, 100, 1459, 1460, 1461, 4096, 16_384, 20_000].into_iter().cycle() {
        let (piece, after) = rest.split_at(usize::min(size, rest.len()));
        pieces.push(piece.to_vec());
        rest = after;
        if rest.is_empty() {
            return pieces;
        }
    }
    unreachable!("the sizes have no end")
}

async fn streaming() -> Scripted {
    Scripted::start(|_| {
        let mut steps = vec![Step::Send(stream_head())];
        steps.extend(pieces().iter().map(|piece| Step::Send(chunk(piece))));
        steps.push(Step::Send(chunk(b"")));
        steps
    })
    .await
}

#[tokio::test]
async fn a_stream_is_byte_identical() {
    let a = streaming().await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        let answer = client.send(&Req::post("/v1/chat/completions", b"{}").session("s")).await;
        assert!(answer.whole && answer.body == pieces().concat());
        assert_eq!(answer.header("Content-Type"), Some("application/x-ndjson"));
    }
    let answer = H2c::connect(gateway.address).await.send(&Req::post("/", b"{}"), true).await;
    assert!(*answer.body() == pieces().concat());
    gateway.until_idle().await;
}

/// The backend sends a chunk only after the client has the one before: a gateway that holds anything back hangs here.
#[tokio::test]
async fn no_chunk_waits_for_the_next() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |_| {
        let mut steps = vec![Step::Send(event_head())];
        steps.extend(
            (0..50).flat_map(|i| [Step::Send(chunk(format!("data: {i}\n\n").as_bytes())), Step::Wait(held.clone())]),
        );
        steps.push(Step::Send(chunk(b"")));
        steps
    })
    .await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let mut client = gateway.client().await;
    client.write(&Req::post("/", b"{}").bytes()).await;
    client.head().await;
    for i in 0..50 {
        assert_eq!(client.chunk().await.unwrap(), format!("data: {i}\n\n").as_bytes());
        gate.open();
    }
    assert_eq!(client.chunk().await.unwrap(), b"");

    let http2 = H2c::connect(gateway.address).await;
    let mut stream = http2.begin(&Req::post("/", b"{}")).await.into_body();
    for i in 0..50 {
        let piece = tokio::time::timeout(PATIENCE, stream.data()).await.expect("a chunk").unwrap().unwrap();
        assert_eq!(piece, format!("data: {i}\n\n").as_bytes());
        stream.flow_control().release_capacity(piece.len()).unwrap();
        gate.open();
    }
}

#[tokio::test]
async fn a_head_does_not_wait_for_its_body() {
    let gate = Gate::new();
    let held = gate.clone();
    let steps = move || vec![Step::Send(stream_head()), Step::Wait(held.clone()), Step::Send(chunk(b""))];
    let a = Scripted::start(move |_| steps()).await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let mut client = gateway.client().await;
    client.write(&Req::post("/", b"{}").bytes()).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "), "vLLM sends it before the prefill");
    gate.open();
    assert_eq!(client.chunk().await.unwrap(), b"");
}

#[tokio::test]
async fn a_large_download_is_byte_identical() {
    let a = Scripted::start(|_| vec![Step::Send(answer(200, "", &noise(20_000_000)))]).await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let answer = gateway.send(&Req::get("/model.gguf")).await;
    assert_eq!(answer.header("Content-Length"), Some("20000000"));
    assert!(answer.whole && answer.body == noise(20_000_000));
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_passes_whole() {
    let steps = || vec![Step::Send(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()), Step::Send(noise(100_000)), Step::Close];
    let a = Scripted::start(move |_| steps()).await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let answer = gateway.send(&Req::get("/")).await;
    assert!(answer.whole && answer.body == noise(100_000));
    assert_eq!(gateway.state("a"), "healthy");
}

#[tokio::test]
async fn nothing_is_compressed_or_altered() {
    let headers =
        "Content-Type: text/plain\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: vLLM\r\nX-Odd: \t x  y \r\n";
    let a = Scripted::start(move |_| vec![Step::Send(answer(200, headers, &[b'x'; 50_000]))]).await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let answer = gateway.send(&Req::get("/").header("Accept-Encoding", "gzip, br, zstd")).await;
    assert_eq!((answer.header("Content-Encoding"), answer.header("Vary")), (None, None));
    assert_eq!(answer.body, [b'x'; 50_000]);
    assert_eq!((answer.header("Server"), answer.header("X-Odd")), (Some("vLLM"), Some("x  y")));
    assert!(answer.head.contains("Set-Cookie: a=1\r\n") && answer.head.contains("Set-Cookie: b=2\r\n"));
}

#[tokio::test]
async fn a_broken_chunk_ends_the_stream_for_the_client_too() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |_| {
        let first = [stream_head(), chunk(b"1")].concat();
        vec![Step::Send(first), Step::Wait(held.clone()), Step::Send(b"zz\r\n".to_vec()), Step::Hang]
    })
    .await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let mut client = gateway.client().await;
    client.write(&Req::get("/").bytes()).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(client.chunk().await.unwrap(), b"1");
    gate.open();
    assert_eq!(client.rest().await, "", "neither the broken chunk nor a last one");
    gateway.until_idle().await;
}

#[tokio::test]
async fn a_body_that_is_broken_from_the_start_is_no_response() {
    let broken = || vec![Step::Send([stream_head(), b"zz\r\n".to_vec()].concat()), Step::Hang];
    let (a, b) = (Scripted::start(move |_| broken()).await, Scripted::ok("b").await);
    let gateway = Setup::new().one_probe().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let session = gateway.session_of("a");
    assert_eq!(gateway.send(&Req::post("/", b"{}").session(&session)).await.outcome(), "b failover 200");
    let last_error = gateway.backend("a").await["last_error"].clone();
    assert_eq!(last_error, "before the first byte: malformed response: invalid chunk size");
}
