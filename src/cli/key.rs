//! `ingle key`: a line for a file of API keys.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use ring::rand::{SecureRandom, SystemRandom};

use super::INVALID;
use crate::config::{Digest, holder_name};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Who gets the key: the name in logs and metrics.
    name: String,
    /// Read the key from standard input, instead of making one.
    #[arg(long)]
    stdin: bool,
}

/// Prints the line to standard output, and to standard error the key, if it was made here: only now can it be seen.
#[must_use]
pub(super) fn run(args: &Args) -> ExitCode {
    let name = match holder_name(&args.name) {
        Ok(name) => name,
        Err(flaw) => return wrong(&flaw),
    };
    let key = if args.stdin { read(io::stdin().lock()) } else { random() };
    let key = match key {
        Ok(key) => key,
        Err(flaw) => return wrong(&flaw),
    };
    match tell(&name, &key, !args.stdin, &mut io::stdout().lock(), &mut io::stderr().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // nobody reads our output
    }
}

fn tell(name: &str, key: &str, is_new: bool, out: &mut impl Write, err: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{name} sha256:{}", Digest::of(key.as_bytes()).to_hex())?;
    if is_new {
        writeln!(err, "the key of {name}, which is shown only now: {key}")?;
    }
    Ok(())
}

fn wrong(flaw: &str) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "error: {flaw}");
    ExitCode::from(INVALID)
}

/// 192 random bits: nobody guesses them, so a fast hash will do for the file.
fn random() -> Result<String, String> {
    let mut bytes = [0; 24];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no random numbers".to_owned())?;
    Ok(bytes.iter().fold("ik-".to_owned(), |key, byte| format!("{key}{byte:02x}")))
}

/// A key of somebody's own making. A short one could be guessed from its hash.
fn read(mut input: impl Read) -> Result<String, String> {
    let mut text = String::new();
    input.read_to_string(&mut text).map_err(|error| format!("standard input can't be read: {error}"))?;
    match text.trim() {
        key if key.len() < SHORTEST => Err(format!("a key of fewer than {SHORTEST} characters can be guessed")),
        key if key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(key.to_owned()),
        _ => Err("a key is one word of visible ASCII".to_owned()),
    }
}

/// 16 random letters and digits have 95 bits.
const SHORTEST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyFile;

    #[test]
    fn the_line_is_one_of_a_key_file() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let key = random().unwrap();
        tell("alice", &key, true, &mut out, &mut err).unwrap();
        let file = KeyFile::parse(&out).unwrap();
        assert_eq!((file.holders[0].name.as_str(), file.holders[0].keys[0]), ("alice", Digest::of(key.as_bytes())));
        assert!(!String::from_utf8(out).unwrap().contains(&key) && String::from_utf8(err).unwrap().contains(&key));
        assert_ne!(key, random().unwrap());
    }

    #[test]
    fn a_key_of_ones_own_is_no_short_one() {
        assert_eq!(read(&b" 0123456789abcdef\n"[..]).as_deref(), Ok("0123456789abcdef"));
        assert!(read(&b"0123456789abcde"[..]).is_err());
        assert!(read(&b"0123456789 abcdef"[..]).is_err());
    }
}
