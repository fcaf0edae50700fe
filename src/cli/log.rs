//! Logs go to standard error.

use std::io::{IsTerminal, stderr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::LogFormat;

/// Begins to log, human on a terminal and JSON otherwise, if not said otherwise. `quiet`: errors only, unless
/// `verbose` asks for more.
pub(super) fn init(verbose: u8, format: Option<LogFormat>, quiet: bool) {
    let terminal = stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Human } else { LogFormat::Json });
    let layer = fmt::layer().with_writer(stderr).with_ansi(terminal).with_target(false);
    let layer = match format {
        LogFormat::Human => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
    };
    // A second logger in one process can only come from a test; the first one serves it as well.
    let _ = tracing_subscriber::registry().with(layer.with_filter(targets(verbose, quiet))).try_init();
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
