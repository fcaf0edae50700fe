//! `ingle check`: is this file a valid configuration?

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;

/// The exit code for wrong usage or an invalid config.
const INVALID: u8 = 2;

/// Prints `FILE: ok (N listeners, M backends)` to standard output, warnings to standard error, and returns 0, or prints every error of the file,
/// one per line with its place, to standard error and returns 2.
#[must_use]
pub fn run(path: &Path) -> ExitCode {
    match report(path, &mut io::stdout().lock(), &mut io::stderr().lock()) {
        Ok(code) => ExitCode::from(code),
        Err(_) => ExitCode::FAILURE, // nobody reads our output
    }
}

fn report(path: &Path, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    match Config::load(path) {
        Ok(config) => {
            for warning in &config.warnings {
                writeln!(err, "{}:{warning} (warning)", path.display())?;
            }
            let listeners = counted(config.listeners.len(), "listener");
            let backends = counted(config.pool().backends.len(), "backend");
            writeln!(out, "{}: ok ({listeners}, {backends})", path.display())?;
            Ok(0)
        }
        Err(errors) => {
            writeln!(err, "{errors}")?;
            Ok(INVALID)
        }
    }
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str) -> (u8, String, String) {
        let path = Path::new(path);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = report(path, &mut out, &mut err).unwrap();
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_good_file_is_counted() {
        let dir = std::env::temp_dir().join(format!("ingle-check-{}.yaml", std::process::id()));
        std::fs::write(&dir, "listeners: [{ address: 127.0.0.1:0 }]\npools: [{ name: main, backends: [{ url: http://a }, { url: http://b }] }]\n").unwrap();
        let name = dir.display().to_string();
        let (code, out, err) = check(&name);
        std::fs::remove_file(&dir).unwrap();
        assert_eq!((code, out, err), (0, format!("{name}: ok (1 listener, 2 backends)\n"), String::new()));
    }

    #[test]
    fn a_missing_file_is_exit_2() {
        let (code, out, err) = check("/no/such/file.yaml");
        assert_eq!((code, out.as_str()), (2, ""));
        assert_eq!(err, "/no/such/file.yaml: cannot be read: No such file or directory (os error 2)\n");
    }
}
