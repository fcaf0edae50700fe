//! The tables of hostile answers.

pub(crate) mod bytes;
pub(crate) mod chunks;
pub(crate) mod codings;
pub(crate) mod end;
pub(crate) mod interim;
pub(crate) mod lengths;
pub(crate) mod size;
pub(crate) mod status;
