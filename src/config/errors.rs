//! Every mistake of a file, in file order.

use std::fmt;

use super::node::Position;

/// All mistakes of one config file. Displays as one `file:line:column: key.path: message` per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    file: String,
    list: Vec<ConfigError>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The value (or the key, where there is no scalar value); `None` when the file could not be read at all.
    pub position: Option<Position>,
    /// Such as `pools[0].backends[1].url`; empty when the mistake is not in one key.
    pub path: String,
    /// What is wrong and what to write instead, for people.
    pub message: String,
}

impl Errors {
    pub(super) fn new(file: &str, mut list: Vec<ConfigError>) -> Self {
        list.sort_by_key(|error| error.position);
        Self { file: file.to_owned(), list }
    }

    pub(super) fn whole_file(file: &str, message: String) -> Self {
        Self::new(file, vec![ConfigError { position: None, path: String::new(), message }])
    }

    /// The file's name as given.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// How many mistakes there are: at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// The mistakes, in file order.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.list.iter()
    }
}

impl ConfigError {
    pub(super) fn at(position: Position, message: impl Into<String>) -> Self {
        Self { position: Some(position), path: String::new(), message: message.into() }
    }
}

impl std::error::Error for Errors {}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.list.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{}:{error}", self.file)?;
        }
        Ok(())
    }
}

/// `LINE:COLUMN: KEY.PATH: MESSAGE`, as far as there are a place and a key.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        if !self.path.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        write!(f, " {}", self.message)
    }
}
