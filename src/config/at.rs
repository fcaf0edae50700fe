//! Where in the file the conversion is, and the errors it has found.

use std::path::{Path, PathBuf};

use super::errors::ConfigError;
use super::keys::path_text;
use super::lenient::Lenient;
use super::node::{Node, Step};

/// The section being converted. Every method returns `None` after it has noted an error.
pub(super) struct At<'a> {
    root: &'a Node,
    problems: &'a mut Vec<ConfigError>,
    warnings: Vec<ConfigError>,
    files: Files<'a>,
    path: Vec<Step>,
}

/// The files that a config names.
#[derive(Clone, Copy)]
pub(super) struct Files<'a> {
    /// What relative paths are relative to.
    pub(super) directory: &'a Path,
    /// Whether they are read and checked.
    pub(super) read: bool,
}

#[cfg(test)]
impl Files<'static> {
    /// None are looked at.
    pub(super) fn none() -> Self {
        Files { directory: Path::new(""), read: false }
    }
}

impl<'a> At<'a> {
    pub(super) fn new(root: &'a Node, problems: &'a mut Vec<ConfigError>, files: Files<'a>) -> Self {
        Self { root, problems, warnings: Vec::new(), files, path: Vec::new() }
    }

    /// Whether files that the config names are read and checked.
    pub(super) fn reads_files(&self) -> bool {
        self.files.read
    }

    /// What was found that is allowed, and yet perhaps not meant; in no order.
    pub(super) fn into_warnings(self) -> Vec<ConfigError> {
        self.warnings
    }

    /// The key path, for messages about two places.
    pub(super) fn path(&self) -> String {
        path_text(&self.path)
    }

    /// Converts the value of a key that must be there.
    pub(super) fn key<T, U>(
        &mut self,
        name: &str,
        value: Lenient<T>,
        read: impl FnOnce(T) -> Result<U, String>,
    ) -> Option<U> {
        if value.is_absent() {
            self.missing(name);
            return None;
        }
        self.optional(name, value, read).flatten()
    }

    /// Converts the value of a key that may be absent: `Some(None)`.
    pub(super) fn optional<T, U>(
        &mut self,
        name: &str,
        value: Lenient<T>,
        read: impl FnOnce(T) -> Result<U, String>,
    ) -> Option<Option<U>> {
        let result = match value {
            Lenient::Absent => return Some(None),
            Lenient::Bad(message) => Err(message),
            Lenient::Good(value) => read(value),
        };
        result.map(Some).map_err(|message| self.error(&[Step::Key(name.to_owned())], message)).ok()
    }

    /// Converts a section that must be there (those with defaults always are).
    pub(super) fn section<T, U>(
        &mut self,
        name: &str,
        value: Lenient<T>,
        read: impl FnOnce(T, &mut Self) -> Option<U>,
    ) -> Option<U> {
        let value = self.key(name, value, Ok)?;
        self.inside(Step::Key(name.to_owned()), |at| read(value, at))
    }

    /// Converts each item of a list of 1 to `most` items; `None` for an item with an error.
    pub(super) fn list<T, U>(
        &mut self,
        name: &str,
        value: Lenient<Vec<Lenient<T>>>,
        most: usize,
        mut read: impl FnMut(T, &mut Self) -> Option<U>,
    ) -> Option<Vec<Option<U>>> {
        let items = self.key(name, value, |items| match items.len() {
            0 => Err("is empty: it needs at least one item".into()),
            count if count > most => Err(format!("has {count} items: at most {most}")),
            _ => Ok(items),
        })?;
        let converted = items.into_iter().enumerate().map(|(index, item)| {
            self.inside(Step::Key(name.to_owned()), |at| {
                at.inside(Step::Index(index), |at| match item {
                    Lenient::Good(value) => read(value, at),
                    Lenient::Bad(message) => at.note(message),
                    Lenient::Absent => None,
                })
            })
        });
        Some(converted.collect())
    }

    /// Converts a path that may be absent: `Some(None)`. It is relative to the config file's directory.
    pub(super) fn path_to(&mut self, name: &str, value: Lenient<String>) -> Option<Option<PathBuf>> {
        let directory = self.files.directory.to_owned();
        self.optional(
            name,
            value,
            |text| if text.is_empty() { Err("is empty".into()) } else { Ok(directory.join(text)) },
        )
    }

    /// An error of the section itself.
    pub(super) fn note<U>(&mut self, message: impl Into<String>) -> Option<U> {
        self.error(&[], message.into());
        None
    }

    /// An error of something below the section.
    pub(super) fn error(&mut self, below: &[Step], message: String) {
        let error = self.placed(below, message);
        self.problems.push(error);
    }

    /// A warning about something below the section.
    pub(super) fn warn(&mut self, below: &[Step], message: String) {
        let warning = self.placed(below, message);
        self.warnings.push(warning);
    }

    fn placed(&self, below: &[Step], message: String) -> ConfigError {
        let path = [&self.path, below].concat();
        ConfigError { position: Some(self.root.find(&path).position), path: path_text(&path), message }
    }

    fn inside<U>(&mut self, step: Step, read: impl FnOnce(&mut Self) -> U) -> U {
        self.path.push(step);
        let result = read(self);
        self.path.pop();
        result
    }

    /// Says nothing where the key has an error already, or a misspelt one stands in its place.
    fn missing(&mut self, name: &str) {
        let section = self.path();
        let dot = if section.is_empty() { "" } else { "." };
        let path = format!("{section}{dot}{name}");
        let meant = format!("did you mean `{name}`?");
        let explained = |error: &ConfigError| {
            let same_section = error.path.rsplit_once('.').map_or("", |(section, _)| section) == section;
            error.path == path || (same_section && error.message.ends_with(&meant))
        };
        if !self.problems.iter().any(explained) {
            self.error(&[Step::Key(name.to_owned())], "is missing".into());
        }
    }
}
