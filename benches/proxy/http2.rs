//! The client's side of HTTP/2 without TLS, with prior knowledge.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::task::{JoinHandle, JoinSet, LocalSet};

use super::backend::SMALL_ANSWER;
use super::http1::{KB, PATH, body, tcp};

/// Connections, each with a task that drives it.
pub(crate) struct Connections(Vec<(SendRequest<Bytes>, JoinHandle<()>)>);

impl Connections {
    pub(crate) async fn open(port: u16, connections: usize) -> Result<Connections, String> {
        let mut open = Connections(Vec::new());
        for _ in 0..connections {
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(WINDOW).initial_connection_window_size(8 * WINDOW);
            let (sender, connection) = builder.handshake(tcp(port).await?).await.map_err(|error| error.to_string())?;
            // Its end shows in the streams.
            open.0.push((sender, tokio::spawn(async move { drop(connection.await) })));
        }
        Ok(open)
    }

    /// Sends `requests` requests, with `streams` at a time on each connection. Returns how long that took.
    pub(crate) async fn run(&self, requests: usize, streams: usize) -> Result<Duration, String> {
        let left = Rc::new(Cell::new(requests));
        let start = Instant::now();
        let local = LocalSet::new();
        let mut tasks = JoinSet::new();
        for session in 0..self.0.len() * streams {
            let sender = self.0[session % self.0.len()].0.clone();
            let left = Rc::clone(&left);
            let turns = async move {
                let body = Bytes::from(body(KB));
                while left.get() > 0 {
                    left.set(left.get() - 1);
                    exchange(sender.clone(), session, body.clone()).await?;
                }
                Ok::<(), String>(())
            };
            tasks.spawn_local_on(turns, &local);
        }
        local
            .run_until(async {
                while let Some(done) = tasks.join_next().await {
                    done.map_err(|error| error.to_string())??;
                }
                Ok(start.elapsed())
            })
            .await
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.0.iter().for_each(|(_, task)| task.abort());
    }
}

async fn exchange(sender: SendRequest<Bytes>, session: usize, body: Bytes) -> Result<(), String> {
    let request = Request::post(format!("http://llm{PATH}"))
        .header("content-type", "application/json")
        .header("x-session-id", format!("bench-{session}"))
        .header("user-agent", "bench")
        .header("accept", "*/*")
        .header("content-length", body.len())
        .body(())
        .map_err(|error| error.to_string())?;
    let answered = async {
        let (response, mut sink) = sender.ready().await?.send_request(request, false)?;
        sink.send_data(body, true)?;
        let (parts, mut stream) = response.await?.into_parts();
        let mut length = 0;
        while let Some(piece) = stream.data().await {
            let piece = piece?.len();
            stream.flow_control().release_capacity(piece)?;
            length += piece;
        }
        Ok((parts.status, length))
    };
    match answered.await {
        Ok((status, SMALL_ANSWER)) if status == 200 => Ok(()),
        Ok((status, length)) => Err(format!("unexpected response: {status}, {length} bytes")),
        Err(error) => Err(format!("HTTP/2: {}", h2::Error::to_string(&error))),
    }
}

const WINDOW: u32 = 1 << 20;
