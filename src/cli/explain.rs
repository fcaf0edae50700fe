//! `ingle explain`: where a session goes, and what a change of the config would move.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::INVALID;
use crate::config::Config;
use crate::core::SessionKey;
use crate::core::ttft::Terms;
use crate::metrics::Metrics;
use crate::snapshot::Snapshot;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The config file; with --against, the old one.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print this session's preference order, home first.
    #[arg(long, value_name = "ID", required_unless_present = "against", conflicts_with = "against")]
    session: Option<String>,
    /// As if this backend were not there; may be given more than once.
    #[arg(long, value_name = "NAME", num_args = 1.., requires = "session")]
    without: Vec<String>,
    /// The length of the request's body, for the scores of `least_ttft`.
    #[arg(long, value_name = "N", default_value_t = 32_768, requires = "session")]
    bytes: u64,
    /// Print what share of sessions this new config would move.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// The sessions to ask about, one id a line; otherwise 100,000 made-up ones.
    #[arg(long, value_name = "FILE", requires = "against")]
    sessions: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let explained = match (&args.session, &args.against) {
        (Some(session), _) => order(args, session),
        (None, Some(new)) => movement(&args.config, new, args.sessions.as_deref()),
        (None, None) => Err("either --session or --against is needed".to_owned()),
    };
    let (written, code) = match explained {
        Ok(text) => (io::stdout().lock().write_all(text.as_bytes()), ExitCode::SUCCESS),
        Err(error) => (writeln!(io::stderr().lock(), "{error}"), ExitCode::from(INVALID)),
    };
    if written.is_ok() { code } else { ExitCode::FAILURE }
}

/// One backend a line, home first; with `least_ttft` followed by the terms of its score, as they are while nothing is
/// under way and nothing is learned. A running gateway says what it has learned: `/explain` of its admin listener.
fn order(args: &Args, session: &str) -> Result<String, String> {
    let snapshot = load(&args.config)?;
    for name in &args.without {
        if snapshot.pool.position(name).is_none() {
            return Err(format!("--without {name}: no backend has that name"));
        }
    }
    let key = key(&snapshot, session).ok_or("--session: that is no valid session id")?;
    let mut text = String::new();
    for view in snapshot.pool.explain(key, args.bytes, 0).members {
        let name = snapshot.pool.members()[view.member].backend.name();
        if args.without.iter().any(|without| without == name) {
            continue;
        }
        text += name;
        if let Some(Terms { wait, recompute, decoding, speed, total }) = view.terms {
            // Writing to a String never fails.
            let _ = write!(text, "\t(wait {wait:.0} + recompute {recompute:.0} + decoding {decoding:.0}) / ");
            let _ = write!(text, "speed {speed} = {total:.0}");
        }
        text += "\n";
    }
    Ok(text)
}

/// How many sessions have another home under the new config, and between which backends they move.
fn movement(old: &Path, new: &Path, sessions: Option<&Path>) -> Result<String, String> {
    let (old, new) = (load(old)?, load(new)?);
    let ids = match sessions {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?,
        None => (0..MADE_UP).fold(String::new(), |text, i| text + "session-" + &i.to_string() + "\n"),
    };
    let mut total = 0u32;
    let mut moves = std::collections::BTreeMap::<(String, String), u32>::new();
    for id in ids.lines() {
        let (Some(before), Some(after)) = (home(&old, id), home(&new, id)) else { continue };
        total += 1;
        if before != after {
            *moves.entry((before, after)).or_default() += 1;
        }
    }
    let mut text = String::new();
    for ((from, to), n) in &moves {
        // Writing to a String never fails.
        let _ = writeln!(text, "{from} -> {to}: {n}");
    }
    let moved: u32 = moves.values().sum();
    let share = if total == 0 { 0.0 } else { 100.0 * f64::from(moved) / f64::from(total) };
    let _ = writeln!(text, "{moved} of {total} sessions move ({share:.1} %)");
    Ok(text)
}

fn load(path: &Path) -> Result<Snapshot, String> {
    let config = Config::load(path).map_err(|errors| errors.to_string())?;
    let metrics = Metrics::new().map_err(|error| error.to_string())?;
    Ok(Snapshot::new(config, &metrics))
}

fn key(snapshot: &Snapshot, id: &str) -> Option<SessionKey> {
    let max_length = snapshot.config.affinity.max_length;
    SessionKey::parse(id.as_bytes(), max_length, snapshot.pool.settings().seed).ok()?
}

fn home(snapshot: &Snapshot, id: &str) -> Option<String> {
    let home = snapshot.pool.home(key(snapshot, id)?)?;
    Some(snapshot.pool.members()[home].backend.name().to_owned())
}

/// Enough for a share that is right to a tenth of a per cent or two.
const MADE_UP: u32 = 100_000;
