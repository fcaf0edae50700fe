//! The tables of cases.

pub(crate) mod bytes;
pub(crate) mod chunks;
pub(crate) mod connection;
pub(crate) mod framing;
pub(crate) mod size;
pub(crate) mod target;
