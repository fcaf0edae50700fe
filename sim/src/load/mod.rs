//! A client that plays multi-turn sessions and reports reuse, time to first token and errors.
//!
//! The first token of a stream is its first event with output: neither its head nor comments nor events that announce
//! output count. A stream that has an error in it, or that lacks its last event, has failed.
//!
//! Each session is a conversation: a turn sends all messages so far and a new user message, the answer joins the
//! history. All sessions are alive at the same time; `concurrency` bounds the requests in flight, and sessions wait
//! for their next turn in order. Works against real llama-servers and vLLMs, directly or through any proxy.

mod config;
mod exchange;
pub(crate) mod reading;
mod report;
mod samples;
mod session;
mod turn;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

pub use config::{LoadConfig, LoadError, UrlChoice};
pub use exchange::ErrorKind;
pub use report::{LoadReport, TokenFigures};
pub use samples::{Samples, Summary};
pub use turn::Turn;

use exchange::Client;
use report::Recorder;
use session::Session;

/// A load that runs in the background. Dropping it ends its requests at once.
#[derive(Debug)]
pub struct LoadRun {
    context: Arc<Context>,
    sessions: JoinSet<()>,
    stop: watch::Sender<bool>,
    started: Instant,
}

/// Stops a [`LoadRun`] from elsewhere.
#[derive(Clone, Debug)]
pub struct StopHandle(watch::Sender<bool>);

impl StopHandle {
    /// No new turns; requests in flight are answered to their end.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: LoadConfig,
    pub(crate) client: Client,
    pub(crate) permits: Semaphore,
    pub(crate) recorder: Mutex<Recorder>,
}

impl LoadRun {
    /// Starts all sessions. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the configuration cannot work; nothing was sent then.
    pub fn start(config: LoadConfig) -> Result<Self, LoadError> {
        let client = Client::new(&config)?;
        let context = Arc::new(Context {
            permits: Semaphore::new(config.concurrency.max(1)),
            recorder: Mutex::new(Recorder::new(&config)),
            client,
            config,
        });
        let stop = watch::Sender::new(false);
        let mut sessions = JoinSet::new();
        for index in 0..context.config.sessions {
            let (context, mut stopped) = (context.clone(), stop.subscribe());
            sessions.spawn(async move { Box::pin(play(context, index, &mut stopped)).await });
        }
        Ok(Self { context, sessions, stop, started: Instant::now() })
    }

    /// The report of what has happened so far.
    pub fn snapshot(&self) -> LoadReport {
        self.context.recorder.lock().report(self.started.elapsed())
    }

    /// Stops the run from elsewhere.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.stop.clone())
    }

    /// A way to read snapshots while [`finish`](Self::finish) waits.
    pub fn progress(&self) -> Progress {
        Progress { context: self.context.clone(), started: self.started }
    }

    /// No new turns; requests in flight are answered to their end.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for all sessions and reports.
    pub async fn finish(mut self) -> LoadReport {
        while self.sessions.join_next().await.is_some() {}
        self.snapshot()
    }

    /// The same, but ends what still runs after `patience`.
    pub async fn finish_within(mut self, patience: Duration) -> LoadReport {
        let all = async { while self.sessions.join_next().await.is_some() {} };
        // Either way the report says how many turns were played.
        let _ = tokio::time::timeout(patience, all).await;
        self.sessions.abort_all();
        self.snapshot()
    }
}

/// Plays conversation number `index` when its time has come, and its successors.
async fn play(context: Arc<Context>, mut index: usize, stop: &mut watch::Receiver<bool>) {
    let config = &context.config;
    let mut pause = config.ramp.mul_f64(index as f64 / config.sessions as f64);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep(pause) => {}
        }
        Session::new(context.clone(), index).play(stop).await;
        if !config.successors {
            return;
        }
        index += config.sessions;
        pause = config.think_time;
    }
}

/// Reads the figures of a [`LoadRun`] while it runs.
#[derive(Clone, Debug)]
pub struct Progress {
    context: Arc<Context>,
    started: Instant,
}

impl Progress {
    /// The report of what has happened so far.
    pub fn snapshot(&self) -> LoadReport {
        self.context.recorder.lock().report(self.started.elapsed())
    }
}
