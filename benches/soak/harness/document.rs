//! The part of a document that a bench writes.

use std::path::Path;

/// Replaces what stands between the two marks.
pub(crate) fn write(file: &Path, text: &str) {
    let document = std::fs::read_to_string(file).expect("the document");
    let (before, rest) = document.split_once(BEGIN).expect("the first mark");
    let (_, after) = rest.split_once(END).expect("the second mark");
    std::fs::write(file, format!("{before}{BEGIN}\n{text}{END}{after}")).expect("the document can be written");
}

const BEGIN: &str = "<!-- from here to the end mark: written by the bench -->";
const END: &str = "<!-- end -->";
