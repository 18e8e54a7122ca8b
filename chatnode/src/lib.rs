//! One node of a chatmesh.

pub mod bus;
pub mod replica;
pub mod store;
