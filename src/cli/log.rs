//! Logs go to standard error, through a buffer that never blocks.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, stderr};
use std::panic::{self, PanicHookInfo};
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::LogFormat;
use crate::log;

/// Writes what is left of the log when it drops, for a limited time: a process that must end does not wait for a reader.
pub(super) struct FlushOnDrop;

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        log::stderr().flush(MAX_FLUSH);
    }
}

/// Begins to log, human on a terminal and JSON otherwise, if not said otherwise. `quiet`: errors only, unless
/// `verbose` asks for more.
pub(super) fn init(verbose: u8, format: Option<LogFormat>, quiet: bool) {
    let terminal = stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Human } else { LogFormat::Json });
    let layer = fmt::layer().with_writer(log::stderr).log_internal_errors(false).with_ansi(terminal).with_target(false);
    let layer = match format {
        LogFormat::Human => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
    };
    // A second logger in one process can only come from a test; the first one serves it as well.
    let _ = tracing_subscriber::registry().with(layer.with_filter(targets(verbose, quiet))).try_init();
    panic::set_hook(Box::new(log_panic));
}

/// The hook of the standard library writes to standard error itself, and blocks if that is not read.
fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let what = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let backtrace = Backtrace::capture();
    tracing::error!(
        what,
        at = info.location().map(tracing::field::display),
        thread = thread::current().name(),
        backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(backtrace)),
        "panic: this is a bug in ingle, please report it"
    );
}

/// Pingora logs each connection that a client breaks as an error; the access log and the metrics say it better.
fn targets(verbose: u8, quiet: bool) -> Targets {
    let (ours, pingoras) = match verbose {
        0 if quiet => (LevelFilter::ERROR, LevelFilter::OFF),
        0 => (LevelFilter::INFO, LevelFilter::OFF),
        1 => (LevelFilter::DEBUG, LevelFilter::WARN),
        // Pingora's debug lines have whole heads in them, with sessions and keys.
        _ => (LevelFilter::TRACE, LevelFilter::INFO),
    };
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("ingle", ours)
        .with_target("pingora_core", pingoras)
        .with_target("pingora_core::services", pingoras.max(LevelFilter::ERROR))
}

/// How long a process that ends waits for its last log lines to be written.
const MAX_FLUSH: Duration = Duration::from_secs(1);
