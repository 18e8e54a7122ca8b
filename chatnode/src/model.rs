//! What everything else speaks of: names, entries and their order. Imports nothing of the crate.

pub(crate) mod entry;
pub(crate) mod mesh_name;
pub(crate) mod names;
pub(crate) mod page;
pub(crate) mod pattern;
pub(crate) mod query;
pub(crate) mod words;
