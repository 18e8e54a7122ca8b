//! Bytes, and what they mean: frames between nodes, and what clients and nodes say to each other.

pub mod frame;
pub mod protocol;
pub(crate) mod sse;
