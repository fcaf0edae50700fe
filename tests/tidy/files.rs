//! The files of the repository.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file, by its path from the root.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// One file, which must be there.
pub(crate) fn read(path: &str) -> File {
    let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    File { path: path.to_owned(), text }
}

/// All files below these folders that end so, in a fixed order.
pub(crate) fn below(folders: &[&str], end: &str) -> Vec<File> {
    let mut paths = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut paths);
    }
    let mut paths: Vec<String> = paths.iter().map(|path| from_root(path)).filter(|path| path.ends_with(end)).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no {end} below {folders:?}: has a folder moved?");
    paths.iter().map(|path| read(path)).collect()
}

/// What people read.
pub(crate) fn papers() -> Vec<File> {
    let mut papers = below(&["docs", "deploy", "client"], ".md");
    papers.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(read));
    papers
}

impl File {
    /// The lines before the module of unit tests.
    pub(crate) fn without_tests(&self) -> Vec<&str> {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = lines.windows(2).position(|two| two[0] == "#[cfg(test)]" && two[1].ends_with('{'));
        lines[..tests.unwrap_or(lines.len())].to_vec()
    }

    /// The same without comments.
    pub(crate) fn code(&self) -> Vec<&str> {
        let lines = self.without_tests().into_iter();
        lines.filter(|line| !line.trim_start().starts_with("//")).map(before_comment).collect()
    }
}

fn before_comment(line: &str) -> &str {
    line.split_once(" // ").map_or(line, |(code, _)| code)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        match path.is_dir() {
            // What cargo and Python leave behind is not ours.
            true if path.ends_with("target") || path.ends_with("__pycache__") => {}
            true => collect(&path, found),
            false => found.push(path),
        }
    }
}

fn from_root(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}
