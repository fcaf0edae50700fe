//! The tables of cases.

pub(crate) mod bytes;
pub(crate) mod chunks;
pub(crate) mod connection;
pub(crate) mod framing;
pub(crate) mod rfc7541;
pub(crate) mod rfc9113;
pub(crate) mod size;
pub(crate) mod target;
