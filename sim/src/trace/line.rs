//! One request of a trace.

use std::fmt;
use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

/// Tokens of a block that one hash id stands for.
pub const BLOCK_TOKENS: u32 = 512;

/// A line of a trace in the format of Mooncake (FAST'25): JSON, one object a line.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Milliseconds since the trace began.
    pub timestamp: u64,
    /// Tokens of the prompt.
    pub input_length: u32,
    /// Tokens of the answer.
    pub output_length: u32,
    /// One id for each block of [`BLOCK_TOKENS`] of the prompt, the last one of what is left. Equal ids stand for
    /// equal prompts up to the end of their blocks.
    pub hash_ids: Vec<u64>,
}

/// Why there is no trace.
#[derive(Debug)]
pub enum TraceError {
    /// The file cannot be read.
    Io(io::Error),
    /// This line (counted from 1) is not what it should be.
    Line(usize, String),
    /// There is no line.
    Empty,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read the trace: {error}"),
            Self::Line(number, why) => write!(f, "line {number} of the trace: {why}"),
            Self::Empty => f.write_str("the trace is empty"),
        }
    }
}

impl std::error::Error for TraceError {}

/// Reads a trace, at most `limit` lines of it. Blank lines are passed over. Lines come out in the order of their times.
///
/// # Errors
/// When the input cannot be read, is empty, or a line is not one of a trace.
pub fn read(input: impl BufRead, limit: usize) -> Result<Vec<Line>, TraceError> {
    let mut lines = Vec::new();
    for (index, text) in input.lines().enumerate() {
        let text = text.map_err(TraceError::Io)?;
        if text.trim().is_empty() {
            continue;
        }
        if lines.len() == limit {
            break;
        }
        lines.push(parse(&text).map_err(|why| TraceError::Line(index + 1, why))?);
    }
    if lines.is_empty() {
        return Err(TraceError::Empty);
    }
    lines.sort_by_key(|line| line.timestamp);
    Ok(lines)
}

fn parse(text: &str) -> Result<Line, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let blocks = line.input_length.div_ceil(BLOCK_TOKENS) as usize;
    if line.input_length == 0 {
        return Err("a prompt of no tokens".to_owned());
    }
    if line.hash_ids.len() != blocks {
        return Err(format!("{} hash_ids for {blocks} blocks", line.hash_ids.len()));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_in_order_of_time_and_up_to_a_limit() {
        let text = r#"{"timestamp": 3000, "input_length": 600, "output_length": 5, "hash_ids": [0, 1]}

{"timestamp": 0, "input_length": 512, "output_length": 7, "hash_ids": [0]}
"#;
        let lines = read(text.as_bytes(), 10).unwrap();
        assert_eq!(lines.iter().map(|line| line.timestamp).collect::<Vec<_>>(), [0, 3000]);
        assert_eq!(lines[1].hash_ids, [0, 1]);
        assert_eq!(read(text.as_bytes(), 1).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_trace_is_told_with_its_line() {
        let good = r#"{"timestamp": 0, "input_length": 512, "output_length": 7, "hash_ids": [0]}"#;
        let told = |text: &str| read(text.as_bytes(), 10).unwrap_err().to_string();
        assert_eq!(told(""), "the trace is empty");
        assert!(told(&format!("{good}\nhello")).starts_with("line 2 of the trace: expected value"));
        assert!(told(&good.replace("512", "513")).ends_with("1 hash_ids for 2 blocks"));
        assert!(told(&good.replace("512", "0")).ends_with("a prompt of no tokens"));
    }
}
