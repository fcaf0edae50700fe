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
use crate::reload::{self, Movement};
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
    let movement = match sessions {
        Some(path) => {
            let ids = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Movement::of(&old, &new, ids.lines())
        }
        None => Movement::of(&old, &new, reload::made_up(reload::SAMPLE)),
    };
    let moves = movement.moves.iter().fold(String::new(), |mut text, ((from, to), n)| {
        // Writing to a String never fails.
        let _ = writeln!(text, "{from} -> {to}: {n}");
        text
    });
    Ok(format!("{moves}{}\n", movement.sessions()))
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
