//! What the simulated backend costs: requests per second without waiting, memory per open stream.
//!
//! `cargo run --release -p ingle-sim --example capacity [STREAMS]`; needs a file limit of twice the streams.
#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::error::Error;
use std::time::{Duration, Instant};

use ingle_sim::load::{LoadConfig, LoadRun};
use ingle_sim::{SimConfig, SimServer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let streams = std::env::args().nth(1).map_or(Ok(5000), |text| text.parse())?;
    // First: memory that an earlier part has freed would be used again and not be seen.
    memory(streams).await?;
    for stream in [false, true] {
        rate(stream).await?;
    }
    all_complete(streams).await
}

/// Client and server share one thread: the server alone is about twice as fast.
async fn rate(stream: bool) -> Result<(), Box<dyn Error>> {
    let mut config = SimConfig::llama_server("gpu0").instant();
    config.keep_alive.close_after_stream = false;
    let server = SimServer::start(config).await?;
    let load = LoadConfig {
        keep_connections: true,
        sessions: 10_000,
        turns: 4,
        concurrency: 16,
        first_prompt_bytes: 400,
        turn_bytes: 100,
        max_tokens: 1,
        stream,
        ..LoadConfig::new([server.url()])
    };
    let report = LoadRun::start(load)?.finish().await;
    let rate = report.succeeded as f64 / report.wall;
    println!("time_scale 0, 1-token answers, stream {stream}: {rate:.0} requests/s with the load client on one thread");
    Ok(())
}

/// Streams that have sent their first token and wait for the second.
async fn memory(streams: usize) -> Result<(), Box<dyn Error>> {
    let config = SimConfig { slots: streams, decode_rate: 0.001, prefill_rate: 1e9, ..SimConfig::llama_server("gpu0") };
    let server = SimServer::start(config).await?;
    let body = format!(
        r#"{{"messages":[{{"role":"user","content":"{}"}}],"stream":true,"max_tokens":100}}"#,
        "x".repeat(4000)
    );
    let request =
        format!("POST /v1/chat/completions HTTP/1.1\r\nHost: sim\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let before = resident()?;
    let mut clients = Vec::with_capacity(streams);
    for _ in 0..streams {
        let mut client = TcpStream::connect(server.address()).await?;
        client.write_all(request.as_bytes()).await?;
        clients.push(client);
    }
    let all = |stats: &ingle_sim::Stats| stats.processing == streams;
    server.wait_for(Duration::from_secs(60), all).await.map_err(|stats| format!("{stats:?}"))?;
    let bytes = resident()?.saturating_sub(before);
    println!(
        "{streams} open streams: {:.1} KB each, their client sockets included",
        bytes as f64 / 1e3 / streams as f64
    );
    Ok(())
}

/// Slow streams at once, through the load client.
async fn all_complete(streams: usize) -> Result<(), Box<dyn Error>> {
    let config = SimConfig { slots: streams, decode_rate: 4.0, prefill_rate: 1e9, ..SimConfig::llama_server("gpu0") };
    let server = SimServer::start(config).await?;
    let load = LoadConfig {
        sessions: streams,
        turns: 1,
        concurrency: streams,
        first_prompt_bytes: 400,
        max_tokens: 40,
        ..LoadConfig::new([server.url()])
    };
    let started = Instant::now();
    let report = LoadRun::start(load)?.finish().await;
    println!(
        "{streams} slow streams of 40 tokens at once: {} complete, {} broken, {:.1} s (ideal 9.8)",
        report.succeeded,
        report.failed(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Resident memory of this process in bytes.
fn resident() -> Result<usize, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kilobytes: usize = line.split_whitespace().nth(1).ok_or("no figure")?.parse()?;
    Ok(kilobytes * 1024)
}
