//! `ingle schema`: the JSON Schema of the config file, for editors.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config;

/// Prints the schema to standard output, indented.
#[must_use]
pub fn run() -> ExitCode {
    match print(&mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // nobody reads our output
    }
}

fn print(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{:#}", config::schema())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_a_json_schema() {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        let schema: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["properties"]["access_log"]["default"], "off");
    }
}
