//! What a backend gets with every request, in place of the clients' own headers of those names.

use crate::config::BackendHeader;

/// The headers of a backend, ready to be sent.
#[derive(Default)]
pub struct BackendHeaders {
    /// Each of them.
    pub fields: Vec<BackendHeader>,
    /// All of them as lines of a head.
    pub lines: Vec<u8>,
}

impl BackendHeaders {
    pub(super) fn new(fields: &[BackendHeader]) -> BackendHeaders {
        let line = |field: &BackendHeader| [field.name.as_bytes(), b": ", field.value.as_bytes(), b"\r\n"].concat();
        BackendHeaders { lines: fields.iter().flat_map(line).collect(), fields: fields.to_vec() }
    }

    /// Whether one of them has this name.
    #[must_use]
    pub fn has(&self, name: &[u8]) -> bool {
        self.fields.iter().any(|field| field.name.as_bytes().eq_ignore_ascii_case(name))
    }
}
