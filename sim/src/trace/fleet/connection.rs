//! One connection to a simulated backend.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use crate::connection::client_gone;
use crate::request::{Request, read_request, wait_for_request};

use super::super::machine::Machine;
use super::{FirstToken, Fleet, Head, Served, Shared};

/// Serves requests until the client leaves.
pub(super) async fn serve(shared: Arc<Shared>, machine: usize, mut stream: TcpStream) {
    // Without it a stream's chunks would be late; if it fails the connection is gone.
    let _ = stream.set_nodelay(true);
    let mut buffer = BytesMut::new();
    while wait_for_request(&mut stream, &mut buffer, IDLE).await {
        let Ok(request) = read_request(&mut stream, &mut buffer, MAX_BODY).await else { return };
        let (mut input, mut output) = stream.split();
        let answered = tokio::select! {
            biased;
            answered = answer(&shared, machine, &request, &mut output) => answered.is_ok(),
            () = client_gone(&mut input, &mut buffer) => false,
        };
        if !answered || !request.keeps_alive() {
            return;
        }
    }
}

async fn answer(shared: &Arc<Shared>, machine: usize, request: &Request, output: &mut WriteHalf<'_>) -> io::Result<()> {
    if let Some(index) = turn(shared, request) {
        return complete(shared, machine, index, output).await;
    }
    let (status, body) = match request.path() {
        "/metrics" => ("200 OK", shared.with_yard(|yard, _| metrics(&yard.machines[machine]))),
        "/health" | "/v1/models" | "/v1/chat/completions" => ("200 OK", "{}".to_owned()),
        _ => ("404 Not Found", "{}".to_owned()),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    output.write_all((head + &body).as_bytes()).await
}

fn turn(shared: &Shared, request: &Request) -> Option<usize> {
    let index = str::from_utf8(request.header(Fleet::TURN_HEADER)?).ok()?.parse().ok()?;
    (index < shared.workload.turns.len()).then_some(index)
}

/// Waits for the machine and streams an answer: some events, not one for each token, and the usage at its end.
async fn complete(shared: &Arc<Shared>, machine: usize, index: usize, output: &mut WriteHalf<'_>) -> io::Result<()> {
    let (queued, first_token) = shared.arrive(machine, index);
    let at_once = shared.config.head == Head::AtOnce;
    if at_once {
        output.write_all(STREAM_HEAD.as_bytes()).await?;
    }
    let FirstToken { cached, end } = with_pings(shared, output, first_token).await?;
    shared.yard.lock().served.insert(index, Served { machine, cached });
    let head = if at_once { "" } else { STREAM_HEAD };
    output.write_all((head.to_owned() + &chunk(ROLE) + &chunk(TOKENS)).as_bytes()).await?;
    loop {
        let now = Instant::now();
        if now >= end {
            break;
        }
        sleep_until(end.min(now + BETWEEN_EVENTS)).await;
        output.write_all(chunk(TOKENS).as_bytes()).await?;
    }
    // The slot is free when the last token is there, whatever the client does with it.
    drop(queued);
    let turn = &shared.workload.turns[index];
    let usage = format!(
        "{ORIGIN},\"choices\":[],\"usage\":{{\"prompt_tokens\":{},\"total_tokens\":{},\"completion_tokens\":{},\
         \"prompt_tokens_details\":{{\"cached_tokens\":{cached}}}}}}}",
        turn.prompt,
        turn.prompt + turn.output,
        turn.output
    );
    output.write_all((chunk(&usage) + &chunk("[DONE]") + "0\r\n\r\n").as_bytes()).await
}

/// Waits for the first token, with pings once the head is sent. An error is that of a connection whose machine died.
async fn with_pings(
    shared: &Shared,
    output: &mut WriteHalf<'_>,
    mut first_token: oneshot::Receiver<FirstToken>,
) -> io::Result<FirstToken> {
    let interval = shared.config.ping_interval.filter(|_| shared.config.head == Head::AtOnce);
    loop {
        tokio::select! {
            biased;
            token = &mut first_token => return token.map_err(|_| io::ErrorKind::ConnectionReset.into()),
            () = sleep(interval.unwrap_or_default()), if interval.is_some() => output.write_all(PING).await?,
        }
    }
}

/// An event as a chunk.
fn chunk(data: &str) -> String {
    format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + "data: \n\n".len())
}

/// The figures of vLLM that say how loaded it is.
fn metrics(machine: &Machine) -> String {
    let figures: [(&str, f64); 3] = [
        ("num_requests_running", machine.running() as f64),
        ("num_requests_waiting", machine.waiting() as f64),
        ("kv_cache_usage_perc", machine.cache_use()),
    ];
    figures
        .map(|(name, value)| format!("# TYPE vllm:{name} gauge\nvllm:{name}{{model_name=\"m\"}} {value:?}\n"))
        .concat()
}

const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
const ORIGIN: &str = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":0,"model":"m""#;
/// A comment, as a chunk.
const PING: &[u8] = b"3\r\n:\n\n\r\n";
/// The event without output before the first token.
const ROLE: &str = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":0,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
const TOKENS: &str = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":0,"model":"m","choices":[{"index":0,"delta":{"content":"some tokens of text"},"finish_reason":null}]}"#;
const BETWEEN_EVENTS: Duration = Duration::from_millis(50);
/// Longer than any proxy keeps an unused connection.
const IDLE: Duration = Duration::from_secs(3600);
const MAX_BODY: usize = 16 << 20;
