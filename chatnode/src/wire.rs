//! Bytes, and what they mean: frames between nodes, and what clients and nodes say to each other.

pub(crate) mod frame;
pub(crate) mod protocol;
pub(crate) mod refusals;
pub(crate) mod sse;
