//! One connection of a backend: what comes is checked, and answered right or wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::answers::{plain, right};
use crate::asked::{Kind, asked, is_body};
use crate::backend::Shared;
use crate::script::{Probes, Step};
use crate::strict::{self, Request};

/// One connection of a backend.
pub(crate) struct Connection<S> {
    pub(crate) stream: S,
    bytes: Vec<u8>,
    /// Requests that it had.
    served: usize,
    shared: Arc<Shared>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(stream: S, shared: &Arc<Shared>) -> Connection<S> {
        Connection { stream, bytes: Vec::new(), served: 0, shared: Arc::clone(shared) }
    }

    /// Request after request. The step that ended it, if it was one.
    pub(crate) async fn serve(&mut self) -> Option<Step> {
        loop {
            let request = self.read().await?;
            let probe = request.target == "/health";
            let fault = self.shared.fault.borrow().clone();
            let status = fault.as_ref().and_then(|fault| match fault.probes {
                Probes::Status(status) if probe => Some(status),
                _ => None,
            });
            if let Some(status) = status {
                self.stream.write_all(&plain(status, b"not now")).await.ok()?;
                continue;
            }
            let _busy = Busy::new(&self.shared);
            let served = self.served;
            self.served += 1;
            let fault = fault.filter(|fault| fault.is_met(served, &request.target));
            if !probe {
                self.note(&request);
            }
            match fault {
                None => self.perform(&Step::Answer, Some(&request)).await.then_some(())?,
                Some(fault) => {
                    self.shared.met.fetch_add(1, Ordering::Relaxed);
                    for step in fault.answer {
                        if !self.perform(&step, Some(&request)).await {
                            return Some(step);
                        }
                    }
                }
            }
        }
    }

    fn note(&self, request: &Request) {
        match asked(&request.target) {
            Some((Kind::Stream { .. }, id)) if !is_body(id, &request.body) => {
                self.shared.broken.lock().push(format!("{} bytes that {id} has not sent", request.body.len()));
            }
            Some((_, id)) if id.starts_with("long-") => {
                self.shared.long.fetch_add(1, Ordering::Relaxed);
            }
            Some(_) => {}
            None => self.shared.others.lock().push(request.summary()),
        }
    }

    /// The next request; `None` if the connection ends before, or brings what no backend may be sent.
    async fn read(&mut self) -> Option<Request> {
        loop {
            match strict::request(&self.bytes) {
                Ok(Some((request, length))) => {
                    self.bytes.drain(..length);
                    return Some(request);
                }
                Ok(None) => {}
                Err(why) => {
                    self.shared.broken.lock().push(format!("{why}, in {}", self.bytes.escape_ascii()));
                    return None;
                }
            }
            let idle = self.bytes.is_empty() && self.served > 0;
            let more = tokio::select! {
                more = self.stream.read_buf(&mut self.bytes) => more,
                () = idle_too_long(self.shared.keep_alive.subscribe()), if idle => return None,
            };
            more.ok().filter(|n| *n > 0)?;
        }
    }

    /// False: the connection is over.
    pub(crate) async fn perform(&mut self, step: &Step, request: Option<&Request>) -> bool {
        match step {
            Step::Send(bytes) => self.stream.write_all(bytes).await.is_ok(),
            Step::Repeat(bytes, count) => {
                let mut left = 0..*count;
                while left.next().is_some() {
                    if self.stream.write_all(bytes).await.is_err() {
                        return false;
                    }
                }
                true
            }
            Step::Drip(bytes, pause) => self.drip(bytes, *pause).await,
            Step::Answer => self.answer(request, usize::MAX, b"").await,
            Step::AnswerAnd(bytes) => self.answer(request, usize::MAX, bytes).await,
            Step::Begin(pieces) => self.answer(request, *pieces, b"").await,
            Step::DripAnswer => {
                let whole = request.iter().flat_map(|request| right(&self.shared.name, request).flatten());
                self.drip(&whole.collect::<Vec<u8>>(), Duration::ZERO).await
            }
            Step::Wait(time) => {
                tokio::time::sleep(*time).await;
                true
            }
            Step::Hang => {
                while matches!(self.stream.read_buf(&mut self.bytes).await, Ok(1..)) {}
                false
            }
            Step::Close => {
                let _ = self.stream.shutdown().await;
                false
            }
            Step::Reset => false,
        }
    }

    async fn drip(&mut self, bytes: &[u8], pause: Duration) -> bool {
        for byte in bytes {
            if self.stream.write_all(&[*byte]).await.is_err() {
                return false;
            }
            tokio::time::sleep(pause).await;
        }
        true
    }

    /// The right answer, or its head and this many pieces; `and` goes with the last part.
    async fn answer(&mut self, request: Option<&Request>, pieces: usize, and: &[u8]) -> bool {
        let Some(request) = request else { return true };
        let pause = match asked(&request.target) {
            Some((Kind::Stream { pause, .. }, _)) => pause,
            _ => 0,
        };
        let mut parts = right(&self.shared.name, request).take(pieces.saturating_add(1)).peekable();
        while let Some(mut part) = parts.next() {
            if parts.peek().is_none() {
                part.extend_from_slice(and);
            }
            if self.stream.write_all(&part).await.is_err() {
                return false;
            }
            if pause > 0 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
        true
    }
}

/// Ends when a connection has been idle for longer than it is kept.
async fn idle_too_long(mut keep_alive: watch::Receiver<Option<Duration>>) {
    loop {
        let time = *keep_alive.borrow_and_update();
        match time {
            Some(time) => return tokio::time::sleep(time).await,
            None if keep_alive.changed().await.is_err() => return,
            None => {}
        }
    }
}

/// A request under way.
struct Busy(Arc<Shared>);

impl Busy {
    fn new(shared: &Arc<Shared>) -> Busy {
        let now = shared.busy.0.fetch_add(1, Ordering::Relaxed) + 1;
        shared.busy.1.fetch_max(now, Ordering::Relaxed);
        Busy(Arc::clone(shared))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.0.fetch_sub(1, Ordering::Relaxed);
    }
}
