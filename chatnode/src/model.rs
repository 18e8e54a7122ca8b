//! What everything else speaks of: names, entries and their order. Imports nothing of the crate.

pub mod entry;
pub mod mesh_name;
pub mod names;
pub mod page;
pub mod query;
pub(crate) mod words;
