//! API keys of the clients.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::backends::BINARY;

/// A file of keys, and the keys; the file goes when this drops.
pub(crate) struct Keys {
    pub(crate) file: PathBuf,
    keys: Vec<String>,
}

impl Keys {
    /// As an operator makes them.
    pub(crate) fn make() -> Result<Keys, String> {
        let file = std::env::temp_dir().join(format!("ingle-soak-{}.keys", std::process::id()));
        let (mut lines, mut keys) = (String::new(), Vec::new());
        for name in NAMES {
            let made = Command::new(BINARY).args(["key", name]).stdin(Stdio::null()).output();
            let made = made.map_err(|error| format!("ingle key: {error}"))?;
            lines += &String::from_utf8_lossy(&made.stdout);
            let told = String::from_utf8_lossy(&made.stderr).into_owned();
            let key = told.trim_end().rsplit_once(": ").ok_or_else(|| format!("ingle key says {told:?}"))?;
            keys.push(key.1.to_owned());
        }
        std::fs::write(&file, lines).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Keys { file, keys })
    }

    /// Each client always shows the same one.
    pub(crate) fn of(&self, client: usize) -> &str {
        &self.keys[client % self.keys.len()]
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // It is of no use to anybody.
        let _ = std::fs::remove_file(&self.file);
    }
}

const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];
